//! Datagrams: recvmsg(2), sendto(2), sendmsg(2) and sendmmsg(2) with addresses and segment sizes.

#![cfg_attr(
    target_env = "gnu",
    expect(trivial_numeric_casts, reason = "other types in musl")
)]

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::RawFd;

use libc::{c_int, c_void};

use super::address::RawAddress;
use super::{check, transfer};
use crate::addr::SocketAddress;

/// What one call received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Bytes at the start of the buffer.
    pub len: usize,
    /// The size of each datagram but the last, if the bytes are a run.
    pub segment: Option<usize>,
    /// Who sent it; `None` for a Unix socket without a name.
    pub from: Option<SocketAddress>,
}

/// What one message sends.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// The receiver; `None` is the peer that the socket is connected to.
    pub to: Option<&'a SocketAddress>,
    /// The datagrams: one, or a run.
    pub datagrams: &'a [IoSlice<'a>],
}

/// Room for one control message with an int, aligned as a cmsghdr.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; 64]);

const INT_SPACE: usize = {
    // SAFETY: CMSG_SPACE computes with its argument and touches no memory.
    (unsafe { libc::CMSG_SPACE(size_of::<c_int>() as u32) }) as usize
};
const U16_SPACE: usize = {
    // SAFETY: as above.
    (unsafe { libc::CMSG_SPACE(size_of::<u16>() as u32) }) as usize
};
const _: () = assert!(INT_SPACE <= size_of::<Control>() && U16_SPACE <= size_of::<Control>());
const _: () = assert!(align_of::<Control>() >= align_of::<libc::cmsghdr>());

const fn empty_header() -> libc::msghdr {
    // SAFETY: a msghdr is plain integers and pointers, for which zero is a value.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

#[inline]
pub(crate) fn receive(fd: RawFd, buffer: &mut [u8]) -> io::Result<Received> {
    let mut from = RawAddress::empty();
    let mut control = Control([0; 64]);
    let mut slice = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast::<c_void>(),
        iov_len: buffer.len(),
    };
    let mut header = empty_header();
    let (name, name_len) = from.as_out();
    header.msg_name = name.cast::<c_void>();
    // SAFETY: `name_len` is a field of `from`, which is alive.
    header.msg_namelen = unsafe { name_len.read() };
    header.msg_iov = &raw mut slice;
    header.msg_iovlen = 1;
    header.msg_control = (&raw mut control).cast::<c_void>();
    header.msg_controllen = size_of::<Control>() as _;
    // SAFETY: the header names `from`, `buffer` and `control`, which are alive and borrowed mutably
    // during the call, with their sizes.
    let len = transfer(|| unsafe { libc::recvmsg(fd, &raw mut header, 0) })?;
    // SAFETY: as above; the kernel filled in that many bytes of the name.
    unsafe { name_len.write(header.msg_namelen) };
    Ok(Received {
        len,
        segment: segment_of(&header).filter(|segment| *segment > 0 && *segment < len),
        from: (header.msg_namelen > 0).then(|| from.to_address()),
    })
}

/// The size in a UDP_GRO control message, if there is one.
#[inline]
fn segment_of(header: &libc::msghdr) -> Option<usize> {
    if header.msg_controllen == 0 {
        return None;
    }
    // SAFETY: `header` was filled in by recvmsg and its control buffer is alive, so the macros walk
    // along whole control messages; the payload of UDP_GRO is an int, perhaps not aligned.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(header);
        while !message.is_null() {
            if (*message).cmsg_level == libc::SOL_UDP && (*message).cmsg_type == libc::UDP_GRO {
                let size = libc::CMSG_DATA(message).cast::<c_int>().read_unaligned();
                return usize::try_from(size).ok();
            }
            message = libc::CMSG_NXTHDR(header, message);
        }
    }
    None
}

#[inline]
pub(crate) fn send_to(fd: RawFd, bytes: &[u8], to: &SocketAddress) -> io::Result<()> {
    let to = RawAddress::new(to)?;
    let (start, len) = (bytes.as_ptr().cast::<c_void>(), bytes.len());
    // SAFETY: `bytes` and `to` are alive during the call and have as many bytes as is said.
    transfer(|| unsafe {
        libc::sendto(fd, start, len, libc::MSG_NOSIGNAL, to.as_ptr(), to.len())
    })?;
    Ok(())
}

/// The parts of one message that its header points to.
struct Parts {
    to: Option<RawAddress>,
    control: Control,
    control_len: usize,
}

impl Parts {
    fn of(message: &Message<'_>) -> io::Result<Self> {
        let mut parts = Self {
            to: message.to.map(RawAddress::new).transpose()?,
            control: Control([0; 64]),
            control_len: 0,
        };
        if let [first, _, ..] = message.datagrams {
            let segment = u16::try_from(first.len())
                .map_err(|_| io::Error::from_raw_os_error(libc::EMSGSIZE))?;
            parts.put_segment(segment);
        }
        Ok(parts)
    }

    fn put_segment(&mut self, segment: u16) {
        self.control_len = U16_SPACE;
        let mut header = empty_header();
        header.msg_control = (&raw mut self.control).cast::<c_void>();
        header.msg_controllen = U16_SPACE as _;
        // SAFETY: the control buffer is zeroed, aligned, and has U16_SPACE bytes at least, so that
        // the first control message with its two bytes of payload lies within it.
        unsafe {
            let message = libc::CMSG_FIRSTHDR(&raw const header);
            (*message).cmsg_level = libc::SOL_UDP;
            (*message).cmsg_type = libc::UDP_SEGMENT;
            (*message).cmsg_len = libc::CMSG_LEN(size_of::<u16>() as u32) as _;
            libc::CMSG_DATA(message)
                .cast::<u16>()
                .write_unaligned(segment);
        }
    }

    /// A header that is good for sending while `self` and `message` stay where they are.
    fn header(&self, message: &Message<'_>) -> libc::msghdr {
        let mut header = empty_header();
        if let Some(to) = &self.to {
            header.msg_name = to.as_ptr().cast::<c_void>().cast_mut();
            header.msg_namelen = to.len();
        }
        // IoSlice has the layout of iovec by its documentation; the kernel reads the slices only.
        header.msg_iov = message.datagrams.as_ptr().cast::<libc::iovec>().cast_mut();
        header.msg_iovlen = message.datagrams.len() as _;
        if self.control_len > 0 {
            header.msg_control = (&raw const self.control).cast::<c_void>().cast_mut();
            header.msg_controllen = self.control_len as _;
        }
        header
    }
}

#[inline]
pub(crate) fn send_message(fd: RawFd, message: &Message<'_>) -> io::Result<()> {
    let parts = Parts::of(message)?;
    let header = parts.header(message);
    // SAFETY: the header names `parts` and the datagrams, which are alive during the call.
    transfer(|| unsafe { libc::sendmsg(fd, &raw const header, libc::MSG_NOSIGNAL) })?;
    Ok(())
}

pub(crate) fn send_messages(fd: RawFd, messages: &[Message<'_>]) -> io::Result<usize> {
    let mut parts = Vec::with_capacity(messages.len());
    for message in messages {
        match Parts::of(message) {
            Ok(part) => parts.push(part),
            Err(error) if parts.is_empty() => return Err(error),
            // What comes before it is sent; the next call reports it.
            Err(_) => break,
        }
    }
    let mut headers: Vec<libc::mmsghdr> = parts
        .iter()
        .zip(messages)
        .map(|(parts, message)| libc::mmsghdr {
            msg_hdr: parts.header(message),
            msg_len: 0,
        })
        .collect();
    loop {
        let (start, count) = (headers.as_mut_ptr(), headers.len() as u32);
        // SAFETY: there are `count` headers, which name `parts` and the datagrams; all are alive
        // during the call, and nothing moved since the headers were made.
        let sent = check(unsafe { libc::sendmmsg(fd, start, count, libc::MSG_NOSIGNAL as _) });
        match sent {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            sent => return sent.map(|count| count as usize),
        }
    }
}
