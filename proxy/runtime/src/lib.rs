//! Worker threads: one current-thread event loop each, with the buffers, random numbers and timers that its connections
//! share. It must not know listeners, clusters or protocols.

mod buffer;
mod timer;
mod worker;
mod workers;

pub use buffer::{BUFFER_SIZE, BufferPool, ReadBuffer};
pub use timer::DeadlineTimer;
pub use worker::Worker;
pub use workers::Workers;
