//! Files and sendfile(2), with their errno.

#![forbid(unsafe_code)]

use std::fs;
use std::io::{Read, Seek};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use reactor::file;

/// A directory that is removed in the end.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("reactor-{name}-{}", std::process::id()));
        fs::create_dir(&path).expect("a new directory");
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).expect("removed");
    }
}

fn errno<T>(result: std::io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

#[test]
fn sockets_are_told_from_files_and_removed() {
    let directory = Directory::new("stat");
    let path = directory.0.join("socket");
    let name = path.as_os_str().as_bytes();
    assert_eq!(errno(file::stat(name)), Some(libc::ENOENT));
    let _listener = UnixListener::bind(&path).expect("bound");
    let status = file::stat(name).expect("it is there");
    assert_eq!(status.kind(), libc::S_IFSOCK);
    assert_eq!(
        status.inode,
        fs::metadata(&path).expect("it is there").ino()
    );
    file::unlink(name).expect("removed");
    assert_eq!(errno(file::unlink(name)), Some(libc::ENOENT));
    assert_eq!(errno(file::stat(b"a\0b")), Some(libc::EINVAL));
}

#[test]
fn a_part_of_a_file_is_sent_and_its_position_stays() {
    let directory = Directory::new("sendfile");
    let path = directory.0.join("file");
    fs::write(&path, b"0123456789").expect("written");
    let mut source = fs::File::open(&path).expect("opened");
    let (near, mut far) = UnixStream::pair().expect("a pair");
    let fd = source.as_raw_fd();
    assert_eq!(file::fstat(fd).expect("open").size, 10);
    let sent = file::sendfile(near.as_raw_fd(), fd, 2, 5).expect("sent");
    assert_eq!((sent, source.stream_position().expect("a file")), (5, 0));
    let sent = file::sendfile(near.as_raw_fd(), fd, 10, 5).expect("at the end");
    assert_eq!(sent, 0);
    drop(near);
    let mut received = Vec::new();
    far.read_to_end(&mut received).expect("received");
    assert_eq!(received, b"23456");
    file::seek(fd, 7).expect("a file");
    assert_eq!(source.stream_position().expect("a file"), 7);
}

#[test]
fn descriptors_that_are_none() {
    let (near, _far) = UnixStream::pair().expect("a pair");
    assert_eq!(errno(file::fstat(-1)), Some(libc::EBADF));
    assert_eq!(
        errno(file::sendfile(-1, near.as_raw_fd(), 0, 1)),
        Some(libc::EBADF)
    );
    assert_eq!(errno(file::seek(near.as_raw_fd(), 0)), Some(libc::ESPIPE));
}
