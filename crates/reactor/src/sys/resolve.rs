//! getaddrinfo(3) and getnameinfo(3).

use std::error::Error;
use std::ffi::{CStr, c_char};
use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::ptr;

use libc::{addrinfo, c_int, socklen_t};

use super::address::RawAddress;
use crate::addr::SocketAddress;

const HOST_LEN_MAX: usize = libc::NI_MAXHOST as usize;

/// NI_MAXSERV of netdb.h.
const SERVICE_LEN_MAX: usize = 32;

/// What [`getaddrinfo`](crate::resolver::getaddrinfo) is to look for; zero means anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// `AF_*`.
    pub family: i32,
    /// `SOCK_*`.
    pub socktype: i32,
    /// `IPPROTO_*`.
    pub protocol: i32,
    /// `AI_*`.
    pub flags: i32,
}

/// One answer of [`getaddrinfo`](crate::resolver::getaddrinfo).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddrInfo {
    /// `AF_*`.
    pub family: i32,
    /// `SOCK_*`.
    pub socktype: i32,
    /// `IPPROTO_*`.
    pub protocol: i32,
    /// The official name of the host, in the first answer when AI_CANONNAME asked for it.
    pub canonname: Option<Vec<u8>>,
    /// Where to connect or bind to.
    pub address: SocketAddress,
}

/// Why a lookup failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResolveError {
    /// `EAI_*`, the number of Python's `socket.gaierror`.
    pub code: i32,
    /// The errno, when `code` is EAI_SYSTEM. Python raises `OSError` then.
    pub errno: Option<i32>,
}

impl ResolveError {
    /// The C library's text for `code`, see gai_strerror(3).
    pub fn message(&self) -> String {
        message(self.code)
    }
}

impl fmt::Display for ResolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.errno {
            Some(errno) => io::Error::from_raw_os_error(errno).fmt(f),
            None => write!(f, "[Errno {}] {}", self.code, self.message()),
        }
    }
}

impl Error for ResolveError {}

/// The list that getaddrinfo made, freed as one.
struct Answers(*mut addrinfo);

impl Drop for Answers {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: the pointer came from getaddrinfo and is freed here only.
            unsafe { libc::freeaddrinfo(self.0) };
        }
    }
}

pub(crate) fn getaddrinfo(
    host: Option<&CStr>,
    service: Option<&CStr>,
    hints: Hints,
) -> Result<Vec<AddrInfo>, ResolveError> {
    // SAFETY: an addrinfo is plain integers and pointers, for which zero is a value.
    let mut raw_hints: addrinfo = unsafe { MaybeUninit::zeroed().assume_init() };
    raw_hints.ai_flags = hints.flags;
    raw_hints.ai_family = hints.family;
    raw_hints.ai_socktype = hints.socktype;
    raw_hints.ai_protocol = hints.protocol;
    let mut answers = Answers(ptr::null_mut());
    // SAFETY: the strings end with NUL and, like the hints, are alive during the call, which fills
    // in the list.
    let code = unsafe {
        libc::getaddrinfo(
            host.map_or(ptr::null(), CStr::as_ptr),
            service.map_or(ptr::null(), CStr::as_ptr),
            &raw const raw_hints,
            &raw mut answers.0,
        )
    };
    succeed(code)?;
    Ok(copy_answers(&answers))
}

fn copy_answers(answers: &Answers) -> Vec<AddrInfo> {
    let mut infos = Vec::new();
    let mut next = answers.0;
    // SAFETY: the list is alive as long as `answers`, and each element points to the next or is
    // null.
    while let Some(answer) = unsafe { next.as_ref() } {
        next = answer.ai_next;
        if answer.ai_addr.is_null() {
            continue;
        }
        // SAFETY: an answer's address has as many bytes as its length says.
        let address = unsafe { RawAddress::copy_from(answer.ai_addr, answer.ai_addrlen) };
        let canonname = (!answer.ai_canonname.is_null()).then(|| {
            // SAFETY: it is not null, ends with NUL, and is alive as long as `answers`.
            unsafe { CStr::from_ptr(answer.ai_canonname) }
                .to_bytes()
                .to_vec()
        });
        infos.push(AddrInfo {
            family: answer.ai_family,
            socktype: answer.ai_socktype,
            protocol: answer.ai_protocol,
            canonname,
            address: address.to_address(),
        });
    }
    infos
}

pub(crate) fn getnameinfo(
    address: &SocketAddress,
    flags: c_int,
) -> Result<(Vec<u8>, Vec<u8>), ResolveError> {
    let address = RawAddress::new(address).map_err(|_| ResolveError {
        code: libc::EAI_FAMILY,
        errno: None,
    })?;
    let mut host: [c_char; HOST_LEN_MAX] = [0; HOST_LEN_MAX];
    let mut service: [c_char; SERVICE_LEN_MAX] = [0; SERVICE_LEN_MAX];
    // SAFETY: the address has as many bytes as its length says, and the two buffers as many as is
    // said here; all are alive during the call.
    let code = unsafe {
        libc::getnameinfo(
            address.as_ptr(),
            address.len(),
            host.as_mut_ptr(),
            HOST_LEN_MAX as socklen_t,
            service.as_mut_ptr(),
            SERVICE_LEN_MAX as socklen_t,
            flags,
        )
    };
    succeed(code)?;
    Ok((until_nul(&host), until_nul(&service)))
}

fn until_nul(buffer: &[c_char]) -> Vec<u8> {
    buffer
        .iter()
        .take_while(|byte| **byte != 0)
        .map(|byte| *byte as u8)
        .collect()
}

/// Reads errno at once, before anything else can change it.
fn succeed(code: c_int) -> Result<(), ResolveError> {
    match code {
        0 => Ok(()),
        libc::EAI_SYSTEM => Err(ResolveError {
            code,
            errno: io::Error::last_os_error().raw_os_error(),
        }),
        _ => Err(ResolveError { code, errno: None }),
    }
}

fn message(code: c_int) -> String {
    // SAFETY: takes no pointer.
    let text = unsafe { libc::gai_strerror(code) };
    if text.is_null() {
        return String::new();
    }
    // SAFETY: it is not null, and glibc and musl return a constant string that ends with NUL.
    unsafe { CStr::from_ptr(text) }
        .to_string_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use crate::resolver::{Job, Resolver, SubmitError};

    /// What a child of fork(2) does with its parent's pool and with one of its own.
    fn child(parents: Resolver) -> bool {
        let refused = parents.submit(Job::new(|| {}, |()| {}));
        let refused = matches!(refused, Err(SubmitError::Closed)) && parents.threads() == 0;
        parents.close();
        parents.join();
        drop(parents);
        let (sender, receiver) = channel();
        let own = Resolver::new(16);
        let submitted = own.submit(Job::new(String::new, move |text| drop(sender.send(text))));
        let answered = submitted.is_ok() && receiver.recv() == Ok(String::new());
        own.join();
        refused && answered
    }

    #[test]
    fn a_forked_child_leaves_the_parent_s_pool_alone_and_makes_its_own() {
        let parents = Resolver::new(16);
        let (started, has_started) = channel();
        let (release, released) = channel::<()>();
        let work = move || {
            started.send(()).expect("the test is listening");
            released.recv()
        };
        let ticket = parents.submit(Job::new(work, drop)).expect("submit");
        has_started.recv().expect("the job has started");
        // SAFETY: the child calls what the C library keeps usable after a fork (memory, threads),
        // takes no lock of another thread, and leaves with _exit.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let good = child(parents);
            // SAFETY: ends the process; nothing of this one's is left to run.
            unsafe { libc::_exit(i32::from(!good)) };
        }
        let mut status = 0;
        // SAFETY: `status` is alive during the call.
        assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
        assert_eq!(status, 0, "the child's judgement");
        assert_eq!(parents.threads(), 1);
        assert!(ticket.cancel());
        drop(release);
        parents.join();
    }
}
