//! `dhow up` as a user runs it: the program itself, with meshes on loopback addresses of their own.

#![allow(clippy::unwrap_used, reason = "what goes wrong in a test shall end it")]

mod bookinfo;
mod crash;
mod refused;
mod running;
