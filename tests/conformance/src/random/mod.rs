//! Random differential testing: a seed makes a configuration and requests, both proxies get them, and everything that was recorded
//! is compared.
//!
//! A case is a scenario like any other, only made by dice: it runs on the machinery of scenarios, and a difference can be written
//! down as the beginning of one. The same seed makes the same case.

mod area;
mod case;
mod compare;
mod dice;
mod driver;
mod generate;
mod verdicts;
mod written;

pub use area::Area;
pub use driver::{Options, run};
