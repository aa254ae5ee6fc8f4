//! `HealthCheck` validated.
use dhow_base::{ConfigError, FieldPath};
use dhow_matching::HeaderMatcher;
use dhow_proto::envoy::extensions::filters::http::health_check::v3::HealthCheck;
use dhow_proto::google::protobuf::Any;

use super::cache::AnswerCache;

/// Which requests are checks, and how they are answered.
#[derive(Debug)]
pub(super) struct Settings {
    /// What a check looks like.
    pub(super) headers: Box<[HeaderMatcher]>,
    /// Checks are passed on, as far as the cache does not answer them.
    pub(super) passes_through: bool,
    pub(super) cache: Option<AnswerCache>,
    /// Clusters, and the percentage of their hosts that must be usable. Of no use when checks are passed on, as in Envoy.
    pub(super) clusters: Box<[(Box<str>, u64)]>,
}

impl Settings {
    /// Reads the message.
    pub(super) fn read(config: &Any, path: &FieldPath) -> Result<Self, ConfigError> {
        let HealthCheck { pass_through_mode, cache_time, cluster_min_healthy_percentages, headers } =
            dhow_proto::any::unpack(config).map_err(|error| error.under(path))?;
        let Some(passes_through) = pass_through_mode else {
            return Err(ConfigError::new(path.field("pass_through_mode"), "value is required"));
        };
        let cache_time = cache_time.map(|time| dhow_proto::whole_millis(&time));
        let cache = cache_time.and_then(AnswerCache::new);
        if !passes_through.value && cache.is_some() {
            let reason = "cache_time_ms must not be set when path_through_mode is disabled";
            return Err(ConfigError::new(path.field("cache_time"), reason));
        }
        let mut clusters: Vec<(Box<str>, u64)> = cluster_min_healthy_percentages
            .into_iter()
            .map(|(name, percent)| (name.into(), percent.value as u64))
            .collect();
        clusters.sort();
        Ok(Self {
            headers: HeaderMatcher::compile_all(&headers, &path.field("headers"))?,
            passes_through: passes_through.value,
            cache,
            clusters: clusters.into(),
        })
    }
}
