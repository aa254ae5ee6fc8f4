//! A client or an upstream that sends or takes a body and, in HTTP/2, keeps to no more of the protocol than that needs.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The largest window there is.
const WIDE: u32 = 0x7fff_ffff;

/// Window of streams and connections that nothing was said about.
const INITIAL: i64 = 65_535;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;

const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// The one stream of a connection.
const STREAM: u32 = 1;

/// What a peer speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    Http1,
    Http2,
}

/// A connection that carries one exchange.
#[derive(Debug)]
pub struct Peer {
    stream: TcpStream,
    wire: Wire,
    /// How much more the other side takes, on the stream and on the connection.
    windows: [i64; 2],
}

impl Peer {
    fn new(stream: TcpStream, wire: Wire) -> io::Result<Self> {
        // Frames that others wait for must not wait for an acknowledgement.
        stream.set_nodelay(true)?;
        Ok(Self { stream, wire, windows: [INITIAL; 2] })
    }

    /// A client that asks for `path`; a body of `length` follows where there is one.
    pub fn client(stream: TcpStream, wire: Wire, path: &str, length: Option<u64>) -> io::Result<Self> {
        let mut this = Self::new(stream, wire)?;
        match wire {
            Wire::Http1 => {
                let (method, length) = match length {
                    Some(length) => ("POST", format!("content-length: {length}\r\n")),
                    None => ("GET", String::new()),
                };
                write!(this.stream, "{method} {path} HTTP/1.1\r\nhost: a\r\n{length}\r\n")?;
            }
            Wire::Http2 => {
                this.stream.write_all(PREFACE)?;
                this.widen()?;
                // Entries of HPACK's static table, and the path and the authority as literals of indexed names.
                let method = if length.is_some() { 0x83 } else { 0x82 };
                let path = [&[0x04, path.len() as u8], path.as_bytes()].concat();
                let length = length.map(content_length).unwrap_or_default();
                let block = [&[method, 0x86], &path[..], b"\x01\x01a", &length].concat();
                let ends = if length.is_empty() { END_STREAM } else { 0 };
                this.frame(HEADERS, END_HEADERS | ends, STREAM, &block)?;
            }
        }
        Ok(this)
    }

    /// An upstream that has read a request's head.
    pub fn upstream(stream: TcpStream, wire: Wire) -> io::Result<Self> {
        let mut this = Self::new(stream, wire)?;
        match wire {
            Wire::Http1 => this.read_head()?,
            Wire::Http2 => {
                this.stream.read_exact(&mut [0; PREFACE.len()])?;
                this.widen()?;
                while this.next_frame()?.0 != HEADERS {}
            }
        }
        Ok(this)
    }

    /// Starts a response with a body of `length`.
    pub fn respond(&mut self, length: u64) -> io::Result<()> {
        match self.wire {
            Wire::Http1 => write!(self.stream, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n"),
            Wire::Http2 => {
                // `:status: 200` of the static table.
                let block = [&[0x88], &content_length(length)[..]].concat();
                self.frame(HEADERS, END_HEADERS, STREAM, &block)
            }
        }
    }

    /// Sends a body as fast as it is taken, and counts it.
    pub fn send(&mut self, length: u64, moved: &AtomicU64) -> io::Result<()> {
        let part = [b'x'; 16 << 10];
        let mut left = length;
        while left > 0 {
            let count = left.min(part.len() as u64);
            left -= count;
            match self.wire {
                Wire::Http1 => self.stream.write_all(&part[..count as usize])?,
                Wire::Http2 => {
                    while self.windows.iter().any(|window| *window < count as i64) {
                        self.next_frame()?;
                    }
                    self.windows.iter_mut().for_each(|window| *window -= count as i64);
                    let ends = if left == 0 { END_STREAM } else { 0 };
                    self.frame(DATA, ends, STREAM, &part[..count as usize])?;
                }
            }
            moved.fetch_add(count, Ordering::Relaxed);
        }
        Ok(())
    }

    /// A client's side of a response: its head is read.
    pub fn read_response_head(&mut self) -> io::Result<()> {
        match self.wire {
            Wire::Http1 => self.read_head(),
            Wire::Http2 => {
                while self.next_frame()?.0 != HEADERS {}
                Ok(())
            }
        }
    }

    /// Reads a body of `length`.
    pub fn take(&mut self, length: u64) -> io::Result<()> {
        let (mut buffer, mut read) = (vec![0; 256 << 10], 0);
        while read < length {
            let count = match self.wire {
                Wire::Http1 => match self.stream.read(&mut buffer)? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    count => count,
                },
                Wire::Http2 => match self.next_frame()? {
                    (DATA, size) => size,
                    _ => continue,
                },
            };
            read += count as u64;
        }
        assert_eq!(read, length, "bytes of the body");
        Ok(())
    }

    fn read_head(&mut self) -> io::Result<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.stream.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        Ok(())
    }

    /// Leaves nothing but the kernel's buffers to stop the sender.
    fn widen(&mut self) -> io::Result<()> {
        let settings = [&4_u16.to_be_bytes()[..], &WIDE.to_be_bytes()].concat();
        self.frame(SETTINGS, 0, 0, &settings)?;
        self.frame(WINDOW_UPDATE, 0, 0, &(WIDE - INITIAL as u32).to_be_bytes())
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> io::Result<()> {
        let length = (payload.len() as u32).to_be_bytes();
        let header = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        self.stream.write_all(&[&header, payload].concat())
    }

    /// Reads a frame and does what it asks for; gives its type and size.
    fn next_frame(&mut self) -> io::Result<(u8, usize)> {
        let mut header = [0; 9];
        self.stream.read_exact(&mut header)?;
        let [a, b, c, kind, flags, stream @ ..] = header;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.stream.read_exact(&mut payload)?;
        let word = |at: usize| u32::from_be_bytes([0, 1, 2, 3].map(|byte| payload[at + byte]));
        match kind {
            SETTINGS if flags & ACK == 0 => {
                for at in (0..payload.len()).step_by(6) {
                    if payload[at..at + 2] == [0, 4] {
                        self.windows[0] += i64::from(word(at + 2)) - INITIAL;
                    }
                }
                self.frame(SETTINGS, ACK, 0, &[])?;
            }
            PING if flags & ACK == 0 => self.frame(PING, ACK, 0, &payload)?,
            WINDOW_UPDATE if stream == [0; 4] => self.windows[1] += i64::from(word(0)),
            WINDOW_UPDATE => self.windows[0] += i64::from(word(0)),
            _ => {}
        }
        Ok((kind, payload.len()))
    }
}

/// The field as a literal of the name that HPACK has as number 28.
fn content_length(length: u64) -> Vec<u8> {
    let digits = length.to_string();
    [&[0x0f, 0x0d, digits.len() as u8], digits.as_bytes()].concat()
}
