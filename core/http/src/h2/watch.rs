//! Looks at the frames of a connection as they pass, without decoding them: limits on frames that cost the peer nothing,
//! and numbers that `h2` keeps to itself.

use std::ops::ControlFlow;

use super::meters::StreamMeters;
use crate::{ByteDirection, ByteMeter};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const PADDED: u8 = 8;

/// The last stream of a GOAWAY that announces the end without naming the last stream.
const LAST_OF_ALL: u32 = 0x7fff_ffff;

const HEADER_LENGTH: usize = 9;
const PREFACE_LENGTH: usize = 24;

/// How many frames without effect a peer may send, after `envoy.config.core.v3.Http2ProtocolOptions`. The defaults are
/// Envoy's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameLimits {
    /// `max_consecutive_inbound_frames_with_empty_payload`.
    pub consecutive_empty: u32,
    /// `max_inbound_priority_frames_per_stream`.
    pub priorities_per_stream: u32,
    /// `max_inbound_window_update_frames_per_data_frame_sent`.
    pub window_updates_per_data: u32,
}

impl FrameLimits {
    /// Envoy's defaults.
    pub const DEFAULT: Self =
        Self { consecutive_empty: 1, priorities_per_stream: 100, window_updates_per_data: 10 };
}

impl Default for FrameLimits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What a peer did that ends its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A client's first frame was not SETTINGS.
    #[error("the first frame is not SETTINGS")]
    FirstFrame,
    /// Too many frames without payload in a row.
    #[error("Too many consecutive frames with an empty payload")]
    EmptyFrames,
    /// Too many PRIORITY frames.
    #[error("Too many PRIORITY frames")]
    Priorities,
    /// Too many WINDOW_UPDATE frames.
    #[error("Too many WINDOW_UPDATE frames")]
    WindowUpdates,
}

/// What passed since it was last asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameCounts {
    /// RST_STREAM frames received.
    pub resets_received: u32,
    /// RST_STREAM frames sent.
    pub resets_sent: u32,
    /// GOAWAY frames sent that name the last stream, without an error.
    pub goaways_sent: u32,
    /// Streams that the peer opened and this side refused (REFUSED_STREAM).
    pub refused: u32,
    /// Trailers that a server received.
    pub trailers: u32,
}

impl std::ops::AddAssign for FrameCounts {
    fn add_assign(&mut self, more: Self) {
        self.resets_received += more.resets_received;
        self.resets_sent += more.resets_sent;
        self.goaways_sent += more.goaways_sent;
        self.refused += more.refused;
        self.trailers += more.trailers;
    }
}

/// Which side of the connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Server,
}

/// The frames of both directions.
#[derive(Debug)]
pub(super) struct Watch {
    side: Side,
    limits: FrameLimits,
    inbound: Scanner,
    outbound: Scanner,
    counts: FrameCounts,
    /// Streams that were reset with PROTOCOL_ERROR; on a client those whose body is at fault are left out.
    malformed: Vec<u32>,
    settings_seen: bool,
    /// Frames without payload since the last with one.
    empty: u32,
    priorities: u64,
    window_updates: u64,
    /// Streams that were opened by either side.
    opened: u64,
    last_opened: u32,
    /// The stream of the last DATA frame that was received.
    last_data: u32,
    data_sent: u64,
    violation: Option<Violation>,
    meters: StreamMeters,
}

impl Watch {
    pub(super) fn new(side: Side, limits: FrameLimits, meters: StreamMeters) -> Self {
        let (inbound, outbound) = match side {
            Side::Server => (PREFACE_LENGTH, 0),
            Side::Client => (0, PREFACE_LENGTH),
        };
        Self {
            side,
            limits,
            inbound: Scanner::behind(inbound),
            outbound: Scanner::behind(outbound),
            counts: FrameCounts::default(),
            malformed: Vec::new(),
            settings_seen: false,
            empty: 0,
            priorities: 0,
            window_updates: 0,
            opened: 0,
            last_opened: 0,
            last_data: 0,
            data_sent: 0,
            violation: None,
            meters,
        }
    }

    /// Looks at received bytes; gives how many of them may be passed on.
    pub(super) fn received(&mut self, bytes: &[u8]) -> usize {
        let mut inbound = std::mem::take(&mut self.inbound);
        let passed = inbound.scan(bytes, |frame| match self.on_received(frame) {
            None => ControlFlow::Continue(()),
            violation => {
                self.violation = violation;
                ControlFlow::Break(())
            }
        });
        self.inbound = inbound;
        passed
    }

    fn on_received(&mut self, frame: Frame) -> Option<Violation> {
        if frame.stream != 0 && ByteMeter::is_wanted() {
            if self.side == Side::Server && frame.kind == HEADERS && frame.stream > self.last_opened {
                self.meters.opened_by_peer(frame.stream);
            }
            self.meters.count(&frame, ByteDirection::Received);
        }
        let first = !std::mem::replace(&mut self.settings_seen, true);
        if first && frame.kind != SETTINGS && self.side == Side::Server {
            return Some(Violation::FirstFrame);
        }
        match frame.kind {
            DATA | HEADERS | CONTINUATION => {
                if frame.kind == HEADERS && self.side == Side::Server {
                    // A second head on a stream is its trailers.
                    self.counts.trailers += u32::from(!self.on_opened(frame.stream));
                }
                if frame.kind == DATA {
                    self.last_data = frame.stream;
                }
                let ends = frame.kind != CONTINUATION && frame.flags & END_STREAM != 0;
                self.empty = if frame.empty && !ends { self.empty + 1 } else { 0 };
                (self.empty > self.limits.consecutive_empty).then_some(Violation::EmptyFrames)
            }
            PRIORITY => {
                self.priorities += 1;
                let most = u64::from(self.limits.priorities_per_stream).saturating_mul(1 + self.opened);
                (self.priorities > most).then_some(Violation::Priorities)
            }
            WINDOW_UPDATE => {
                self.window_updates += 1;
                let for_data = u64::from(self.limits.window_updates_per_data).saturating_mul(self.data_sent);
                let most = (self.opened.saturating_add(for_data)).saturating_mul(2).saturating_add(5);
                (self.window_updates > most).then_some(Violation::WindowUpdates)
            }
            // One for a stream that was never opened ends the connection.
            RST_STREAM if (1..=self.last_opened).contains(&frame.stream) => {
                self.counts.resets_received += 1;
                None
            }
            _ => None,
        }
    }

    /// Looks at bytes that are about to be sent.
    pub(super) fn sent(&mut self, bytes: &[u8]) {
        let mut outbound = std::mem::take(&mut self.outbound);
        outbound.scan(bytes, |frame| {
            if frame.stream != 0 && ByteMeter::is_wanted() {
                self.meters.count(&frame, ByteDirection::Sent);
            }
            match frame.kind {
                DATA => self.data_sent += 1,
                HEADERS if self.side == Side::Client => _ = self.on_opened(frame.stream),
                RST_STREAM => {
                    self.counts.resets_sent += 1;
                    let refused =
                        self.side == Side::Server && frame.word == u32::from(h2::Reason::REFUSED_STREAM);
                    self.counts.refused += u32::from(refused);
                    let in_body = self.side == Side::Client && frame.stream == self.last_data;
                    if frame.word == u32::from(h2::Reason::PROTOCOL_ERROR) && !in_body {
                        self.malformed.push(frame.stream);
                    }
                }
                // One that only announces another says nothing about streams yet; one with an error code is the codec's own.
                GOAWAY if frame.word != LAST_OF_ALL && frame.code == 0 => self.counts.goaways_sent += 1,
                _ => {}
            }
            ControlFlow::Continue(())
        });
        self.outbound = outbound;
    }

    /// Notes a head on a stream; tells whether it opened the stream.
    fn on_opened(&mut self, stream: u32) -> bool {
        let opens = stream > self.last_opened;
        if opens {
            self.last_opened = stream;
            self.opened += 1;
        }
        opens
    }

    /// What the peer did, after which nothing more is read from it.
    pub(super) fn violation(&self) -> Option<Violation> {
        self.violation
    }

    /// What was counted since the last time.
    pub(super) fn take_counts(&mut self) -> FrameCounts {
        std::mem::take(&mut self.counts)
    }

    /// Streams that were reset because of malformed messages since the last time.
    pub(super) fn take_malformed(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.malformed)
    }
}

/// Whether frames of this type carry a head or trailers.
pub(super) fn is_of_head(kind: u8) -> bool {
    matches!(kind, HEADERS | CONTINUATION)
}

/// What is looked at of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: u8,
    flags: u8,
    pub(super) stream: u32,
    /// Bytes of the frame, its head included.
    pub(super) length: usize,
    /// Nothing in it, padding aside.
    empty: bool,
    /// Error code of RST_STREAM, last stream of GOAWAY.
    word: u32,
    /// Error code of GOAWAY.
    code: u32,
}

/// Finds frames in bytes that come in pieces of any size.
#[derive(Debug, Default)]
struct Scanner {
    head: [u8; HEADER_LENGTH + 8],
    have: usize,
    skip: usize,
}

impl Scanner {
    /// For a direction that starts with bytes that are no frames.
    fn behind(preface: usize) -> Self {
        Self { skip: preface, ..Self::default() }
    }

    /// Bytes of the frame that are looked at, as far as is known.
    fn needed(&self) -> usize {
        if self.have < HEADER_LENGTH {
            return HEADER_LENGTH;
        }
        let looked_at = match self.head[3] {
            RST_STREAM => 4,
            GOAWAY => 8,
            DATA | HEADERS if self.head[4] & PADDED != 0 => 1,
            _ => 0,
        };
        HEADER_LENGTH + self.length().min(looked_at)
    }

    fn length(&self) -> usize {
        let [a, b, c, ..] = self.head;
        usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c)
    }

    /// Gives the number of bytes in front of the frame at which it was stopped, or that of all.
    fn scan(&mut self, bytes: &[u8], mut on_frame: impl FnMut(Frame) -> ControlFlow<()>) -> usize {
        let (mut at, mut frame_start) = (0, 0);
        loop {
            let skipped = self.skip.min(bytes.len() - at);
            self.skip -= skipped;
            at += skipped;
            if self.skip > 0 || at == bytes.len() {
                return at;
            }
            if self.have == 0 {
                frame_start = at;
            }
            loop {
                let needed = self.needed();
                if self.have == needed {
                    break;
                }
                let taken = (needed - self.have).min(bytes.len() - at);
                self.head[self.have..self.have + taken].copy_from_slice(&bytes[at..at + taken]);
                self.have += taken;
                at += taken;
                if self.have < needed {
                    return at;
                }
            }
            let frame = self.frame();
            self.skip = self.length() + HEADER_LENGTH - self.have;
            self.have = 0;
            if on_frame(frame).is_break() {
                return frame_start;
            }
        }
    }

    fn frame(&self) -> Frame {
        let word = |at: usize| u32::from_be_bytes([0, 1, 2, 3].map(|byte| self.head[at + byte]));
        let beyond = self.have - HEADER_LENGTH;
        let (kind, flags) = (self.head[3], self.head[4]);
        let padding = match kind {
            DATA | HEADERS if beyond == 1 => 1 + usize::from(self.head[HEADER_LENGTH]),
            _ => 0,
        };
        Frame {
            kind,
            flags,
            stream: word(5) & 0x7fff_ffff,
            length: HEADER_LENGTH + self.length(),
            empty: self.length() <= padding,
            word: if beyond >= 4 { word(HEADER_LENGTH) } else { 0 },
            code: if beyond == 8 { word(HEADER_LENGTH + 4) } else { 0 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ByteKind;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u32).to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    fn server(frames: &[Vec<u8>]) -> (Watch, usize) {
        let mut watch = Watch::new(Side::Server, FrameLimits::default(), StreamMeters::default());
        let mut bytes = vec![b'P'; PREFACE_LENGTH];
        bytes.extend_from_slice(&frame(SETTINGS, 0, 0, b""));
        bytes.extend(frames.concat());
        let passed = watch.received(&bytes);
        (watch, bytes.len() - passed)
    }

    #[test]
    fn frames_are_found_however_they_are_cut() {
        let frames = [
            frame(SETTINGS, 0, 0, &[0; 12]),
            frame(HEADERS, 4, 1, &[7; 300]),
            frame(DATA, PADDED, 1, &[2, 0, 0]),
            frame(RST_STREAM, 0, 1, &[0, 0, 0, 1]),
            frame(DATA, END_STREAM, 3, b""),
        ];
        let bytes = frames.concat();
        let found = |step: usize| {
            let (mut scanner, mut found) = (Scanner::default(), Vec::new());
            for part in bytes.chunks(step) {
                let passed = scanner.scan(part, |frame| {
                    found.push(frame);
                    ControlFlow::Continue(())
                });
                assert_eq!(passed, part.len());
            }
            found
        };
        let whole = found(bytes.len());
        assert_eq!(whole.iter().map(|frame| frame.kind).collect::<Vec<_>>(), [4, 1, 0, 3, 0]);
        assert_eq!(
            whole.iter().map(|frame| frame.empty).collect::<Vec<_>>(),
            [false, false, true, false, true]
        );
        assert_eq!((whole[3].word, whole[4].stream), (1, 3));
        for step in 1..40 {
            assert_eq!(found(step), whole, "pieces of {step}");
        }
    }

    #[test]
    fn bytes_of_a_stream_are_counted_until_nobody_asks() {
        ByteMeter::want();
        let meters = StreamMeters::default();
        let mut watch = Watch::new(Side::Server, FrameLimits::default(), meters.clone());
        watch.received(&[b'P'; PREFACE_LENGTH]);
        let open =
            |stream| [frame(HEADERS, 0, stream, b"12345"), frame(CONTINUATION, 4, stream, b"1")].concat();
        watch.received(&[frame(SETTINGS, 0, 0, b""), open(1), frame(DATA, 0, 1, b"abc"), open(3)].concat());
        let first = meters.take(1).unwrap();
        watch.sent(&[frame(HEADERS, 4, 1, b"1"), frame(DATA, END_STREAM, 1, b"12")].concat());
        let counted = [ByteDirection::Received, ByteDirection::Sent]
            .map(|direction| [ByteKind::Wire, ByteKind::Header].map(|kind| first.get(kind, direction)));
        assert_eq!(counted, [[36, 24], [21, 10]]);
        assert!(meters.take(5).is_none());
        assert_eq!(meters.len(), 1, "the third stream was never asked for");
        drop(first);
        watch.received(&open(7));
        assert_eq!(meters.len(), 1);
    }

    #[test]
    fn trailers_refusals_and_resets_are_counted() {
        let frames = [
            frame(HEADERS, 4, 1, b"x"),
            frame(HEADERS, 4 | END_STREAM, 1, b"x"),
            frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]),
            frame(RST_STREAM, 0, 3, &[0, 0, 0, 8]),
        ];
        let (mut watch, _) = server(&frames);
        watch.sent(&frame(RST_STREAM, 0, 1, &[0, 0, 0, 7]));
        let expected = FrameCounts {
            resets_received: 1,
            resets_sent: 1,
            refused: 1,
            trailers: 1,
            ..FrameCounts::default()
        };
        assert_eq!(watch.take_counts(), expected);
    }

    #[test]
    fn the_first_frame_is_settings() {
        let mut watch = Watch::new(Side::Server, FrameLimits::default(), StreamMeters::default());
        assert_eq!(watch.received(&[b'P'; PREFACE_LENGTH]), PREFACE_LENGTH);
        assert_eq!(watch.received(&frame(HEADERS, 4, 1, b"x")), 0);
        assert_eq!(watch.violation(), Some(Violation::FirstFrame));
    }

    #[test]
    fn empty_frames_in_a_row_are_counted() {
        let empty = || frame(DATA, 0, 1, b"");
        let head = || frame(HEADERS, 4, 1, b"x");
        let (watch, held) =
            server(&[head(), empty(), frame(DATA, 0, 1, b"x"), empty(), frame(DATA, 1, 1, b"")]);
        assert_eq!((watch.violation(), held), (None, 0));
        let (watch, held) = server(&[head(), empty(), empty()]);
        assert_eq!((watch.violation(), held), (Some(Violation::EmptyFrames), HEADER_LENGTH));
        let (watch, _) = server(&[head(), frame(DATA, PADDED, 1, &[1, 0]), empty()]);
        assert_eq!(watch.violation(), Some(Violation::EmptyFrames));
    }

    #[test]
    fn priorities_and_window_updates_are_measured_by_streams_and_data() {
        let head = |stream| frame(HEADERS, 4, stream, b"x");
        let priority = || frame(PRIORITY, 0, 1, &[0; 5]);
        assert_eq!(server(&vec![priority(); 100]).0.violation(), None);
        assert_eq!(server(&vec![priority(); 101]).0.violation(), Some(Violation::Priorities));
        assert_eq!(server(&[vec![head(1)], vec![priority(); 200]].concat()).0.violation(), None);

        let update = || frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]);
        assert_eq!(server(&vec![update(); 6]).0.violation(), Some(Violation::WindowUpdates));
        let (mut watch, _) = server(&[vec![head(1), head(1)], vec![update(); 7]].concat());
        assert_eq!(watch.violation(), None);
        watch.sent(&frame(DATA, 0, 1, b"x"));
        assert_eq!(watch.received(&vec![update(); 20].concat()), 20 * 13);
        assert_eq!(watch.received(&update()), 0);
        assert_eq!(watch.violation(), Some(Violation::WindowUpdates));
    }

    #[test]
    fn a_response_with_a_malformed_body_is_no_malformed_head() {
        let mut watch = Watch::new(Side::Client, FrameLimits::default(), StreamMeters::default());
        watch.received(
            &[frame(SETTINGS, 0, 0, b""), frame(HEADERS, 4, 1, b"x"), frame(DATA, 1, 1, b"x")].concat(),
        );
        watch.sent(&[b'P'; PREFACE_LENGTH]);
        watch
            .sent(&[frame(RST_STREAM, 0, 1, &[0, 0, 0, 1]), frame(RST_STREAM, 0, 3, &[0, 0, 0, 1])].concat());
        assert_eq!(watch.take_malformed(), vec![3]);
    }

    #[test]
    fn resets_and_farewells_are_counted() {
        let (mut watch, _) = server(&[frame(HEADERS, 5, 1, b"x"), frame(RST_STREAM, 0, 1, &[0, 0, 0, 8])]);
        watch.sent(&[frame(RST_STREAM, 0, 3, &[0, 0, 0, 1]), frame(GOAWAY, 0, 0, &[0; 8])].concat());
        watch.sent(&frame(GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 1]));
        watch.sent(&frame(GOAWAY, 0, 0, &[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0]));
        let counts =
            FrameCounts { resets_received: 1, resets_sent: 1, goaways_sent: 1, ..FrameCounts::default() };
        assert_eq!((watch.take_malformed(), watch.take_malformed()), (vec![3], vec![]));
        assert_eq!((watch.take_counts(), watch.take_counts()), (counts, FrameCounts::default()));
    }
}
