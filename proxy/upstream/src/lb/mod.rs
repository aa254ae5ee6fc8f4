//! The choice of a host, as pure functions of host sets, random numbers and a worker's cursors.

mod consistent;
mod edf;
mod host_sets;
mod priority_load;
mod selection;
#[cfg(test)]
mod tests;

pub use consistent::{HashFunction, HashTable, TableConfig};
pub use host_sets::{HostSet, HostSetOptions, Hosts, LocalityGroup, LocalityHosts, PrioritySet};
pub use priority_load::PriorityLoad;
pub use selection::{Cursors, LbConfig, LbPolicy};
