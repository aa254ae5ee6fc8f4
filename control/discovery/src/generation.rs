//! What the ADS server asks of whoever turns configuration into resources.

use std::collections::BTreeSet;
use std::sync::Arc;

use dhow_xds::Resource;
use dhow_xds::messages::Node;
use tokio::sync::watch;

/// The source of resources. A snapshot is whatever `resources` answers between two changes of the number in `changes`.
pub trait Generation: Send + Sync + 'static {
    /// A proxy as generation sees it: what of its node decides which resources it gets.
    type View: Send + Sync + 'static;

    /// Reads the node that a stream introduced itself with. An error refuses the stream with `InvalidArgument`.
    fn view(&self, node: &Node) -> Result<Arc<Self::View>, String>;

    /// A number that grows with each published snapshot.
    fn changes(&self) -> watch::Receiver<u64>;

    /// The resources of a type for a proxy, from the newest snapshot: all that the proxy should have when `names` is
    /// `None`, else those of the names that exist. Called again for every push, so equal inputs should give shared
    /// results. An unknown type has none.
    fn resources(
        &self,
        view: &Self::View,
        type_url: &str,
        names: Option<&BTreeSet<String>>,
    ) -> Arc<[Resource]>;
}
