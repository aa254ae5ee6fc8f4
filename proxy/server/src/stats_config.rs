//! `stats_config`, `stats_flush_*` and `stats_sinks` of the bootstrap.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dhow_base::{ConfigError, FieldPath};
use dhow_matching::{StatsMatcher, StringMatcher};
use dhow_proto::envoy::config::metrics::v3::{
    self as pb, dog_statsd_sink, stats_sink, statsd_sink, tag_specifier,
};
use dhow_proto::google::protobuf::Duration as ProtoDuration;
use dhow_proxy_listener::socket_address;
use dhow_stats::{CustomTag, Store, TagRules};

use crate::cli::StatsTag;

/// Default of `stats_flush_interval`.
pub(crate) const FLUSH_INTERVAL: Duration = Duration::from_secs(5);
/// What names in sinks begin with unless the configuration says otherwise.
const PREFIX: &str = "envoy";

/// What the bootstrap says about statistics.
#[derive(Clone, Debug)]
pub(crate) struct StatsSettings {
    tags: TagRules,
    matcher: Option<StatsMatcher>,
    buckets: Vec<(Arc<StringMatcher>, Vec<f64>)>,
    /// How often histograms are merged and sinks are fed; `None` when the admin interface does it (`stats_flush_on_admin`).
    pub(crate) flush_interval: Option<Duration>,
    /// Where statistics are sent.
    pub(crate) sinks: Vec<StatsdConfig>,
}

/// A statsd sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StatsdConfig {
    /// What names begin with.
    pub(crate) prefix: String,
    /// Where lines go.
    pub(crate) target: StatsdTarget,
    /// Whether tags leave the names and are written beside them, as DogStatsD has it.
    pub(crate) tagged: bool,
    /// Size in bytes up to which lines share a datagram; `None` sends each on its own.
    pub(crate) datagram: Option<usize>,
}

/// Where a statsd sink sends its lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StatsdTarget {
    /// Datagrams.
    Udp(SocketAddr),
    /// A connection to a host of a cluster.
    Tcp(String),
}

/// The fields of the bootstrap that belong here.
pub(crate) struct StatsFields {
    pub(crate) config: Option<pb::StatsConfig>,
    pub(crate) sinks: Vec<pb::StatsSink>,
    pub(crate) flush_interval: Option<ProtoDuration>,
    pub(crate) flush_on_admin: bool,
}

/// Lowers the fields; `extra` are the tags of the command line.
pub(crate) fn lower(
    fields: StatsFields,
    extra: &[StatsTag],
    root: &FieldPath,
) -> Result<StatsSettings, ConfigError> {
    let StatsFields { config, sinks, flush_interval, flush_on_admin } = fields;
    if flush_on_admin && flush_interval.is_some() {
        let reason = "Only one of stats_flush_interval or stats_flush_on_admin should be set!";
        return Err(ConfigError::new(root.field("stats_flush_on_admin"), reason));
    }
    let interval = flush_interval.map_or(FLUSH_INTERVAL, |duration| {
        // The rules of the message keep it within a millisecond and five minutes.
        dhow_proto::whole_millis(&duration)
    });
    let path = root.field("stats_config");
    let pb::StatsConfig {
        stats_tags,
        use_all_default_tags,
        stats_matcher,
        histogram_bucket_settings,
        allow_default_tag_overrides,
    } = config.unwrap_or_default();
    let fixed = |tag: &StatsTag| CustomTag::Fixed { name: tag.name.clone(), value: tag.value.clone() };
    let mut custom: Vec<CustomTag> = extra.iter().map(fixed).collect();
    for (i, tag) in stats_tags.into_iter().enumerate() {
        custom.push(lower_tag(tag, &path.field("stats_tags").index(i))?);
    }
    let tags = TagRules {
        custom,
        use_default: use_all_default_tags.is_none_or(|flag| flag.value),
        override_default: allow_default_tag_overrides.is_some_and(|flag| flag.value),
    };
    let matcher = stats_matcher
        .map(|matcher| StatsMatcher::compile(&matcher, &path.field("stats_matcher")))
        .transpose()?;
    let mut buckets = Vec::new();
    for (i, settings) in histogram_bucket_settings.into_iter().enumerate() {
        let path = path.field("histogram_bucket_settings").index(i);
        // The number of bins is how much a histogram sets aside in Envoy; here bins come as they are needed.
        let pb::HistogramBucketSettings { r#match, buckets: mut bounds, bins: _ } = settings;
        let message = r#match.ok_or_else(|| ConfigError::new(path.field("match"), "value is required"))?;
        let matcher = StringMatcher::compile(&message, &path.field("match"))?;
        bounds.sort_by(f64::total_cmp);
        if !bounds.is_empty() {
            buckets.push((Arc::new(matcher), bounds));
        }
    }
    let sinks = sinks.into_iter().enumerate();
    let sinks = sinks.map(|(i, sink)| lower_sink(sink, &root.field("stats_sinks").index(i)));
    let sinks = sinks.collect::<Result<_, _>>()?;
    Ok(StatsSettings { tags, matcher, buckets, flush_interval: (!flush_on_admin).then_some(interval), sinks })
}

fn lower_tag(tag: pb::TagSpecifier, path: &FieldPath) -> Result<CustomTag, ConfigError> {
    let pb::TagSpecifier { tag_name: name, tag_value } = tag;
    match tag_value {
        Some(tag_specifier::TagValue::FixedValue(value)) => Ok(CustomTag::Fixed { name, value }),
        Some(tag_specifier::TagValue::Regex(expression)) if !expression.is_empty() => {
            CustomTag::regex(name, &expression).map_err(|reason| {
                ConfigError::new(path.field("regex"), format!("Invalid regex '{expression}': {reason}"))
            })
        }
        Some(tag_specifier::TagValue::Regex(_)) | None if CustomTag::is_default(&name) => {
            Ok(CustomTag::Default { name })
        }
        Some(tag_specifier::TagValue::Regex(_)) | None => {
            let reason =
                format!("No regex specified for tag specifier and no default regex for name: '{name}'");
            Err(ConfigError::new(path.clone(), reason))
        }
    }
}

fn lower_sink(sink: pb::StatsSink, path: &FieldPath) -> Result<StatsdConfig, ConfigError> {
    let pb::StatsSink { name, config_type } = sink;
    let config = match config_type {
        Some(stats_sink::ConfigType::TypedConfig(config)) => config,
        None => {
            let reason = format!("Didn't find a registered implementation for '{name}' with type URL: ''");
            return Err(ConfigError::new(path.clone(), reason));
        }
    };
    let path = path.field("typed_config");
    let prefixed = |prefix: String| if prefix.is_empty() { PREFIX.to_owned() } else { prefix };
    match dhow_proto::any::type_name(&config.type_url) {
        "envoy.config.metrics.v3.StatsdSink" => {
            let message: pb::StatsdSink = dhow_proto::any::unpack(&config).map_err(|e| e.under(&path))?;
            let pb::StatsdSink { prefix, statsd_specifier } = message;
            let target = match statsd_specifier {
                Some(statsd_sink::StatsdSpecifier::Address(address)) => {
                    StatsdTarget::Udp(socket_address(Some(&address), &path.field("address"))?)
                }
                Some(statsd_sink::StatsdSpecifier::TcpClusterName(cluster)) => StatsdTarget::Tcp(cluster),
                None => return Err(ConfigError::new(path, "statsd_specifier: is required")),
            };
            Ok(StatsdConfig { prefix: prefixed(prefix), target, tagged: false, datagram: None })
        }
        "envoy.config.metrics.v3.DogStatsdSink" => {
            let message: pb::DogStatsdSink = dhow_proto::any::unpack(&config).map_err(|e| e.under(&path))?;
            let pb::DogStatsdSink { prefix, max_bytes_per_datagram, dog_statsd_specifier } = message;
            let Some(dog_statsd_sink::DogStatsdSpecifier::Address(address)) = dog_statsd_specifier else {
                return Err(ConfigError::new(path, "dog_statsd_specifier: is required"));
            };
            let target = StatsdTarget::Udp(socket_address(Some(&address), &path.field("address"))?);
            let datagram = max_bytes_per_datagram.map(|bytes| bytes.value as usize);
            Ok(StatsdConfig { prefix: prefixed(prefix), target, tagged: true, datagram })
        }
        other => {
            let reason =
                format!("Didn't find a registered implementation for '{name}' with type URL: '{other}'");
            Err(ConfigError::new(path, reason))
        }
    }
}

impl StatsSettings {
    /// Sets up a store; before anything is counted in it.
    pub(crate) fn apply(&self, store: &Store) {
        store.set_tag_rules(self.tags.clone());
        if let Some(matcher) = self.matcher.clone() {
            store.set_matcher(move |name| matcher.accepts(name));
        }
        for (matcher, bounds) in &self.buckets {
            let matcher = matcher.clone();
            store.add_histogram_buckets(move |name| matcher.matches(name.as_bytes()), bounds.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lowered(yaml: &str) -> Result<StatsSettings, String> {
        use dhow_proto::envoy::config::bootstrap::v3::{Bootstrap, bootstrap::StatsFlush};
        let loaded = dhow_proto::load_yaml::<Bootstrap>(yaml, &dhow_proto::LoadOptions::default()).unwrap();
        let Bootstrap {
            stats_config: config, stats_sinks: sinks, stats_flush_interval: flush_interval, ..
        } = loaded.message;
        let flush_on_admin = matches!(loaded.message.stats_flush, Some(StatsFlush::StatsFlushOnAdmin(true)));
        let fields = StatsFields { config, sinks, flush_interval, flush_on_admin };
        let extra = [StatsTag { name: "extra".into(), value: "e".into() }];
        lower(fields, &extra, &FieldPath::root()).map_err(|error| error.to_string())
    }

    #[test]
    fn tags_need_an_expression_or_a_default() {
        let none = lowered("stats_config: { stats_tags: [{ tag_name: other }] }").unwrap_err();
        assert!(
            none.contains("No regex specified for tag specifier and no default regex for name: 'other'"),
            "{none}"
        );
        let bad = lowered("stats_config: { stats_tags: [{ tag_name: t, regex: '([' }] }").unwrap_err();
        assert!(bad.contains("Invalid regex '(['"), "{bad}");
        let yaml = "stats_config: { use_all_default_tags: false, stats_tags: [{ tag_name: envoy.cluster_name }, { tag_name: f, fixed_value: v }] }";
        let settings = lowered(yaml).unwrap();
        let tagged = settings.tags.extract("cluster.a.upstream_rq_200");
        let tags: Vec<_> = tagged.tags.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(tags, [("extra", "e"), ("f", "v"), ("envoy.cluster_name", "a")]);
    }

    #[test]
    fn a_matcher_decides_what_exists() {
        let names = |yaml: &str| {
            let store = Store::new();
            lowered(yaml).unwrap().apply(&store);
            let scope = store.scope("a.");
            let (_, _) = (scope.counter("one"), scope.counter("two"));
            let snapshot = store.snapshot(&dhow_stats::Query::default());
            snapshot.stats.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
        };
        let including =
            "stats_config: { stats_matcher: { inclusion_list: { patterns: [{ suffix: one }] } } }";
        assert_eq!(names(including), ["a.one"]);
        let excluding =
            "stats_config: { stats_matcher: { exclusion_list: { patterns: [{ suffix: one }] } } }";
        assert_eq!(names(excluding), ["a.two"]);
        assert_eq!(names("stats_config: { stats_matcher: { reject_all: true } }"), [""; 0]);
        assert_eq!(names("stats_config: { stats_matcher: { reject_all: false } }").len(), 2);
    }

    #[test]
    fn the_flush_has_one_trigger() {
        assert_eq!(lowered("{}").unwrap().flush_interval, Some(FLUSH_INTERVAL));
        assert_eq!(lowered("stats_flush_on_admin: true").unwrap().flush_interval, None);
        let both = lowered("stats_flush_interval: 1s\nstats_flush_on_admin: true").unwrap_err();
        assert!(both.contains("Only one of stats_flush_interval or stats_flush_on_admin should be set!"));
    }
}
