//! DATA frames.

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Driver, Fault, broken, is_idle};
use crate::ByteDirection;
use crate::h2::frame::{FrameHead, HEAD_LENGTH, code, flag, unpadded};
use crate::h2::shared::{Core, Farewell};

/// Data of more bytes than this is not copied out of what was read.
const COPY_LIMIT: usize = 4 * 1024;

impl<T: AsyncRead + AsyncWrite + Unpin> Driver<T> {
    pub(super) fn on_data(&mut self, head: &FrameHead, core: &mut Core) -> Result<(), Fault> {
        if head.stream == 0 {
            return Err(broken("data without a stream"));
        }
        let Some(length) = unpadded(head, &self.read[HEAD_LENGTH..head.total()]).map(<[u8]>::len) else {
            return Err(broken("more padding than data"));
        };
        let from = HEAD_LENGTH + usize::from(head.has(flag::PADDED));
        let end = head.has(flag::END_STREAM);
        core.recv_window -= head.length as i64;
        if core.recv_window < 0 {
            return Err(Fault::Connection(code::FLOW_CONTROL_ERROR, "more data than the window admits"));
        }
        let key = core.find(head.stream);
        let Some(key) = key.filter(|key| core.stream(*key).error.is_none()) else {
            self.read.advance(head.total());
            core.release_connection(head.length);
            if is_idle(head.stream, core) {
                return Err(broken("data on a stream that was not opened"));
            }
            let expected = key.is_some() || core.was_reset(head.stream) || core.farewell != Farewell::None;
            return if expected { Ok(()) } else { Err(Fault::Stream(head.stream, code::STREAM_CLOSED)) };
        };
        core.meter(key, head.total(), ByteDirection::Received, false);
        let stream = core.stream_mut(key);
        let fault = if !stream.recv_open {
            Some(Fault::Connection(code::STREAM_CLOSED, "data behind the end of the stream"))
        } else if !stream.head_seen {
            Some(broken("data in front of the head"))
        } else if stream.recv_window < head.length as i64 {
            Some(Fault::Stream(head.stream, code::FLOW_CONTROL_ERROR))
        } else {
            stream.recv_window -= head.length as i64;
            let fits = match &mut stream.remaining {
                Some(remaining) => match remaining.checked_sub(length as u64) {
                    Some(left) => {
                        *remaining = left;
                        !end || left == 0
                    }
                    None => false,
                },
                None => true,
            };
            (!fits).then_some(Fault::Stream(head.stream, code::PROTOCOL_ERROR))
        };
        if let Some(fault) = fault {
            self.read.advance(head.total());
            core.release_connection(head.length);
            return Err(fault);
        }
        let is_read = stream.is_read;
        let data = if length == 0 || !is_read {
            self.read.advance(head.total());
            Bytes::new()
        } else if length > COPY_LIMIT {
            self.read.advance(from);
            let data = self.read.split_to(length).freeze();
            self.read.advance(head.total() - from - length);
            data
        } else {
            let data = Bytes::copy_from_slice(&self.read[from..from + length]);
            self.read.advance(head.total());
            data
        };
        // Nobody sees padding; of a stream that nobody reads nobody sees anything.
        let unseen = if is_read { head.length - length } else { head.length };
        let stream = core.stream_mut(key);
        if !data.is_empty() {
            stream.data.push_back(data);
        }
        stream.held += head.length;
        if end {
            stream.recv_open = false;
        }
        stream.wake_receiver();
        if unseen > 0 {
            core.release(key, unseen);
        }
        if end {
            core.settle(key);
        }
        Ok(())
    }
}
