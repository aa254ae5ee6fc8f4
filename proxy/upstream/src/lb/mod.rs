//! The choice of a host, as pure functions of host sets, random numbers and a worker's cursors.

mod bounded;
mod consistent;
mod edf;
mod foresight;
mod host_sets;
mod policy;
mod previous_priorities;
mod priority_load;
mod selection;
mod subset;
#[cfg(test)]
mod tests;
mod zone;

pub use consistent::{HashFunction, HashTable, TableConfig};
pub use host_sets::{HostSet, HostSetOptions, Hosts, LocalityGroup, LocalityHosts, PrioritySet};
pub use policy::{LbConfig, LbPolicy, LocalityMode, OverrideStatuses, SlowStart};
pub use previous_priorities::PreviousPriorities;
pub(crate) use priority_load::panic_threshold;
pub use priority_load::{PriorityHealth, PriorityLoad};
pub use selection::{Cursors, Outcome, Pick, SubsetEvent, ZoneEvent};
pub use subset::{SelectorFallback, SubsetConfig, SubsetFallback, SubsetSelector, Subsets};
pub use zone::{LocalCluster, ZoneAware, ZoneObstacle};
