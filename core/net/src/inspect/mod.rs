//! What the first bytes of a connection are, told without taking them: a TLS hello.

mod hello;

pub use hello::{Hello, HelloFault, inspect_hello};
