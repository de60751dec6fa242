"""Certificates of an authority that lives as long as the test process, and contexts with them."""

import atexit
import datetime
import functools
import shutil
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NAME = "oxloop.test"
OTHER_NAME = "other.test"
PASSWORD = "correct horse"
DAY = datetime.timedelta(days=1)
USAGES = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]


@dataclass(frozen=True)
class Certificate:
    """Files as `SSLContext.load_cert_chain` takes them."""

    chain: str
    key: str
    encrypted_key: str
    der: bytes


def _subject(name):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _key_usage(**used):
    names = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement"
        " key_cert_sign crl_sign encipher_only decipher_only"
    )
    return x509.KeyUsage(**{name: used.get(name, False) for name in names.split()})


class Authority:
    """Issues certificates and writes them into a directory of its own."""

    def __init__(self, name):
        self.directory = Path(tempfile.mkdtemp(prefix="oxloop-certificates-"))
        atexit.register(shutil.rmtree, self.directory, ignore_errors=True)
        self._issued = {}
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _subject(name)
        builder = self._builder(self._name, self._key.public_key(), 0)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        usage = _key_usage(key_cert_sign=True, crl_sign=True, digital_signature=True)
        certificate = builder.add_extension(usage, True).sign(self._key, hashes.SHA256())
        self.pem = certificate.public_bytes(serialization.Encoding.PEM).decode()
        self.file = self._write("authority.pem", self.pem.encode())

    def _builder(self, subject, public_key, age_days):
        begin = datetime.datetime.now(datetime.UTC) - DAY * (1 + age_days)
        own = self._key.public_key()
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(begin + 30 * DAY)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(own), False)
        )

    def _write(self, name, data):
        path = self.directory / name
        path.write_bytes(data)
        return str(path)

    def issue(self, name, age_days=0):
        """The certificate of that host name; 30 days are its life."""
        if (name, age_days) not in self._issued:
            self._issued[name, age_days] = self._issue(name, age_days)
        return self._issued[name, age_days]

    def _issue(self, name, age_days):
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(_subject(name), key.public_key(), age_days)
        certificate = (
            builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
            .add_extension(_key_usage(digital_signature=True), True)
            .add_extension(x509.ExtendedKeyUsage(USAGES), False)
            .sign(self._key, hashes.SHA256())
        )
        stem = f"{name}-{age_days}"
        pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        plain = key.private_bytes(pem, form, serialization.NoEncryption())
        encryption = serialization.BestAvailableEncryption(PASSWORD.encode())
        return Certificate(
            self._write(f"{stem}.pem", certificate.public_bytes(pem)),
            self._write(f"{stem}.key", plain),
            self._write(f"{stem}.encrypted.key", key.private_bytes(pem, form, encryption)),
            certificate.public_bytes(serialization.Encoding.DER),
        )


@functools.cache
def authority(name="oxloop test authority"):
    """The authority of that name; contexts below trust the unnamed one."""
    return Authority(name)


def server_context(name=NAME, *, clients=None, version=None, age_days=0, issuer=None):
    """A server's context; ``clients`` is the verify mode for their certificates."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate = (issuer or authority()).issue(name, age_days)
    context.load_cert_chain(certificate.chain, certificate.key)
    if clients is not None:
        context.verify_mode = clients
        context.load_verify_locations(authority().file)
    return _restricted(context, version)


def client_context(*, trust=True, certificate=None, version=None):
    """A client's context that checks host names and trusts the authority."""
    context = ssl.create_default_context(cafile=authority().file if trust else None)
    if certificate is not None:
        context.load_cert_chain(certificate.chain, certificate.key)
    return _restricted(context, version)


def careless_context():
    """A client's context that verifies nothing."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _restricted(context, version):
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context
