//! Encoded messages found again inside of the encoded message that they were part of.

use bytes::Bytes;
use memchr::memmem;

/// Parts that were not found, after which no more are looked for.
const MISSES: u32 = 16;

/// Turns encoded parts of an encoded message into views of its memory. A bootstrap holds thousands of clusters, and a listener
/// the routes of a whole mesh: what is kept of them for `/config_dump` need not be kept twice.
#[derive(Debug)]
pub struct Excerpts {
    whole: Bytes,
    /// Where the last part ended.
    from: usize,
    misses: u32,
}

impl Excerpts {
    /// Of this message.
    pub fn of(whole: Bytes) -> Self {
        Self { whole, from: 0, misses: 0 }
    }

    /// The bytes of `part`, which are those of the message when they occur behind the part that was found last. They may not: a
    /// map can be encoded in more than one order.
    pub fn share(&mut self, part: Vec<u8>) -> Bytes {
        if self.misses < MISSES {
            if let Some(at) = memmem::find(&self.whole[self.from..], &part) {
                let start = self.from + at;
                self.from = start + part.len();
                return self.whole.slice(start..self.from);
            }
            self.misses += 1;
        }
        part.into()
    }
}

#[cfg(test)]
mod tests {
    use super::{Excerpts, MISSES};

    #[test]
    fn parts_in_order_are_views_and_others_are_copies() {
        let whole = bytes::Bytes::from_static(b"..first..second..");
        let inside = |part: &[u8]| whole.as_ptr_range().contains(&part.as_ptr());
        let mut excerpts = Excerpts::of(whole.clone());
        let first = excerpts.share(b"first".to_vec());
        let second = excerpts.share(b"second".to_vec());
        assert!(inside(&first) && inside(&second));
        assert_eq!((&*first, &*second), (&b"first"[..], &b"second"[..]));
        let again = excerpts.share(b"first".to_vec());
        assert!(!inside(&again));
        assert_eq!(again, first);
    }

    #[test]
    fn too_many_misses_end_the_search() {
        let mut excerpts = Excerpts::of(bytes::Bytes::from_static(b"part"));
        for _ in 0..MISSES {
            assert_eq!(excerpts.share(b"other".to_vec()), &b"other"[..]);
        }
        let part = excerpts.share(b"part".to_vec());
        assert!(!excerpts.whole.as_ptr_range().contains(&part.as_ptr()));
    }
}
