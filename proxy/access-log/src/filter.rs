//! The conditions under which a stream is logged.

use dhow_base::{ConfigError, FieldPath, ResponseFlag, ResponseFlags};
use dhow_http::HeaderMap;
use dhow_matching::HeaderMatcher;
use dhow_proto::envoy::config::accesslog::v3 as pb;
use dhow_proto::envoy::config::accesslog::v3::access_log_filter::FilterSpecifier;
use dhow_proxy_api::StreamInfo;

/// What filters look at.
#[derive(Clone, Copy, Debug)]
pub struct Logged<'a> {
    /// Facts of the stream.
    pub info: &'a StreamInfo,
    /// Request headers; none for TCP.
    pub request: Option<&'a HeaderMap>,
}

/// A compiled `AccessLogFilter`.
#[derive(Debug)]
pub enum LogFilter {
    /// `status_code_filter`; a stream without status counts as 0.
    Status(Comparison),
    /// `duration_filter`, milliseconds.
    Duration(Comparison),
    /// `header_filter`.
    Header(HeaderMatcher),
    /// `response_flag_filter`; without flags, any flag.
    Flags(ResponseFlags),
    /// `and_filter`.
    And(Vec<LogFilter>),
    /// `or_filter`.
    Or(Vec<LogFilter>),
    /// `not_health_check_filter`: there is no health-check filter yet, so everything passes.
    Always,
}

/// `ComparisonFilter`.
#[derive(Clone, Copy, Debug)]
pub struct Comparison {
    op: pb::comparison_filter::Op,
    value: u64,
}

impl Comparison {
    fn lower(comparison: Option<pb::ComparisonFilter>, path: &FieldPath) -> Result<Self, ConfigError> {
        let path = path.field("comparison");
        let Some(pb::ComparisonFilter { op, value }) = comparison else {
            return Err(ConfigError::new(path, "value is required"));
        };
        let op = pb::comparison_filter::Op::try_from(op).map_err(|_| {
            ConfigError::new(path.field("op"), "value must be one of the defined enum values")
        })?;
        let value = value.map_or(0, |value| u64::from(value.default_value));
        Ok(Self { op, value })
    }

    fn holds(self, value: u64) -> bool {
        match self.op {
            pb::comparison_filter::Op::Eq => value == self.value,
            pb::comparison_filter::Op::Ge => value >= self.value,
            pb::comparison_filter::Op::Le => value <= self.value,
            pb::comparison_filter::Op::Ne => value != self.value,
        }
    }
}

impl LogFilter {
    /// Compiles the message.
    ///
    /// # Errors
    /// For filters that are not supported yet, and for malformed ones.
    pub fn lower(filter: pb::AccessLogFilter, path: &FieldPath) -> Result<Self, ConfigError> {
        let pb::AccessLogFilter { filter_specifier } = filter;
        let unsupported = |name: &str| Err(ConfigError::unsupported(path.field(name)));
        match filter_specifier {
            None => Err(ConfigError::new(path.clone(), "filter_specifier: is required")),
            Some(FilterSpecifier::StatusCodeFilter(pb::StatusCodeFilter { comparison })) => {
                Comparison::lower(comparison, &path.field("status_code_filter")).map(Self::Status)
            }
            Some(FilterSpecifier::DurationFilter(pb::DurationFilter { comparison })) => {
                Comparison::lower(comparison, &path.field("duration_filter")).map(Self::Duration)
            }
            Some(FilterSpecifier::HeaderFilter(pb::HeaderFilter { header })) => {
                let path = path.field("header_filter").field("header");
                let header = header.ok_or_else(|| ConfigError::new(path.clone(), "value is required"))?;
                HeaderMatcher::compile(&header, &path).map(Self::Header)
            }
            Some(FilterSpecifier::ResponseFlagFilter(pb::ResponseFlagFilter { flags })) => {
                let mut set = ResponseFlags::NONE;
                for (i, name) in flags.iter().enumerate() {
                    let flag = ResponseFlag::ALL.iter().find(|flag| flag.short_name() == name);
                    let path = path.field("response_flag_filter").field("flags").index(i);
                    set.insert(*flag.ok_or_else(|| ConfigError::new(path, "unknown response flag"))?);
                }
                Ok(Self::Flags(set))
            }
            Some(FilterSpecifier::AndFilter(pb::AndFilter { filters })) => {
                Self::lower_all(filters, &path.field("and_filter")).map(Self::And)
            }
            Some(FilterSpecifier::OrFilter(pb::OrFilter { filters })) => {
                Self::lower_all(filters, &path.field("or_filter")).map(Self::Or)
            }
            Some(FilterSpecifier::NotHealthCheckFilter(pb::NotHealthCheckFilter {})) => Ok(Self::Always),
            Some(FilterSpecifier::TraceableFilter(_)) => unsupported("traceable_filter"),
            Some(FilterSpecifier::RuntimeFilter(_)) => unsupported("runtime_filter"),
            Some(FilterSpecifier::GrpcStatusFilter(_)) => unsupported("grpc_status_filter"),
            Some(FilterSpecifier::ExtensionFilter(_)) => unsupported("extension_filter"),
            Some(FilterSpecifier::MetadataFilter(_)) => unsupported("metadata_filter"),
            Some(FilterSpecifier::LogTypeFilter(_)) => unsupported("log_type_filter"),
        }
    }

    fn lower_all(filters: Vec<pb::AccessLogFilter>, path: &FieldPath) -> Result<Vec<Self>, ConfigError> {
        let path = path.field("filters");
        filters.into_iter().enumerate().map(|(i, filter)| Self::lower(filter, &path.index(i))).collect()
    }

    /// Whether the stream is to be logged.
    pub fn wants(&self, logged: &Logged<'_>) -> bool {
        match self {
            Self::Always => true,
            Self::Status(comparison) => comparison.holds(logged.info.response_code.unwrap_or(0).into()),
            Self::Duration(comparison) => {
                let end = logged.info.end.unwrap_or(logged.info.start);
                comparison.holds(end.duration_since(logged.info.start).as_millis() as u64)
            }
            Self::Header(matcher) => logged.request.is_some_and(|request| matcher.matches(request)),
            Self::Flags(flags) if flags.is_empty() => !logged.info.flags.is_empty(),
            Self::Flags(flags) => flags.intersects(logged.info.flags),
            Self::And(filters) => filters.iter().all(|filter| filter.wants(logged)),
            Self::Or(filters) => filters.iter().any(|filter| filter.wants(logged)),
        }
    }
}
