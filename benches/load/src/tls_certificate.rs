//! Certificate: a new ECDSA P-256 key and its self-signed certificate, in files.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};

const CERTIFICATE: &str = "certificate.pem";
const KEY: &str = "key.pem";

/// Write `certificate.pem` and `key.pem` into a directory.
pub(crate) fn make(directory: &Path) -> io::Result<()> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(io::Error::other)?;
    let names = [String::from("localhost"), String::from("127.0.0.1")];
    let certificate = CertificateParams::new(names)
        .and_then(|parameters| parameters.self_signed(&key))
        .map_err(io::Error::other)?;
    fs::write(directory.join(CERTIFICATE), certificate.pem())?;
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(directory.join(KEY))?
        .write_all(key.serialize_pem().as_bytes())
}
