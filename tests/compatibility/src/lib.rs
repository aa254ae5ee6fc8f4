//! How much of Envoy's configuration `dhow-proxy` takes: corpora run against the programs, and a ledger of every field;
//! it must not know how the programs work inside, only what they say.

pub mod corpus;
pub mod ledger;
mod validate;

pub use validate::{Validator, Verdict};
