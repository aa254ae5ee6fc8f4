//! METADATA frames, an extension of Envoy's: maps of names and values that travel beside a message, on its stream
//! (`Http2ProtocolOptions.allow_metadata`).
//!
//! Flow control has no part in them. What came waits with its stream, at its place between the data, until it is known where the
//! stream is passed on to.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::rc::{Rc, Weak};

use super::frame::{FrameHead, flag, kind};
use super::hpack::{Decoder, append_literal};
use super::limits::Violation;
use super::shared::{Core, Key};
use crate::ByteDirection;

/// Names and values, each name once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata(Vec<(Vec<u8>, Vec<u8>)>);

impl Metadata {
    /// Of two values of a name the first one counts.
    fn add(&mut self, name: &[u8], value: &[u8]) {
        if !self.0.iter().any(|(known, _)| known == name) {
            self.0.push((name.to_vec(), value.to_vec()));
        }
    }
}

/// Takes the metadata of a stream to where the stream is passed on to.
pub trait MetadataSink {
    /// Takes one map; where it can go nowhere, it is lost.
    fn send(&self, map: &Metadata);
}

/// Where the metadata of a stream goes.
#[derive(Default)]
enum Target {
    /// Nobody said so yet.
    #[default]
    Unknown,
    Nowhere,
    Sink(Rc<dyn MetadataSink>),
}

/// A map that came.
#[derive(Debug)]
struct Waiting {
    map: Metadata,
    /// Pieces of data that came between the map before it and this one, and that nobody has taken.
    ahead: usize,
    /// It came behind the head of the message.
    behind_head: bool,
}

/// The metadata of a stream, from its first frame on or from when it was known where it goes.
#[derive(Default)]
pub(super) struct StreamMetadata {
    /// What came of a map whose frames have not all come.
    payload: Vec<u8>,
    /// Bytes of payload that came on the stream.
    received: usize,
    waiting: VecDeque<Waiting>,
    target: Target,
    /// Maps to send once the stream is opened.
    unsent: Vec<Metadata>,
}

impl fmt::Debug for StreamMetadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamMetadata").field("waiting", &self.waiting).finish_non_exhaustive()
    }
}

impl StreamMetadata {
    /// Whether a map waits that has a place to go to.
    pub(super) fn is_due(&self) -> bool {
        !self.waiting.is_empty() && !matches!(self.target, Target::Unknown)
    }

    /// A piece of data was taken.
    pub(super) fn on_data_taken(&mut self) {
        if let Some(next) = self.waiting.iter_mut().find(|waiting| waiting.ahead > 0) {
            next.ahead -= 1;
        }
    }

    /// The maps that are next, in front of the head of the message or behind it as well.
    fn take(&mut self, behind_head: bool) -> Option<(Rc<dyn MetadataSink>, Vec<Metadata>)> {
        let sink = match &self.target {
            Target::Unknown => return None,
            Target::Nowhere => {
                self.waiting.clear();
                return None;
            }
            Target::Sink(sink) => sink.clone(),
        };
        let mut maps = Vec::new();
        while let Some(next) = self.waiting.front()
            && next.ahead == 0
            && (behind_head || !next.behind_head)
        {
            maps.extend(self.waiting.pop_front().map(|waiting| waiting.map));
        }
        (!maps.is_empty()).then_some((sink, maps))
    }
}

/// A METADATA frame that came.
pub(super) fn on_metadata(head: &FrameHead, payload: &[u8], core: &mut Core) -> Result<(), Violation> {
    let Some(key) = core.find(head.stream) else { return Ok(()) };
    core.meter(key, head.total(), ByteDirection::Received, false);
    let most = core.settings.max_metadata;
    let stream = core.stream_mut(key);
    if stream.error.is_some() || !stream.recv_open {
        return Ok(());
    }
    let (pieces, behind_head, is_read) = (stream.data.len(), stream.head_seen, stream.is_read);
    let metadata = stream.metadata.get_or_insert_default();
    metadata.received += payload.len();
    if metadata.received > most {
        return Err(Violation::Metadata);
    }
    metadata.payload.extend_from_slice(payload);
    if head.flags != flag::END_METADATA {
        return Ok(());
    }
    let mut map = Metadata::default();
    let block = std::mem::take(&mut metadata.payload);
    // Each map has a table of its own, which begins empty.
    if Decoder::new().decode(&block, |_, name, value| map.add(name, value)).is_err() {
        return Err(Violation::Metadata);
    }
    if map.0.is_empty() {
        core.counts.empty_metadata += 1;
        return Ok(());
    }
    if is_read {
        let before: usize = metadata.waiting.iter().map(|waiting| waiting.ahead).sum();
        metadata.waiting.push_back(Waiting { map, ahead: pieces.saturating_sub(before), behind_head });
        core.stream_mut(key).wake_receiver();
    }
    Ok(())
}

/// Passes on what of a stream's metadata is next: what came in front of its head, or what is in front of the next piece of data.
pub(super) fn pass_on(core: &RefCell<Core>, key: Key, behind_head: bool) {
    let taken = {
        let mut core = core.borrow_mut();
        core.stream_mut(key).metadata.as_mut().and_then(|metadata| metadata.take(behind_head))
    };
    if let Some((sink, maps)) = taken {
        maps.iter().for_each(|map| sink.send(map));
    }
}

impl Core {
    /// Sends a map on a stream, or keeps it until the stream is opened.
    fn send_metadata(&mut self, key: Key, map: &Metadata) {
        let stream = self.stream_mut(key);
        if stream.error.is_some() || !stream.send_open {
            return;
        }
        if stream.unopened.is_some() {
            stream.metadata.get_or_insert_default().unsent.push(map.clone());
            return;
        }
        let id = stream.id;
        let mut block = Vec::new();
        for (name, value) in &map.0 {
            append_literal(name, value, &mut block);
        }
        let mut chunks = block.chunks(self.peer_max_payload()).peekable();
        while let Some(chunk) = chunks.next() {
            let end = if chunks.peek().is_none() { flag::END_METADATA } else { 0 };
            let bytes = self.out.frame(kind::METADATA, end, id, chunk);
            self.meter(key, bytes, ByteDirection::Sent, false);
        }
        self.wake_driver();
    }

    /// Sends the maps that waited for a stream to be opened.
    pub(super) fn send_unsent_metadata(&mut self, key: Key) {
        let Some(metadata) = &mut self.stream_mut(key).metadata else { return };
        for map in std::mem::take(&mut metadata.unsent) {
            self.send_metadata(key, &map);
        }
    }
}

/// A stream as a place that metadata comes from and goes to. It does not keep the stream open.
#[derive(Clone)]
pub struct MetadataPort {
    core: Weak<RefCell<Core>>,
    key: Key,
    serial: u32,
}

impl MetadataPort {
    /// `None` where the connection has no metadata.
    pub(super) fn new(core: &Rc<RefCell<Core>>, key: Key) -> Option<Self> {
        let shared = core.borrow();
        let allowed = shared.settings.allow_metadata;
        allowed.then(|| Self { core: Rc::downgrade(core), key, serial: shared.stream(key).serial })
    }

    fn stream(&self) -> Option<Rc<RefCell<Core>>> {
        let core = self.core.upgrade()?;
        let is_same = core.borrow().stream(self.key).serial == self.serial;
        is_same.then_some(core)
    }

    /// From now on the stream's metadata goes there, or nowhere; what waits goes at once.
    pub fn pass_to(&self, sink: Option<Rc<dyn MetadataSink>>) {
        let Some(core) = self.stream() else { return };
        let behind_head = {
            let mut core = core.borrow_mut();
            let stream = core.stream_mut(self.key);
            stream.metadata.get_or_insert_default().target = sink.map_or(Target::Nowhere, Target::Sink);
            stream.head_seen
        };
        pass_on(&core, self.key, behind_head);
    }
}

impl MetadataSink for MetadataPort {
    fn send(&self, map: &Metadata) {
        if let Some(core) = self.stream() {
            core.borrow_mut().send_metadata(self.key, map);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keeps the names of what it gets.
    struct Names(RefCell<Vec<String>>);

    impl MetadataSink for Names {
        fn send(&self, map: &Metadata) {
            self.0
                .borrow_mut()
                .extend(map.0.iter().map(|(name, _)| String::from_utf8_lossy(name).into_owned()));
        }
    }

    fn waiting(name: &str, ahead: usize, behind_head: bool) -> Waiting {
        let mut map = Metadata::default();
        map.add(name.as_bytes(), b"");
        Waiting { map, ahead, behind_head }
    }

    #[test]
    fn maps_go_on_at_their_place() {
        let names = Rc::new(Names(RefCell::default()));
        let mut metadata = StreamMetadata {
            waiting: [
                waiting("first", 0, false),
                waiting("head", 0, true),
                waiting("one", 1, true),
                waiting("three", 2, true),
            ]
            .into(),
            ..StreamMetadata::default()
        };
        assert!(!metadata.is_due() && metadata.take(true).is_none(), "nobody takes them yet");
        metadata.target = Target::Sink(names.clone());
        let pass = |metadata: &mut StreamMetadata, behind_head| {
            if let Some((sink, maps)) = metadata.take(behind_head) {
                maps.iter().for_each(|map| sink.send(map));
            }
            std::mem::take(&mut *names.0.borrow_mut()).join(" ")
        };
        assert_eq!(pass(&mut metadata, false), "first");
        assert_eq!(pass(&mut metadata, true), "head");
        metadata.on_data_taken();
        assert_eq!(pass(&mut metadata, true), "one");
        metadata.on_data_taken();
        assert_eq!(pass(&mut metadata, true), "");
        metadata.on_data_taken();
        assert_eq!(pass(&mut metadata, true), "three");
        assert!(!metadata.is_due());
    }

    #[test]
    fn the_first_value_of_a_name_counts() {
        let mut map = Metadata::default();
        map.add(b"a", b"1");
        map.add(b"a", b"2");
        assert_eq!(map.0, [(b"a".to_vec(), b"1".to_vec())]);
    }
}
