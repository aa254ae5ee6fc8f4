//! Values that change how requests are treated while the process runs: Envoy's layered runtime. It must not know where layers are
//! read from, nor which feature reads a key.
//!
//! A [`Snapshot`] merges [`Layer`]s and never changes; the process [publishes](publish) a new one when a layer does. Code on the request
//! path asks [`Current`], or a field of configuration that carries a key ([`RuntimeFraction`], [`RuntimeFlag`], ...), which takes any
//! [`RuntimeValues`] so that pure code can be tested with values of its own.

mod current;
mod fraction;
mod layer;
mod settings;
mod snapshot;
#[cfg(test)]
mod tests;
mod value;

pub use current::{Current, publish, with_current};
pub use fraction::{Fraction, RuntimeFraction};
pub use layer::Layer;
pub use settings::{RuntimeFlag, RuntimeNumber, RuntimePercent, RuntimeUint32};
pub use snapshot::{NoRuntime, RuntimeValues, Snapshot};
pub use value::RuntimeValue;
