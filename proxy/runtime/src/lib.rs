//! Worker threads: one current-thread event loop each, with the buffers, random numbers and timers that its connections
//! share. It must not know listeners, clusters or protocols. One module contains `unsafe` (`resident`, calls of
//! `madvise` and `malloc_trim`).

mod buffer;
pub mod clock;
mod overload;
mod resident;
mod timer;
pub mod turn;
mod worker;
mod workers;

pub use buffer::{BUFFER_SIZE, BufferPool, ReadBuffer};
pub use overload::{ConnectionPlace, LoadShedPoint, OverloadAction, OverloadState, overload};
pub use resident::{release_free_memory, release_program_pages};
pub use timer::DeadlineTimer;
pub use worker::Worker;
pub use workers::Workers;
