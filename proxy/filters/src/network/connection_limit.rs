//! `envoy.filters.network.connection_limit`: closes connections beyond a number, at once or after a delay.
//!
//! Counted in `connection_limit.<stat_prefix>.*`.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dhow_base::{ConfigError, ConfigWarning, FieldPath};
use dhow_proto::envoy::extensions::filters::network::connection_limit::v3::ConnectionLimit as Message;
use dhow_proto::google::protobuf::Any;
use dhow_proxy_api::{ConnectionInfo, ReadFilter, ReadFilterFactory, ReadVerdict};
use dhow_runtime_config::{Current, RuntimeFlag};
use dhow_stats::Store;

use super::NetworkFilterDescriptor;

pub(super) const DESCRIPTOR: NetworkFilterDescriptor = NetworkFilterDescriptor {
    type_name: "envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit",
    configure,
};

dhow_stats::stat_group! {
    /// `connection_limit.<stat_prefix>.*`.
    struct LimitStats {
        counters { limited_connections }
        gauges { active_connections }
    }
}

#[derive(Debug)]
struct Limit {
    max: u64,
    delay: Duration,
    enabled: Option<RuntimeFlag>,
    /// Connections of all workers that were let in.
    connections: AtomicU64,
    stats: LimitStats,
}

#[derive(Debug)]
struct Factory(Arc<Limit>);

fn configure(
    config: &Any,
    store: &Store,
    path: &FieldPath,
    _warnings: &mut Vec<ConfigWarning>,
) -> Result<Arc<dyn ReadFilterFactory>, ConfigError> {
    let Message { stat_prefix, max_connections, delay, runtime_enabled } =
        dhow_proto::any::unpack(config).map_err(|error| error.under(path))?;
    Ok(Arc::new(Factory(Arc::new(Limit {
        max: max_connections.map_or(0, |max| max.value),
        delay: delay.as_ref().map_or(Duration::ZERO, dhow_proto::whole_millis),
        enabled: runtime_enabled.as_ref().map(RuntimeFlag::from),
        connections: AtomicU64::new(0),
        stats: store.scope(&format!("connection_limit.{stat_prefix}.")).group(),
    }))))
}

impl ReadFilterFactory for Factory {
    fn create(&self) -> Box<dyn ReadFilter> {
        Box::new(Filter { limit: self.0.clone(), counted: false })
    }
}

struct Filter {
    limit: Arc<Limit>,
    counted: bool,
}

impl ReadFilter for Filter {
    fn on_new_connection(&mut self, _connection: &Rc<ConnectionInfo>) -> ReadVerdict {
        let limit = &*self.limit;
        if limit.enabled.as_ref().is_some_and(|enabled| !enabled.value(&Current)) {
            return ReadVerdict::Continue;
        }
        let one_more = |count: u64| (count < limit.max).then_some(count + 1);
        if limit.connections.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_err() {
            limit.stats.limited_connections().inc();
            return ReadVerdict::Close(limit.delay);
        }
        self.counted = true;
        limit.stats.active_connections().inc();
        ReadVerdict::Continue
    }
}

impl Drop for Filter {
    fn drop(&mut self) {
        if self.counted {
            self.limit.connections.fetch_sub(1, Ordering::Relaxed);
            self.limit.stats.active_connections().dec();
        }
    }
}
