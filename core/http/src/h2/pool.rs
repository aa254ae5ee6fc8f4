//! Memory that the connections of a thread pass on to one another, so that one that is idle holds none and one that wakes up
//! allocates none.

use std::cell::RefCell;

use bytes::BytesMut;

/// Pieces of each kind that are kept.
const KEPT: usize = 64;
/// Memory of more bytes than this is not kept.
const MOST_BYTES: usize = 64 * 1024;

#[derive(Default)]
struct Pool {
    reads: Vec<BytesMut>,
    writes: Vec<Vec<u8>>,
}

thread_local! {
    static POOL: RefCell<Pool> = RefCell::default();
}

/// Room to read into.
pub(super) fn take_read() -> BytesMut {
    POOL.with_borrow_mut(|pool| pool.reads.pop()).unwrap_or_default()
}

/// Keeps the room of bytes that were all taken.
pub(super) fn give_read(mut read: BytesMut) {
    read.clear();
    if read.capacity() > 0 && read.capacity() <= MOST_BYTES {
        POOL.with_borrow_mut(|pool| keep(&mut pool.reads, read));
    }
}

/// Room to write into.
pub(super) fn take_write() -> Vec<u8> {
    POOL.with_borrow_mut(|pool| pool.writes.pop()).unwrap_or_default()
}

/// Keeps the room of bytes that were all written.
pub(super) fn give_write(mut write: Vec<u8>) {
    write.clear();
    if write.capacity() > 0 && write.capacity() <= MOST_BYTES {
        POOL.with_borrow_mut(|pool| keep(&mut pool.writes, write));
    }
}

fn keep<T>(kept: &mut Vec<T>, more: T) {
    if kept.len() < KEPT {
        kept.push(more);
    }
}
