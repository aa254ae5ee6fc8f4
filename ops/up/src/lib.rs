//! A mesh on one machine, from ordinary Kubernetes manifests: plans, starts, watches and stops its processes; it must not know what the proxy or
//! the control plane are made of, only how they are started and asked whether they are ready.

mod address;
mod apply;
mod attach;
mod bootstrap;
mod entry;
mod error;
mod fields;
mod image;
mod manifest;
mod mesh;
mod object;
mod plan;
mod probe;
mod process;
mod restart;
mod screen;
mod state;
mod sweep;
mod table;
mod unit;
mod up;
mod workload;

pub use apply::{Applied, Change, Outcome, Rules};
pub use attach::{attach, exec};
pub use error::UpError;
pub use image::{ImageMap, ImageRule};
pub use manifest::{Rejection, Validate};
pub use state::{MeshState, ProxyState, running};
pub use sweep::sweep_main;
pub use up::{Options, up};
