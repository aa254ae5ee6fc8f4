//! Looking at bytes of a Unix socket without taking them.

#![allow(unsafe_code, reason = "neither the standard library nor tokio peeks at Unix sockets")]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Looks at what waits, without waiting for it; 0 is the end of the stream.
///
/// # Errors
/// `WouldBlock` when nothing waits, or what the kernel says of the socket.
pub(crate) fn peek(socket: &impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    let socket = socket.as_fd();
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    // SAFETY: the descriptor is open for as long as it is borrowed, and the kernel writes at most as many bytes as the buffer
    // has, which nobody else sees during the call.
    let count = unsafe { libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), flags) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::os::unix::net::UnixStream;

    use super::peek;

    #[test]
    fn bytes_are_seen_and_stay() {
        let (mut near, mut far) = UnixStream::pair().unwrap();
        let mut buffer = [0; 8];
        assert_eq!(peek(&near, &mut buffer).unwrap_err().kind(), ErrorKind::WouldBlock);
        far.write_all(b"abc").unwrap();
        assert_eq!(peek(&near, &mut buffer).unwrap(), 3);
        assert_eq!(&buffer[..3], b"abc");
        assert_eq!(near.read(&mut buffer).unwrap(), 3);
        drop(far);
        assert_eq!(peek(&near, &mut buffer).unwrap(), 0);
    }
}
