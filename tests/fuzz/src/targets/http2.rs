//! The HTTP/2 adapter, over a wire in memory. The first byte says in which pieces the rest arrives and whether it is raw or a
//! list of frames to make.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use dhow_base::Rng;
use dhow_http::h2::{RecvBody, ServerConnection, ServerStream, Settings, connect};
use dhow_http::{HeaderMap, KnownHeader};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Target;
use crate::input::{Input, assemble, noise};

/// What a client may send.
pub const SERVER: Target = Target {
    name: "http2-server",
    about: "whatever a client sends, the connection ends and streams begin with valid heads",
    run: server,
    generate: frames_of_client,
};

/// What a server may send.
pub const CLIENT: Target = Target {
    name: "http2-client",
    about: "whatever a server sends, the connection ends and responses begin with valid heads",
    run: client,
    generate: frames_of_server,
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Header blocks without a dynamic table: requests, responses, trailers, odd ones.
const BLOCKS: &[&[u8]] = &[
    b"\x82\x86\x84\x41\x01a",
    b"\x83\x86\x84\x41\x01a",
    b"\x82\x87\x04\x04/p?q\x41\x01b",
    b"\x88",
    b"\x89\x0f\x0d\x015",
    b"\x48\x03103",
    b"\x8d",
    b"\x40\x01x\x01y",
    b"\x40\x01X\x01y",
    b"\x40\x0aconnection\x05close",
    b"\x0f\x0d\x013",
    b"\x0f\x0d\x01x",
    b"\x3f\xff\xff\xff\x7f",
    b"\x20",
    b"\xbe",
    b"\x42\x07CONNECT\x41\x03a:1",
    b"\x40\x09:protocol\x09websocket",
];

fn frames_of_client(rng: &mut Rng) -> Vec<u8> {
    frames(rng, 1)
}

fn frames_of_server(rng: &mut Rng) -> Vec<u8> {
    frames(rng, 4)
}

/// Instructions for [`wire`]: kind, flags, stream, payload.
fn frames(rng: &mut Rng, blocks_from: usize) -> Vec<u8> {
    let mut bytes = vec![rng.next_u32() as u8 | 1];
    for _ in 0..1 + rng.below(12) {
        let kind = [0, 0, 1, 1, 1, 1, 3, 4, 6, 7, 8, 9][rng.index(12)];
        let flags = [0u8, 1, 4, 5, 5, 5, 0x0d, 0x2c][rng.index(8)];
        let payload = match kind {
            1 | 9 => {
                let first = BLOCKS[(blocks_from - 1 + rng.index(3)) % BLOCKS.len()];
                let mut block = first.to_vec();
                if rng.chance(1, 2) {
                    block.extend(assemble(rng, BLOCKS, 2));
                }
                block
            }
            3 | 8 => (rng.below(20) as u32).to_be_bytes().to_vec(),
            4 => match rng.chance(1, 2) {
                true => Vec::new(),
                false => vec![0, rng.below(8) as u8, 0, 0, rng.next_u32() as u8, rng.next_u32() as u8],
            },
            6 => vec![7; 8],
            7 => vec![0; 8],
            _ => noise(rng, 40),
        };
        bytes.extend([kind, flags, [1u8, 1, 1, 3, 5, 0, 2][rng.index(7)], payload.len().min(255) as u8]);
        bytes.extend(&payload[..payload.len().min(255)]);
    }
    bytes
}

/// The bytes on the wire: after `start`, the frames that the instructions describe, or the instructions themselves.
fn wire(mut input: Input<'_>, made: bool, start: &[u8]) -> Vec<u8> {
    let mut wire = start.to_vec();
    if !made {
        wire.extend_from_slice(input.rest());
        return wire;
    }
    push_frame(&mut wire, 4, 0, 0, &[]);
    push_frame(&mut wire, 4, 1, 0, &[]);
    while !input.is_empty() {
        let (kind, flags, stream) = (input.byte(), input.byte(), input.byte());
        push_frame(&mut wire, kind, flags, stream, input.bytes());
    }
    wire
}

fn push_frame(wire: &mut Vec<u8>, kind: u8, flags: u8, stream: u8, payload: &[u8]) {
    wire.extend([0, 0, payload.len() as u8, kind, flags, 0, 0, 0, stream]);
    wire.extend_from_slice(payload);
}

/// A connection to nobody: what arrives is known, what leaves is dropped.
struct Wire {
    bytes: Vec<u8>,
    at: usize,
    piece: usize,
    /// Nothing is there at every other question, as on a real connection.
    waits: bool,
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.waits = !this.waits;
        if this.waits && this.at < this.bytes.len() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let count = this.piece.min(out.remaining()).min(this.bytes.len() - this.at);
        out.put_slice(&this.bytes[this.at..this.at + count]);
        this.at += count;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// How often a connection is looked at before it counts as one that never ends: each look reads at least a byte at every other
/// question, so this is plenty.
fn looks(wire: &[u8]) -> usize {
    wire.len() * 4 + 200
}

fn setup<'a>(bytes: &'a [u8], start: &[u8]) -> (Wire, usize, Input<'a>) {
    let mut input = Input::new(bytes);
    let choice = input.byte();
    let bytes = wire(input, choice & 1 == 1, start);
    let looks = looks(&bytes);
    let piece = [1, 3, 9, 10, 64, 1000, 5000, 17][usize::from(choice >> 1) % 8];
    (Wire { bytes, at: 0, piece, waits: false }, looks, input)
}

fn server(bytes: &[u8]) {
    let (wire, looks, _) = setup(bytes, PREFACE);
    let mut context = Context::from_waker(Waker::noop());
    let settings = Settings {
        allow_extended_connect: bytes.len().is_multiple_of(2),
        stream_errors: bytes.len().is_multiple_of(3),
        ..Settings::default()
    };
    let Some(Ok(mut connection)) =
        complete(pin!(ServerConnection::handshake(wire, &settings)), &mut context, looks)
    else {
        return;
    };
    let mut bodies = Vec::new();
    for _ in 0..looks {
        match connection.poll_accept(&mut context) {
            Poll::Ready(Some(Ok(stream))) => bodies.push(answer(stream)),
            Poll::Ready(Some(Err(_)) | None) => return,
            Poll::Pending => {}
        }
        bodies.retain_mut(|body| drain(body, &mut context));
    }
    panic!("the connection does not end");
}

/// Looks at `future` until it is complete; `None` when it never is.
fn complete<F: Future>(
    mut future: Pin<&mut F>,
    context: &mut Context<'_>,
    looks: usize,
) -> Option<F::Output> {
    for _ in 0..looks {
        if let Poll::Ready(output) = future.as_mut().poll(context) {
            return Some(output);
        }
    }
    None
}

fn answer(stream: ServerStream) -> RecvBody {
    let mut head = HeaderMap::new();
    let (body, mut responder) = stream.into_parts(&mut head);
    assert!(!head.method().is_empty(), "a request without a method");
    valid_names(&head);
    let mut response = HeaderMap::new();
    response.set_status(200);
    // The peer may have given the stream up already.
    if let Ok(mut sending) = responder.send_response(&response, false) {
        let _ = sending.send_data(Bytes::from_static(b"hello"), true);
    }
    body
}

fn valid_names(head: &HeaderMap) {
    for (_, name, value) in head.iter() {
        let odd = |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_control() || *byte == b' ';
        assert!(!name.is_empty() && !name.iter().any(odd), "the name {}", name.escape_ascii());
        assert!(
            !value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)),
            "the value {}",
            value.escape_ascii()
        );
    }
}

/// Reads what is there of a body; false once it ended.
fn drain(body: &mut RecvBody, context: &mut Context<'_>) -> bool {
    loop {
        match body.poll_data(context) {
            Poll::Ready(Some(Ok(data))) => body.release(data.len()),
            Poll::Ready(Some(Err(_))) => return false,
            Poll::Ready(None) => break,
            Poll::Pending => return true,
        }
    }
    let mut trailers = HeaderMap::new();
    match body.poll_trailers(context, &mut trailers) {
        Poll::Ready(_) => {
            valid_names(&trailers);
            false
        }
        Poll::Pending => true,
    }
}

fn client(bytes: &[u8]) {
    let (wire, looks, _) = setup(bytes, b"");
    let mut context = Context::from_waker(Waker::noop());
    let settings = Settings::default();
    let Some(Ok((mut sender, connection))) = complete(pin!(connect(wire, &settings)), &mut context, looks)
    else {
        return;
    };
    let mut connection = pin!(connection);
    let mut request = HeaderMap::new();
    for (name, value) in [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")] {
        request.append(name.as_bytes(), value.as_bytes());
    }
    let mut waiting = Vec::new();
    let mut bodies = Vec::new();
    for look in 0..looks {
        if look < 8
            && sender.poll_ready(&mut context).is_ready()
            && let Ok((pending, _)) = sender.send_request(&request, true)
        {
            waiting.push(pending);
        }
        if connection.as_mut().poll(&mut context).is_ready() {
            return;
        }
        waiting.retain_mut(|pending| {
            let mut head = HeaderMap::new();
            match pending.poll_response(&mut context, &mut head) {
                Poll::Ready(Ok(body)) => {
                    assert!(head.contains_known(KnownHeader::Status), "a response without a status");
                    valid_names(&head);
                    bodies.push(body);
                    false
                }
                Poll::Ready(Err(_)) => false,
                Poll::Pending => true,
            }
        });
        bodies.retain_mut(|body| drain(body, &mut context));
    }
    panic!("the connection does not end");
}
