//! What a peer may do that costs it nothing, and numbers of what passed.

use super::frame::{FrameHead, flag, kind};

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
    /// `max_outbound_control_frames`: answers to frames (PING, SETTINGS, resets) that may wait for the peer to read them.
    pub control_frames: u32,
    /// `max_outbound_frames`: frames of any kind that may wait for the peer to read them.
    pub frames: u32,
}

impl FrameLimits {
    /// Envoy's defaults.
    pub const DEFAULT: Self = Self {
        consecutive_empty: 1,
        priorities_per_stream: 100,
        window_updates_per_data: 10,
        control_frames: 1000,
        frames: 10_000,
    };
}

impl Default for FrameLimits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What a peer did that ends its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// The first frame was not SETTINGS.
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
    /// Too many frames that have to be answered, and no answer is read.
    #[error("Too many control frames in the outbound queue.")]
    ControlFrames,
    /// More frames than may wait, and they are not read.
    #[error("Too many frames in the outbound queue.")]
    OutboundFrames,
    /// Metadata that cannot be read, or more of it than a stream may have.
    #[error("The user callback function failed")]
    Metadata,
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
    /// Messages of the peer that were malformed.
    pub malformed: u32,
    /// Metadata without any entry.
    pub empty_metadata: u32,
}

impl std::ops::AddAssign for FrameCounts {
    fn add_assign(&mut self, more: Self) {
        self.resets_received += more.resets_received;
        self.resets_sent += more.resets_sent;
        self.goaways_sent += more.goaways_sent;
        self.refused += more.refused;
        self.trailers += more.trailers;
        self.malformed += more.malformed;
        self.empty_metadata += more.empty_metadata;
    }
}

/// Measures the peer's frames by what was done for it.
#[derive(Debug)]
pub(super) struct Watch {
    limits: FrameLimits,
    settings_seen: bool,
    /// Frames without payload since the last with one.
    empty: u32,
    priorities: u64,
    window_updates: u64,
    /// Streams that were opened by either side.
    pub(super) opened: u64,
    pub(super) data_sent: u64,
}

impl Watch {
    pub(super) fn new(limits: FrameLimits) -> Self {
        Self {
            limits,
            settings_seen: false,
            empty: 0,
            priorities: 0,
            window_updates: 0,
            opened: 0,
            data_sent: 0,
        }
    }

    /// Looks at a frame that came; `opens` when it opens a stream.
    pub(super) fn received(&mut self, head: &FrameHead, payload: &[u8], opens: bool) -> Option<Violation> {
        if !std::mem::replace(&mut self.settings_seen, true) && head.kind != kind::SETTINGS {
            return Some(Violation::FirstFrame);
        }
        match head.kind {
            kind::DATA | kind::HEADERS | kind::CONTINUATION => {
                self.opened += u64::from(opens);
                let ends = head.kind != kind::CONTINUATION && head.has(flag::END_STREAM);
                let padded = head.kind != kind::CONTINUATION && head.has(flag::PADDED);
                let room =
                    if padded { 1 + payload.first().map_or(0, |padding| usize::from(*padding)) } else { 0 };
                let empty = head.length <= room;
                self.empty = if empty && !ends { self.empty + 1 } else { 0 };
                (self.empty > self.limits.consecutive_empty).then_some(Violation::EmptyFrames)
            }
            kind::PRIORITY => {
                self.priorities += 1;
                let most = u64::from(self.limits.priorities_per_stream).saturating_mul(1 + self.opened);
                (self.priorities > most).then_some(Violation::Priorities)
            }
            kind::WINDOW_UPDATE => {
                self.window_updates += 1;
                let for_data = u64::from(self.limits.window_updates_per_data).saturating_mul(self.data_sent);
                let most = (self.opened.saturating_add(for_data)).saturating_mul(2).saturating_add(5);
                (self.window_updates > most).then_some(Violation::WindowUpdates)
            }
            _ => None,
        }
    }

    /// Whether a frame has come.
    pub(super) fn has_begun(&self) -> bool {
        self.settings_seen
    }

    /// Judges how many frames wait for the peer, and how many of them are answers.
    pub(super) fn waiting(&self, frames: u32, answers: u32) -> Option<Violation> {
        if frames > self.limits.frames {
            return Some(Violation::OutboundFrames);
        }
        (answers > self.limits.control_frames).then_some(Violation::ControlFrames)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(frames: &[(u8, u8, &[u8], bool)]) -> Option<Violation> {
        fed(&mut Watch::new(FrameLimits::default()), frames)
    }

    fn fed(watch: &mut Watch, frames: &[(u8, u8, &[u8], bool)]) -> Option<Violation> {
        let settings: (u8, u8, &[u8], bool) = (kind::SETTINGS, 0, b"", false);
        let all = std::iter::once(&settings).chain(frames);
        all.fold(None, |found, (kind, flags, payload, opens)| {
            let head = FrameHead { length: payload.len(), kind: *kind, flags: *flags, stream: 1 };
            found.or(watch.received(&head, payload, *opens))
        })
    }

    const OPEN: (u8, u8, &[u8], bool) = (kind::HEADERS, 4, b"x", true);
    const EMPTY: (u8, u8, &[u8], bool) = (kind::DATA, 0, b"", false);
    const UPDATE: (u8, u8, &[u8], bool) = (kind::WINDOW_UPDATE, 0, &[0, 0, 0, 1], false);
    const PRIORITY: (u8, u8, &[u8], bool) = (kind::PRIORITY, 0, &[0; 5], false);

    #[test]
    fn the_first_frame_is_settings() {
        let mut watch = Watch::new(FrameLimits::default());
        let head = FrameHead { length: 8, kind: kind::PING, flags: 0, stream: 0 };
        assert_eq!(watch.received(&head, &[0; 8], false), Some(Violation::FirstFrame));
        assert!(watch.has_begun());
        assert_eq!(watch.received(&head, &[0; 8], false), None);
    }

    #[test]
    fn empty_frames_in_a_row_are_counted() {
        let full: (u8, u8, &[u8], bool) = (kind::DATA, 0, b"x", false);
        let last: (u8, u8, &[u8], bool) = (kind::DATA, flag::END_STREAM, b"", false);
        let padded: (u8, u8, &[u8], bool) = (kind::DATA, flag::PADDED, &[1, 0], false);
        assert_eq!(watch(&[OPEN, EMPTY, full, EMPTY, last]), None);
        assert_eq!(watch(&[OPEN, EMPTY, EMPTY]), Some(Violation::EmptyFrames));
        assert_eq!(watch(&[OPEN, padded, EMPTY]), Some(Violation::EmptyFrames));
    }

    #[test]
    fn priorities_and_window_updates_are_measured_by_streams_and_data() {
        assert_eq!(watch(&[PRIORITY; 100]), None);
        assert_eq!(watch(&[PRIORITY; 101]), Some(Violation::Priorities));
        assert_eq!(watch(&[&[OPEN][..], &[PRIORITY; 200]].concat()), None);
        assert_eq!(watch(&[UPDATE; 5]), None);
        assert_eq!(watch(&[UPDATE; 6]), Some(Violation::WindowUpdates));
        let mut one = Watch::new(FrameLimits::default());
        one.data_sent = 1;
        assert_eq!(fed(&mut one, &[&[OPEN, OPEN][..], &[UPDATE; 29]].concat()), None);
        assert_eq!(fed(&mut one, &[UPDATE]), Some(Violation::WindowUpdates));
    }

    #[test]
    fn answers_that_nobody_reads_are_limited() {
        let watch = Watch::new(FrameLimits::default());
        assert_eq!(watch.waiting(1000, 1000), None);
        assert_eq!(watch.waiting(1001, 1001), Some(Violation::ControlFrames));
        assert_eq!(watch.waiting(10_000, 0), None);
        assert_eq!(watch.waiting(10_001, 0), Some(Violation::OutboundFrames));
    }
}
