//! `envoy.filters.network.local_ratelimit`: closes connections for which there is no token in the bucket.
//!
//! Counted in `local_rate_limit.<stat_prefix>.rate_limited`. Filters with the same `share_key` have one bucket.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use dhow_base::{ConfigError, ConfigWarning, FieldPath, ResponseFlag};
use dhow_proto::Message as _;
use dhow_proto::envoy::extensions::filters::network::local_ratelimit::v3::LocalRateLimit as Message;
use dhow_proto::envoy::r#type::v3::TokenBucket as BucketMessage;
use dhow_proto::google::protobuf::Any;
use dhow_proxy_api::{ConnectionInfo, ReadFilter, ReadFilterFactory, ReadVerdict};
use dhow_runtime_config::{Current, RuntimeFlag};
use dhow_stats::Store;

use super::NetworkFilterDescriptor;
use crate::local_ratelimit::{BucketSize, FILL_TIMER, TokenBucket, read_bucket};

pub(super) const DESCRIPTOR: NetworkFilterDescriptor = NetworkFilterDescriptor {
    type_name: "envoy.extensions.filters.network.local_ratelimit.v3.LocalRateLimit",
    configure,
};

dhow_stats::stat_group! {
    /// `local_rate_limit.<stat_prefix>.*`.
    struct LimitStats {
        counters { rate_limited }
    }
}

/// A bucket, and the clock that it counts by.
#[derive(Debug)]
struct Bucket {
    tokens: TokenBucket,
    start: Instant,
}

#[derive(Debug)]
struct Limit {
    bucket: Arc<Bucket>,
    enabled: Option<RuntimeFlag>,
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
    let Message { stat_prefix, token_bucket, runtime_enabled, share_key } =
        dhow_proto::any::unpack(config).map_err(|error| error.under(path))?;
    let path = path.field("token_bucket");
    let message = token_bucket.ok_or_else(|| ConfigError::new(path.clone(), "value is required"))?;
    let size = read_bucket(message, &path, FILL_TIMER)?;
    Ok(Arc::new(Factory(Arc::new(Limit {
        bucket: shared_bucket(share_key, message, size),
        enabled: runtime_enabled.as_ref().map(RuntimeFlag::from),
        stats: store.scope(&format!("local_rate_limit.{stat_prefix}.")).group(),
    }))))
}

/// The bucket of a key, as long as somebody has it; a new one without a key, or with another size than those that have it.
fn shared_bucket(key: String, message: BucketMessage, size: BucketSize) -> Arc<Bucket> {
    type Shared = Mutex<HashMap<(String, Vec<u8>), Weak<Bucket>>>;
    static SHARED: LazyLock<Shared> = LazyLock::new(Mutex::default);
    let bucket = Arc::new(Bucket { tokens: TokenBucket::new(size), start: Instant::now() });
    if key.is_empty() {
        return bucket;
    }
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    shared.retain(|_, bucket| bucket.strong_count() > 0);
    let place = shared.entry((key, message.encode_to_vec())).or_insert_with(|| Arc::downgrade(&bucket));
    place.upgrade().unwrap_or(bucket)
}

impl ReadFilterFactory for Factory {
    fn create(&self) -> Box<dyn ReadFilter> {
        Box::new(Filter(self.0.clone()))
    }
}

struct Filter(Arc<Limit>);

impl ReadFilter for Filter {
    fn on_new_connection(&mut self, connection: &Rc<ConnectionInfo>) -> ReadVerdict {
        let limit = &*self.0;
        if limit.enabled.as_ref().is_some_and(|enabled| !enabled.value(&Current)) {
            return ReadVerdict::Continue;
        }
        if limit.bucket.tokens.take(1, limit.bucket.start.elapsed()) {
            return ReadVerdict::Continue;
        }
        limit.stats.rate_limited().inc();
        // The flag is Envoy's, though nothing was retried.
        let record = connection.record_mut();
        let mut record = record.borrow_mut();
        record.flags.insert(ResponseFlag::UpstreamRetryLimitExceeded);
        record.local_close_reason = Some("local_ratelimit_close_over_limit".into());
        ReadVerdict::Close(Duration::ZERO)
    }
}
