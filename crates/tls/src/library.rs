//! The libssl of this process: which one it is, and why there may be none.
//!
//! OpenSSL keeps its error queue and its locks per copy of the library, so a second copy beside the
//! one that made an `SSL*` cannot work on it. A [`Library`] is therefore found, never loaded: from
//! the shared object that is known to use it, or from the process itself when it is linked in.
//!
//! There is one for the life of the process, as BIO callbacks have nowhere else to find it. Finding
//! it costs some forty symbol look-ups, once.

use std::fmt;
use std::path::Path;
use std::sync::OnceLock;

use crate::outcome::{Failure, Unavailable};
use crate::sys::bio::Method;
use crate::sys::symbols::Symbols;

static LOADED: OnceLock<Library> = OnceLock::new();

/// The functions of the loaded libssl and libcrypto.
pub struct Library {
    pub(crate) symbols: &'static Symbols,
    pub(crate) method: Method,
}

impl Library {
    /// Finds libssl through the shared object at `path`, which must be loaded already, and what it
    /// is linked with; without a path in the process itself and its global symbols.
    ///
    /// The first one found is the library of the process. Another copy is refused later on.
    pub fn of_loaded_object(path: Option<&Path>) -> Result<&'static Self, Unavailable> {
        let symbols = Symbols::of_process(path)?;
        if let Some(library) = LOADED.get() {
            return Ok(library);
        }
        let method = Method::new(symbols)?;
        // Whoever loses a race leaves a BIO_METHOD behind, and gets the winner's library.
        Ok(LOADED.get_or_init(|| Self { symbols, method }))
    }

    /// `OPENSSL_VERSION_NUMBER` of what is loaded, which is `ssl.OPENSSL_VERSION_NUMBER` if it is
    /// the one that Python uses.
    pub fn version_number(&self) -> u64 {
        self.symbols.version_number()
    }

    /// The version as OpenSSL spells it, `ssl.OPENSSL_VERSION`.
    pub fn version(&self) -> String {
        self.symbols.version()
    }

    /// The newest entry of this thread's error queue, which stays where it is.
    pub fn last_failure(&self) -> Option<Failure> {
        self.symbols.last_failure()
    }

    /// Empties this thread's error queue.
    #[inline]
    pub fn clear_errors(&self) {
        self.symbols.clear_errors();
    }
}

impl fmt::Debug for Library {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_tuple("Library")
            .field(&self.version())
            .finish()
    }
}
