//! Read buffers, borrowed from a pool of the worker while a connection has bytes in flight.

use std::cell::RefCell;
use std::rc::Rc;

/// Size of a pooled buffer in bytes: one read of a usual head, and the size of a TLS record.
pub const BUFFER_SIZE: usize = 16 * 1024;

/// Buffers kept for reuse; more than this are given back to the allocator.
const POOLED_BUFFERS: usize = 256;

/// The worker's pool of equally sized, initialised buffers.
#[derive(Debug, Default)]
pub struct BufferPool {
    reads: RefCell<Vec<Vec<u8>>>,
    writes: RefCell<Vec<Vec<u8>>>,
}

impl BufferPool {
    fn take_read(&self) -> Vec<u8> {
        self.reads.borrow_mut().pop().unwrap_or_else(|| vec![0; BUFFER_SIZE])
    }

    fn give_read(&self, storage: Vec<u8>) {
        let mut reads = self.reads.borrow_mut();
        if storage.len() == BUFFER_SIZE && reads.len() < POOLED_BUFFERS {
            reads.push(storage);
        }
    }

    /// An empty vector with room for a message head.
    pub fn take_write(&self) -> Vec<u8> {
        self.writes.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(2048))
    }

    /// Gives a vector back for reuse. Its content is dropped; one that never held memory or grew large is let go.
    pub fn give_write(&self, mut storage: Vec<u8>) {
        let mut writes = self.writes.borrow_mut();
        if (1..=BUFFER_SIZE).contains(&storage.capacity()) && writes.len() < POOLED_BUFFERS {
            storage.clear();
            writes.push(storage);
        }
    }
}

/// Bytes read from a peer and not consumed yet. Holds memory only while it is not empty or being filled.
#[derive(Debug)]
pub struct ReadBuffer {
    pool: Rc<BufferPool>,
    storage: Vec<u8>,
    start: usize,
    end: usize,
}

impl ReadBuffer {
    /// An empty buffer without storage.
    pub fn new(pool: Rc<BufferPool>) -> Self {
        Self { pool, storage: Vec::new(), start: 0, end: 0 }
    }

    /// The bytes that were read and not consumed.
    pub fn filled(&self) -> &[u8] {
        &self.storage[self.start..self.end]
    }

    /// Number of bytes read and not consumed.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether all bytes are consumed.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Drops `count` bytes from the front.
    ///
    /// # Panics
    /// When more is consumed than was filled.
    pub fn consume(&mut self, count: usize) {
        assert!(count <= self.len(), "consumed more than was read");
        self.start += count;
    }

    /// Gives the storage back to the worker when nothing is left in it.
    pub fn release_if_empty(&mut self) {
        if self.is_empty() && !self.storage.is_empty() {
            self.pool.give_read(std::mem::take(&mut self.storage));
            (self.start, self.end) = (0, 0);
        }
    }

    /// Room to read into, at least one byte, taking storage from the worker when there is none. Unconsumed bytes stay:
    /// they are moved to the front when the end is reached, and the storage doubles when it is full. Whoever reads a
    /// head bounds its size by the limit of the head.
    pub fn room(&mut self) -> &mut [u8] {
        if self.storage.is_empty() {
            self.storage = self.pool.take_read();
            (self.start, self.end) = (0, 0);
        } else if self.is_empty() {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.storage.len() {
            if self.start > 0 {
                self.storage.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            } else {
                let doubled = self.storage.len() * 2;
                self.storage.resize(doubled, 0);
            }
        }
        &mut self.storage[self.end..]
    }

    /// Declares the first `count` bytes of [`room`](Self::room) as read.
    ///
    /// # Panics
    /// When `count` is larger than the room.
    pub fn advance(&mut self, count: usize) {
        assert!(count <= self.storage.len() - self.end, "advanced beyond the room");
        self.end += count;
    }

    /// Puts bytes that were read elsewhere (by protocol inspection) behind what is there.
    pub fn extend(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = self.room();
            let count = room.len().min(bytes.len());
            room[..count].copy_from_slice(&bytes[..count]);
            self.advance(count);
            bytes = &bytes[count..];
        }
    }
}

impl Drop for ReadBuffer {
    fn drop(&mut self) {
        if !self.storage.is_empty() {
            self.pool.give_read(std::mem::take(&mut self.storage));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(buffer: &mut ReadBuffer, bytes: &[u8]) {
        buffer.room()[..bytes.len()].copy_from_slice(bytes);
        buffer.advance(bytes.len());
    }

    #[test]
    fn holds_storage_only_while_in_use() {
        let pool = Rc::new(BufferPool::default());
        let mut buffer = ReadBuffer::new(pool.clone());
        fill(&mut buffer, b"hello");
        assert_eq!(buffer.filled(), b"hello");
        buffer.consume(2);
        buffer.release_if_empty();
        assert_eq!(buffer.filled(), b"llo");
        buffer.consume(3);
        buffer.release_if_empty();
        assert_eq!(pool.reads.borrow().len(), 1);
        fill(&mut buffer, b"again");
        assert_eq!(pool.reads.borrow().len(), 0);
        drop(buffer);
        assert_eq!(pool.reads.borrow().len(), 1);
    }

    #[test]
    fn moves_to_the_front_and_grows_without_losing_bytes() {
        let mut buffer = ReadBuffer::new(Rc::new(BufferPool::default()));
        let data: Vec<u8> = (0..BUFFER_SIZE).map(|i| i as u8).collect();
        fill(&mut buffer, &data);
        buffer.consume(10);
        assert_eq!(buffer.room().len(), 10);
        fill(&mut buffer, &[7; 10]);
        assert_eq!(buffer.room().len(), BUFFER_SIZE);
        assert_eq!(&buffer.filled()[..BUFFER_SIZE - 10], &data[10..]);
        assert_eq!(&buffer.filled()[BUFFER_SIZE - 10..], &[7; 10]);
        buffer.extend(&data);
        assert_eq!(buffer.len(), 2 * BUFFER_SIZE);
    }
}
