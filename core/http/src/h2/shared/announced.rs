//! What the peer announces.

use super::{Core, Key, Side};
use crate::h2::frame::MAX_WINDOW;

impl Core {
    pub(in crate::h2) fn set_peer_table_size(&mut self, size: u32) {
        self.encoder.set_max(size as usize);
    }

    pub(in crate::h2) fn set_peer_max_payload(&mut self, bytes: u32) {
        self.peer_max_payload = bytes as usize;
    }

    pub(in crate::h2) fn set_peer_max_streams(&mut self, streams: u32) {
        self.peer_max_streams = streams as usize;
        if self.side == Side::Client {
            self.open_waiting();
        }
    }

    /// Moves the windows of all streams; `None` when one becomes larger than there may be.
    pub(in crate::h2) fn set_peer_window(&mut self, bytes: u32) -> Option<()> {
        if i64::from(bytes) > MAX_WINDOW {
            return None;
        }
        let more = i64::from(bytes) - self.peer_window;
        self.peer_window = bytes.into();
        let keys: Vec<Key> = self.ids.values().copied().collect();
        for key in keys {
            let stream = self.stream_mut(key);
            stream.send_window += more;
            if stream.send_window > MAX_WINDOW {
                return None;
            }
            if more > 0 {
                stream.wake_sender();
                self.send_queued(key);
            }
        }
        Some(())
    }
}
