//! Access logs: which streams are logged, in which format, and the files that it goes to. It must not know how streams are
//! served.

mod config;
mod file;
mod filter;

pub use config::{AccessLog, lower};
pub use file::{LogFile, LogWriter};
pub use filter::{LogFilter, Logged};
