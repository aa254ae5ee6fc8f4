//! Turns a directory of YAML into a live set of valid typed objects; it must not know what the objects mean to each other, or Envoy.

mod directory;
mod file;
mod problem;
mod watch;

pub use directory::Directory;
pub use problem::{Problem, Severity};
pub use watch::{Watcher, watch};

#[cfg(test)]
mod tests;
