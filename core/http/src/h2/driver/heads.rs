//! HEADERS and CONTINUATION frames: requests, responses, trailers.

use std::ops::Range;

use bytes::Buf;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Driver, Fault, bad_size, broken, is_idle, silent};
use crate::h2::Offence;
use crate::h2::frame::{FrameHead, HEAD_LENGTH, code, flag, kind, unpadded, word};
use crate::h2::head::{ABUSE, HeadFault, HeadKind, HeadReader, ReadHead};
use crate::h2::shared::{Core, Farewell, Key, Side};
use crate::{ByteDirection, ByteMeter, HeaderMap, KnownHeader};

/// Frames after the first one in which a head may come.
const MAX_CONTINUATIONS: usize = 128;

/// A head whose frames have not all come.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) stream: u32,
    end_stream: bool,
    bytes: Vec<u8>,
    frames: usize,
    wire: usize,
    /// The frame names its own stream as the one that it depends on.
    depends_on_itself: bool,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Driver<T> {
    /// Takes a frame of a head or of trailers.
    pub(super) fn on_block(&mut self, head: &FrameHead, core: &mut Core) -> Result<(), Fault> {
        let payload = &self.read[HEAD_LENGTH..head.total()];
        if head.kind == kind::CONTINUATION {
            let Some(block) = &mut self.block else {
                return Err(broken("the head that this continues has ended"));
            };
            block.frames += 1;
            block.wire += head.total();
            let most = ABUSE * max_head(core);
            if block.frames > MAX_CONTINUATIONS || block.bytes.len() + payload.len() > most {
                return Err(Fault::Connection(code::ENHANCE_YOUR_CALM, "too_many_continuations"));
            }
            block.bytes.extend_from_slice(payload);
            self.read.advance(head.total());
            if !head.has(flag::END_HEADERS) {
                return Ok(());
            }
            let Some(block) = self.block.take() else { return Ok(()) };
            return self.on_head(&block, None, core);
        }
        if head.stream == 0 {
            return Err(silent("a head without a stream"));
        }
        let Some(mut fragment) = unpadded(head, payload) else {
            return Err(broken("more padding than head"));
        };
        let mut depends_on_itself = false;
        if head.has(flag::PRIORITY) {
            let Some((priority, rest)) = fragment.split_at_checked(5) else {
                return Err(bad_size("the priority of a head is cut off"));
            };
            depends_on_itself = word(priority).is_some_and(|on| on << 1 >> 1 == head.stream);
            fragment = rest;
        }
        let mut block = Block {
            stream: head.stream,
            end_stream: head.has(flag::END_STREAM),
            bytes: Vec::new(),
            frames: 0,
            wire: head.total(),
            depends_on_itself,
        };
        if !head.has(flag::END_HEADERS) {
            block.bytes.extend_from_slice(fragment);
            self.block = Some(block);
            self.read.advance(head.total());
            return Ok(());
        }
        // All of it is here, and is read where it is.
        let from = head.total() - fragment.len();
        let padding = match head.has(flag::PADDED) {
            true => usize::from(self.read[HEAD_LENGTH]),
            false => 0,
        };
        let range = from - padding..head.total() - padding;
        let outcome = self.on_head(&block, Some(range), core);
        self.read.advance(head.total());
        outcome
    }

    /// Reads a head whose frames have all come: the block's bytes, or those at a place of what was read.
    fn on_head(&mut self, block: &Block, at: Option<Range<usize>>, core: &mut Core) -> Result<(), Fault> {
        let bytes = at.map_or(&block.bytes[..], |range| &self.read[range]);
        let id = block.stream;
        let key = core.find(id);
        let opens = core.side == Side::Server && key.is_none() && id > core.last_peer;
        let head_kind = match key {
            Some(key) if core.stream(key).head_seen => HeadKind::Trailers,
            _ if core.side == Side::Server => HeadKind::Request,
            _ => HeadKind::Response,
        };
        let max = max_head(core);
        let mut reader = HeadReader::new(HeaderMap::reused(), head_kind, max);
        let decoded = self.decoder.decode(bytes, |known, name, value| reader.field(known, name, value));
        if decoded.is_err() {
            return Err(Fault::Connection(code::COMPRESSION_ERROR, "failed HPACK decoding"));
        }
        let read = reader.finish();
        if read.fault == Some(HeadFault::Abusive) {
            return Err(Fault::Connection(code::ENHANCE_YOUR_CALM, "header_list_too_large"));
        }
        match key {
            None if opens => self.on_request(block, read, core),
            None => {
                read.head.recycle();
                // One that went back is ignored, as by Envoy.
                let never_opened = id.is_multiple_of(2) || is_idle(id, core);
                if never_opened { Err(silent("a head for a stream that was not opened")) } else { Ok(()) }
            }
            Some(key) => self.on_further_head(block, key, head_kind, read, core),
        }
    }

    /// A request that opens a stream.
    fn on_request(&mut self, block: &Block, read: ReadHead, core: &mut Core) -> Result<(), Fault> {
        let id = block.stream;
        if id.is_multiple_of(2) {
            return Err(silent("a client's stream has an even number"));
        }
        core.last_peer = id;
        if matches!(core.farewell, Farewell::Said | Farewell::Abrupt) {
            read.head.recycle();
            return Ok(());
        }
        if core.open() >= core.settings.max_concurrent_streams as usize {
            read.head.recycle();
            return Err(Fault::Stream(id, code::REFUSED_STREAM));
        }
        if block.depends_on_itself {
            read.head.recycle();
            return Err(silent("a stream depends on itself"));
        }
        let extended = read.head.contains_known(KnownHeader::Protocol);
        let body_missing = block.end_stream && read.length.is_some_and(|length| length > 0);
        match read.fault {
            Some(HeadFault::TooLarge) => {
                read.head.recycle();
                return self.refuse_size(id, block.end_stream, core);
            }
            None if !body_missing && (!extended || core.settings.allow_extended_connect) => {}
            fault => {
                read.head.recycle();
                let offence = match fault {
                    Some(HeadFault::Malformed(offence)) => offence,
                    _ if extended => Offence::Field,
                    _ => Offence::Message,
                };
                return Err(Fault::Malformed(id, offence));
            }
        }
        let key = core.insert(id);
        core.count_open(key);
        let meter = ByteMeter::is_wanted().then(Default::default);
        let stream = core.stream_mut(key);
        stream.meter = meter;
        stream.head_seen = true;
        stream.crumbs = read.crumbs;
        stream.remaining = read.length;
        stream.recv_open = !block.end_stream;
        stream.head = Some(read.head);
        // The share of who accepts it.
        stream.handles = 1;
        core.meter(key, block.wire, ByteDirection::Received, true);
        core.push_accepted(key);
        Ok(())
    }

    /// Answers a head that is too large for anybody to look at.
    fn refuse_size(&mut self, id: u32, end_stream: bool, core: &mut Core) -> Result<(), Fault> {
        let key = core.insert(id);
        core.count_open(key);
        let stream = core.stream_mut(key);
        stream.head_seen = true;
        stream.is_read = false;
        stream.recv_open = !end_stream;
        core.add_handle(key);
        let mut head = HeaderMap::new();
        head.set_status(431);
        let sent = core.send_response(key, &head, true);
        core.drop_handle(key);
        debug_assert!(sent.is_ok(), "a status alone can be sent");
        Ok(())
    }

    /// A response, or trailers.
    fn on_further_head(
        &mut self,
        block: &Block,
        key: Key,
        head_kind: HeadKind,
        read: ReadHead,
        core: &mut Core,
    ) -> Result<(), Fault> {
        let id = block.stream;
        if core.stream(key).error.is_some() {
            read.head.recycle();
            return Ok(());
        }
        core.meter(key, block.wire, ByteDirection::Received, true);
        let stream = core.stream_mut(key);
        if !stream.recv_open {
            return Err(silent("a head where the stream has ended"));
        }
        if head_kind == HeadKind::Trailers && core.side == Side::Server {
            core.counts.trailers += 1;
        }
        let stream = core.stream_mut(key);
        let of_head = match read.fault {
            Some(HeadFault::Malformed(offence)) => Some(offence),
            Some(HeadFault::TooLarge | HeadFault::Abusive) => Some(Offence::Field),
            None => None,
        };
        if let Some(offence) = of_head {
            return Err(Fault::Malformed(id, offence));
        }
        if head_kind == HeadKind::Trailers {
            if !block.end_stream || stream.remaining.is_some_and(|remaining| remaining > 0) {
                return Err(Fault::Malformed(id, Offence::Message));
            }
            if stream.is_read {
                stream.trailers = Some(read.head);
            }
            stream.recv_open = false;
            stream.wake_receiver();
            core.settle(key);
            return Ok(());
        }
        let status = read.head.status().unwrap_or_default();
        if (100..200).contains(&status) {
            if block.end_stream {
                return Err(Fault::Malformed(id, Offence::Message));
            }
            stream.interim.push_back(read.head);
            stream.wake_receiver();
            return Ok(());
        }
        let bodiless = stream.to_head || matches!(status, 204 | 304);
        if !stream.to_head {
            stream.remaining = read.length;
        }
        if block.end_stream && !bodiless && read.length.is_some_and(|length| length > 0) {
            return Err(Fault::Malformed(id, Offence::Message));
        }
        stream.head_seen = true;
        stream.recv_open = !block.end_stream;
        stream.head = Some(read.head);
        stream.wake_receiver();
        if block.end_stream {
            core.settle(key);
        }
        Ok(())
    }
}

/// Bytes up to which heads are read.
fn max_head(core: &Core) -> usize {
    match core.side {
        Side::Server => core.settings.max_decoded_head(),
        Side::Client => core.settings.max_header_bytes as usize,
    }
}
