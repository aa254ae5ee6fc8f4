//! Placeholder until its code is here.
fn main() {}
