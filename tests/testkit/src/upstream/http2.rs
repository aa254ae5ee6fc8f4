//! The HTTP/2 side of a scripted upstream.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::record::{Record, SeenRequest};
use super::script::{Fault, Reply};
use crate::h2_frames::{header_map, listed, send_all};
use crate::stream::{ByteStream, TlsFacts};

/// The first bytes of every HTTP/2 connection with prior knowledge.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(super) async fn serve(
    stream: impl ByteStream + 'static,
    start: Vec<u8>,
    number: usize,
    tls: Option<TlsFacts>,
    record: &Record,
) {
    let stream = Replayed { start, at: 0, stream };
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(exchange(request, respond, number, tls.clone(), record.clone()));
    }
}

async fn exchange(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    number: usize,
    tls: Option<TlsFacts>,
    record: Record,
) {
    let (head, mut body) = request.into_parts();
    let (index, reply) = record.arrived(SeenRequest {
        connection: number,
        protocol: "HTTP/2".to_owned(),
        method: head.method.to_string(),
        target: head.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
        authority: head.uri.authority().map(ToString::to_string),
        scheme: head.uri.scheme_str().map(str::to_owned),
        headers: listed(&head.headers),
        body: Vec::new(),
        chunked: false,
        trailers: Vec::new(),
        complete: false,
        tls,
    });
    if !reply.early && !read_body(&mut body, &record, index).await {
        return;
    }
    // A stream or connection that the other side has given up is its right; there is nobody to tell.
    let _ = answer(&mut respond, &reply).await;
    if reply.early {
        read_body(&mut body, &record, index).await;
    }
}

async fn read_body(body: &mut RecvStream, record: &Record, index: usize) -> bool {
    while let Some(piece) = body.data().await {
        let Ok(piece) = piece else { return false };
        // The window was granted for bytes just received, so giving it back cannot overflow it.
        let _ = body.flow_control().release_capacity(piece.len());
        record.update(index, |r| r.body.extend_from_slice(&piece));
    }
    let Ok(trailers) = body.trailers().await else { return false };
    record.update(index, |r| {
        r.trailers = trailers.as_ref().map(listed).unwrap_or_default();
        r.complete = true;
    });
    true
}

async fn answer(respond: &mut SendResponse<Bytes>, reply: &Reply) -> Result<(), h2::Error> {
    tokio::time::sleep(reply.delay()).await;
    match &reply.fault {
        Some(Fault::CloseBeforeHead | Fault::ResetBeforeHead | Fault::Bytes(_)) => {
            respond.send_reset(Reason::INTERNAL_ERROR);
            return Ok(());
        }
        Some(Fault::RefuseStream) => {
            respond.send_reset(Reason::REFUSED_STREAM);
            return Ok(());
        }
        Some(Fault::Hang) => return std::future::pending().await,
        Some(Fault::CloseMidBody | Fault::ResetMidBody) | None => {}
    }
    let mut response = Response::builder().status(reply.status).body(()).unwrap_or_default();
    *response.headers_mut() = header_map(&reply.headers);
    for status in &reply.interim {
        let interim = Response::builder().status(*status).body(()).unwrap_or_default();
        respond.send_informational(interim)?;
    }
    let pieces = reply.body.pieces();
    let bodiless = pieces.is_empty() && reply.trailers.is_empty();
    let mut stream = respond.send_response(response, bodiless)?;
    if bodiless {
        return Ok(());
    }
    tokio::time::sleep(Duration::from_millis(reply.body_delay_ms)).await;
    let count = pieces.len();
    for (number, piece) in pieces.into_iter().enumerate() {
        if number > 0 {
            tokio::time::sleep(Duration::from_millis(reply.chunk_delay_ms)).await;
        }
        let last = number + 1 == count && reply.trailers.is_empty();
        send_all(&mut stream, piece.into(), last && reply.fault.is_none()).await?;
        if reply.fault.is_some() {
            stream.send_reset(Reason::INTERNAL_ERROR);
            return Ok(());
        }
    }
    if !reply.trailers.is_empty() {
        stream.send_trailers(header_map(&reply.trailers))?;
    }
    Ok(())
}

/// A stream whose first bytes were already read.
struct Replayed<S> {
    start: Vec<u8>,
    at: usize,
    stream: S,
}

impl<S: AsyncRead + Unpin> AsyncRead for Replayed<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.at < this.start.len() {
            let count = out.remaining().min(this.start.len() - this.at);
            out.put_slice(&this.start[this.at..this.at + count]);
            this.at += count;
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.stream).poll_read(cx, out)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Replayed<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
