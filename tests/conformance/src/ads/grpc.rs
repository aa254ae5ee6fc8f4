//! Length-prefixed messages on an HTTP/2 stream.

use bytes::{BufMut, Bytes, BytesMut};
use dhow_proto::Message;
use h2::{Reason, RecvStream, SendStream};
use http::HeaderMap;

/// One bidirectional stream.
pub(super) struct Channel {
    receive: RecvStream,
    send: SendStream<Bytes>,
    buffer: BytesMut,
}

impl Channel {
    pub(super) fn new(receive: RecvStream, send: SendStream<Bytes>) -> Self {
        Self { receive, send, buffer: BytesMut::new() }
    }

    /// The next message; `None` when the other side has ended or says nothing that can be understood.
    pub(super) async fn next<M: Message + Default>(&mut self) -> Option<M> {
        loop {
            if let Some(message) = self.take() {
                return M::decode(message).ok();
            }
            let data = self.receive.data().await?.ok()?;
            // The window was granted for bytes just received, so giving it back cannot overflow it.
            let _ = self.receive.flow_control().release_capacity(data.len());
            self.buffer.extend_from_slice(&data);
        }
    }

    /// Takes a whole message out of the buffer: one byte of flags, four of length, the message.
    fn take(&mut self) -> Option<Bytes> {
        let length = self.buffer.get(1..5)?;
        let length = u32::from_be_bytes([length[0], length[1], length[2], length[3]]) as usize;
        if self.buffer.len() < 5 + length {
            return None;
        }
        let mut frame = self.buffer.split_to(5 + length);
        Some(frame.split_off(5).freeze())
    }

    /// Sends a message.
    pub(super) async fn send(&mut self, message: &impl Message) -> Result<(), h2::Error> {
        let bytes = message.encode_to_vec();
        let mut frame = BytesMut::with_capacity(bytes.len() + 5);
        frame.put_u8(0);
        frame.put_u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        frame.extend_from_slice(&bytes);
        let mut frame = frame.freeze();
        while !frame.is_empty() {
            self.send.reserve_capacity(frame.len());
            let granted = std::future::poll_fn(|cx| self.send.poll_capacity(cx)).await;
            let granted = granted.unwrap_or(Err(Reason::STREAM_CLOSED.into()))?;
            self.send.send_data(frame.split_to(granted.min(frame.len())), false)?;
        }
        Ok(())
    }

    /// Ends the stream with `UNIMPLEMENTED`.
    pub(super) async fn refuse(mut self) -> Result<(), h2::Error> {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", http::HeaderValue::from_static("12"));
        self.send.send_trailers(trailers)
    }
}
