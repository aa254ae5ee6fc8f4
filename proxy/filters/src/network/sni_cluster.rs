//! `envoy.filters.network.sni_cluster`: the server name of the client's TLS hello is the cluster that `tcp_proxy` connects to.

use std::rc::Rc;
use std::sync::Arc;

use dhow_base::{ConfigError, ConfigWarning, FieldPath};
use dhow_proto::envoy::extensions::filters::network::sni_cluster::v3::SniCluster as Message;
use dhow_proto::google::protobuf::Any;
use dhow_proxy_api::{
    ConnectionInfo, FilterStateEntry, FilterStateValue, ReadFilter, ReadFilterFactory, ReadVerdict, Sharing,
};
use dhow_stats::Store;

use super::NetworkFilterDescriptor;

pub(super) const DESCRIPTOR: NetworkFilterDescriptor = NetworkFilterDescriptor {
    type_name: "envoy.extensions.filters.network.sni_cluster.v3.SniCluster",
    configure,
};

/// Where `tcp_proxy` looks for its cluster.
const KEY: &str = "envoy.tcp_proxy.cluster";

#[derive(Debug)]
struct Factory;

fn configure(
    config: &Any,
    _store: &Store,
    path: &FieldPath,
    _warnings: &mut Vec<ConfigWarning>,
) -> Result<Arc<dyn ReadFilterFactory>, ConfigError> {
    let Message {} = dhow_proto::any::unpack(config).map_err(|error| error.under(path))?;
    Ok(Arc::new(Factory))
}

impl ReadFilterFactory for Factory {
    fn create(&self) -> Box<dyn ReadFilter> {
        Box::new(Filter)
    }
}

struct Filter;

impl ReadFilter for Filter {
    fn on_new_connection(&mut self, connection: &Rc<ConnectionInfo>) -> ReadVerdict {
        if let Some(name) = connection.requested_server_name.as_deref().filter(|name| !name.is_empty()) {
            connection.record_mut().borrow_mut().filter_state.insert(FilterStateEntry {
                key: KEY.into(),
                value: FilterStateValue::Name(name.into()),
                read_only: false,
                sharing: Sharing::None,
                hashable: false,
            });
        }
        ReadVerdict::Continue
    }
}
