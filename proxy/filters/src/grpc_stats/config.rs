//! `FilterConfig` validated.

use std::collections::BTreeSet;

use dhow_base::{ConfigError, FieldPath};
use dhow_proto::envoy::config::core::v3::{GrpcMethodList, grpc_method_list::Service};
use dhow_proto::envoy::extensions::filters::http::grpc_stats::v3::FilterConfig;
use dhow_proto::envoy::extensions::filters::http::grpc_stats::v3::filter_config::PerMethodStatSpecifier;
use dhow_proto::google::protobuf::Any;

/// What is counted.
#[derive(Debug)]
pub(super) struct Settings {
    /// `emit_filter_state`: the numbers of messages are left in the filter state.
    pub(super) emits_filter_state: bool,
    /// `enable_upstream_stats`: the time that upstream took is recorded.
    pub(super) times_upstream: bool,
    pub(super) names: Names,
}

/// Which calls are counted under their own names.
#[derive(Debug)]
pub(super) enum Names {
    /// None.
    None,
    /// All; in `dots_replaced` services without dots.
    All { dots_replaced: bool },
    /// Those of these paths.
    Paths(BTreeSet<Box<str>>),
}

impl Settings {
    /// Reads the message.
    pub(super) fn read(config: &Any, path: &FieldPath) -> Result<Self, ConfigError> {
        let FilterConfig {
            emit_filter_state,
            enable_upstream_stats,
            replace_dots_in_grpc_service_name,
            per_method_stat_specifier,
        } = dhow_proto::any::unpack(config).map_err(|error| error.under(path))?;
        let names = match per_method_stat_specifier {
            None => Names::None,
            Some(PerMethodStatSpecifier::StatsForAllMethods(all)) if all.value => {
                Names::All { dots_replaced: replace_dots_in_grpc_service_name }
            }
            Some(PerMethodStatSpecifier::StatsForAllMethods(_)) => Names::None,
            Some(PerMethodStatSpecifier::IndividualMethodStatsAllowlist(GrpcMethodList { services })) => {
                Names::Paths(
                    services
                        .iter()
                        .flat_map(|Service { name, method_names }| {
                            method_names.iter().map(move |method| format!("/{name}/{method}").into())
                        })
                        .collect(),
                )
            }
        };
        Ok(Self { emits_filter_state: emit_filter_state, times_upstream: enable_upstream_stats, names })
    }

    /// The name under which a call is counted, with a dot at its end, or empty under none of its own; `None` for a path that is no
    /// call's, which is not counted.
    pub(super) fn name_of(&self, path: &[u8]) -> Option<String> {
        let (service, method) = call_of(std::str::from_utf8(path).ok()?)?;
        // The parts that a statistic's name is put together from have no dots at their end.
        let name =
            |service: &str| format!("{}.{}.", service.trim_end_matches('.'), method.trim_end_matches('.'));
        Some(match &self.names {
            Names::Paths(paths) if paths.contains(format!("/{service}/{method}").as_str()) => name(service),
            Names::None | Names::Paths(_) => String::new(),
            Names::All { dots_replaced: true } => name(&service.replace('.', "_")),
            Names::All { dots_replaced: false } => name(service),
        })
    }
}

/// Service and method of a call's path: its two segments, however many slashes stand around them.
fn call_of(path: &str) -> Option<(&str, &str)> {
    let path = path.split('?').next()?;
    let mut segments = path.split('/').filter(|segment| !segment.is_empty());
    let call = (segments.next()?, segments.next()?);
    segments.next().is_none().then_some(call)
}
