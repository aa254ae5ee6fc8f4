//! Header maps that a thread keeps for reuse: the codecs, which fill them, and those who serve streams, who let go of them, share the
//! same.

use std::cell::RefCell;

use crate::HeaderMap;

/// Maps that are kept.
const KEPT: usize = 256;
/// A map that grew beyond this many bytes is not kept.
const MOST_BYTES: usize = 16 * 1024;

thread_local! {
    static HEADS: RefCell<Vec<HeaderMap>> = const { RefCell::new(Vec::new()) };
}

impl HeaderMap {
    /// An empty map, with the memory of one that was [recycled](Self::recycle) on this thread where there is one.
    pub fn reused() -> Self {
        HEADS.with_borrow_mut(Vec::pop).unwrap_or_default()
    }

    /// Keeps the map's memory for another.
    pub fn recycle(mut self) {
        if (1..=MOST_BYTES).contains(&self.capacity_bytes()) {
            self.clear();
            HEADS.with_borrow_mut(|heads| {
                if heads.len() < KEPT {
                    heads.push(self);
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_recycled_comes_back_empty() {
        let mut head = HeaderMap::new();
        head.append(b"x", b"y");
        let bytes = head.capacity_bytes();
        head.recycle();
        HeaderMap::new().recycle();
        let again = HeaderMap::reused();
        assert!(again.is_empty());
        assert_eq!(again.capacity_bytes(), bytes);
        assert_eq!(HeaderMap::reused().capacity_bytes(), 0);
        let mut large = HeaderMap::new();
        large.append(b"x", &[b'y'; 2 * MOST_BYTES]);
        large.recycle();
        assert_eq!(HeaderMap::reused().capacity_bytes(), 0);
    }
}
