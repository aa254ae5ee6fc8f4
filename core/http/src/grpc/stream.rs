//! A bidirectional call over an HTTP/2 connection.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use bytes::Bytes;

use super::framing::{FrameDecoder, encode_frame};
use super::status::{GrpcCode, GrpcStatus};
use crate::h2::{PendingResponse, RecvBody, SendBody, Sender};
use crate::{HeaderMap, KnownHeader};

/// The head of a call to `/package.Service/Method`. Callers add their initial metadata to it.
pub fn call_head(authority: &str, path: &str) -> HeaderMap {
    let mut head = HeaderMap::new();
    head.append_known(KnownHeader::Method, b"POST");
    head.append_known(KnownHeader::Path, path.as_bytes());
    head.append_known(KnownHeader::Authority, authority.as_bytes());
    head.append_known(KnownHeader::Scheme, b"http");
    head.append_known(KnownHeader::Te, b"trailers");
    head.append_known(KnownHeader::ContentType, b"application/grpc");
    head
}

#[derive(Debug)]
enum Receiving {
    Head(PendingResponse),
    Body(RecvBody),
    Trailers(RecvBody),
    Ended(GrpcStatus),
}

/// A call whose messages are bytes: their types are the caller's business.
///
/// Sending and receiving are independent; both take `&mut self`, so a task that does both selects between them with the
/// `poll_` functions.
#[derive(Debug)]
pub struct GrpcStream {
    sending: SendBody,
    /// What a full window kept from being sent.
    unsent: Bytes,
    receiving: Receiving,
    decoder: FrameDecoder,
    head: HeaderMap,
}

impl GrpcStream {
    /// Opens a call on a connection. `max_message` is the most bytes that a received message may have.
    pub async fn open(mut sender: Sender, head: &HeaderMap, max_message: usize) -> Result<Self, GrpcStatus> {
        sender.ready().await?;
        let (response, sending) = sender.send_request(head, false)?;
        Ok(Self {
            sending,
            unsent: Bytes::new(),
            receiving: Receiving::Head(response),
            decoder: FrameDecoder::new(max_message),
            head: HeaderMap::new(),
        })
    }

    /// Pushes what earlier messages left unsent; ready when the next message can be given to [`GrpcStream::start_send`].
    pub fn poll_send_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), GrpcStatus>> {
        while !self.unsent.is_empty() {
            let count = ready!(self.sending.poll_capacity(cx, self.unsent.len()))?;
            self.sending.send_data(self.unsent.split_to(count), false)?;
        }
        Poll::Ready(Ok(()))
    }

    /// Takes a message to send, after [`GrpcStream::poll_send_ready`] was ready. It leaves with the following polls of
    /// that function.
    pub fn start_send(&mut self, message: &[u8]) {
        debug_assert!(self.unsent.is_empty(), "poll_send_ready was not ready");
        self.unsent = encode_frame(message);
    }

    /// Sends one message at the server's pace.
    pub async fn send(&mut self, message: &[u8]) -> Result<(), GrpcStatus> {
        poll_fn(|cx| self.poll_send_ready(cx)).await?;
        self.start_send(message);
        poll_fn(|cx| self.poll_send_ready(cx)).await
    }

    /// Says that no more messages are sent.
    pub fn close_send(&mut self) -> Result<(), GrpcStatus> {
        self.sending.send_data(Bytes::new(), true).map_err(GrpcStatus::from)
    }

    /// Waits for the next message; `None` when the server ended the call with status OK.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, GrpcStatus>>> {
        loop {
            match &mut self.receiving {
                Receiving::Head(response) => {
                    let body = match ready!(response.poll_response(cx, &mut self.head)) {
                        Ok(body) => body,
                        Err(error) => {
                            self.receiving = Receiving::Ended(error.into());
                            continue;
                        }
                    };
                    self.receiving = match self.refusal() {
                        Some(status) => Receiving::Ended(status),
                        None => Receiving::Body(body),
                    };
                }
                Receiving::Body(body) => match self.decoder.next_message() {
                    Ok(Some(message)) => return Poll::Ready(Some(Ok(message))),
                    Err(error) => {
                        self.sending.cancel();
                        let status = GrpcStatus::new(GrpcCode::ResourceExhausted, error.to_string());
                        self.receiving = Receiving::Ended(status);
                    }
                    Ok(None) => match ready!(body.poll_data(cx)) {
                        Some(Ok(data)) => {
                            body.release(data.len());
                            self.decoder.push(&data);
                        }
                        Some(Err(error)) => self.receiving = Receiving::Ended(error.into()),
                        None => self.begin_trailers(),
                    },
                },
                Receiving::Trailers(body) => {
                    let status = match ready!(body.poll_trailers(cx, &mut self.head)) {
                        Ok(true) => GrpcStatus::from_trailers(&self.head),
                        Ok(false) => None,
                        Err(error) => Some(error.into()),
                    };
                    let missing = || GrpcStatus::new(GrpcCode::Unknown, "the call ended without a status");
                    self.receiving = Receiving::Ended(status.unwrap_or_else(missing));
                }
                Receiving::Ended(status) if status.code == GrpcCode::Ok => return Poll::Ready(None),
                Receiving::Ended(status) => return Poll::Ready(Some(Err(status.clone()))),
            }
        }
    }

    fn begin_trailers(&mut self) {
        let cut = GrpcStatus::new(GrpcCode::Internal, "the call ended within a message");
        let within = self.decoder.is_within_message();
        let before = std::mem::replace(&mut self.receiving, Receiving::Ended(cut));
        if let Receiving::Body(body) = before
            && !within
        {
            self.receiving = Receiving::Trailers(body);
        }
    }

    /// The status of a response that is not the beginning of messages: an error in the head itself.
    fn refusal(&self) -> Option<GrpcStatus> {
        if let Some(status) = GrpcStatus::from_trailers(&self.head) {
            return Some(status);
        }
        let http = self.head.status().unwrap_or_default();
        if http != 200 {
            return Some(GrpcStatus::from_http(http));
        }
        let is_grpc = |value: &[u8]| value.starts_with(b"application/grpc");
        if self.head.get_known(KnownHeader::ContentType).is_some_and(is_grpc) {
            return None;
        }
        Some(GrpcStatus::new(GrpcCode::Unknown, "the response is not gRPC"))
    }

    /// Waits for the next message; `None` when the server ended the call with status OK.
    pub async fn recv(&mut self) -> Option<Result<Bytes, GrpcStatus>> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// Ends the call at once.
    pub fn cancel(&mut self) {
        self.sending.cancel();
    }
}
