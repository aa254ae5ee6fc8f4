//! Counts the messages in a gRPC body without keeping it.

/// Where a body stands among its frames: a flag, four bytes of length, a message.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct MessageCounter {
    /// Bytes of the current frame's head that were seen.
    head: u8,
    length: u32,
    /// Bytes of the current message that are still to come.
    rest: u32,
    messages: u64,
}

impl MessageCounter {
    /// Looks at the next bytes; gives the number of messages that began in them.
    pub(super) fn inspect(&mut self, mut data: &[u8]) -> u64 {
        let before = self.messages;
        while !data.is_empty() {
            if self.rest > 0 {
                let skipped = data.len().min(self.rest as usize);
                self.rest -= skipped as u32;
                data = &data[skipped..];
                continue;
            }
            if self.head > 0 {
                self.length = self.length << 8 | u32::from(data[0]);
            } else {
                self.messages += 1;
            }
            self.head += 1;
            data = &data[1..];
            if self.head == 5 {
                self.rest = self.length;
                self.head = 0;
                self.length = 0;
            }
        }
        self.messages - before
    }

    /// Messages so far.
    pub(super) fn messages(self) -> u64 {
        self.messages
    }
}
