//! Looking for expected bytes in what a host sent.

use memchr::memmem;

/// Whether `received` holds all `blocks` in their order, with anything between them.
pub(crate) fn find_in_order(blocks: &[Vec<u8>], received: &[u8]) -> bool {
    let mut rest = received;
    blocks.iter().all(|block| match memmem::find(rest, block) {
        Some(at) => {
            rest = &rest[at + block.len()..];
            true
        }
        None => false,
    })
}

#[cfg(test)]
mod tests {
    use super::find_in_order;

    #[test]
    fn blocks_are_found_in_order_and_do_not_overlap() {
        let blocks = |list: &[&str]| list.iter().map(|block| block.as_bytes().to_vec()).collect::<Vec<_>>();
        assert!(find_in_order(&blocks(&["ab", "d"]), b"xabcd"));
        assert!(!find_in_order(&blocks(&["d", "ab"]), b"xabcd"));
        assert!(!find_in_order(&blocks(&["ab", "bc"]), b"abc"));
        assert!(!find_in_order(&blocks(&["ab"]), b"a"));
        assert!(find_in_order(&[], b""));
    }
}
