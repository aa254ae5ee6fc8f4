//! The conditions under which a stream is logged.

use dhow_base::{ConfigError, FieldPath, ResponseFlag, ResponseFlags, Rng};
use dhow_expr::{CelExpression, CelOptions, FormatContext, TextFact, grpc_status};
use dhow_http::{HeaderMap, KnownHeader};
use dhow_matching::{HeaderMatcher, MetadataMatcher};
use dhow_proto::Message;
use dhow_proto::envoy::config::accesslog::v3 as pb;
use dhow_proto::envoy::config::accesslog::v3::access_log_filter::FilterSpecifier;
use dhow_proto::envoy::data::accesslog::v3::AccessLogType;
use dhow_proto::envoy::extensions::access_loggers::filters::cel::v3::ExpressionFilter;
use dhow_proto::google::protobuf::{Struct, value::Kind};
use dhow_proxy_api::StreamInfo;
use dhow_runtime_config::{Current, Fraction, RuntimeUint32, RuntimeValues};

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
    /// `not_health_check_filter`.
    NotHealthCheck,
    /// `traceable_filter`: without tracing, nothing is traced.
    Traceable,
    /// `runtime_filter`.
    Runtime(Sampled),
    /// `grpc_status_filter`.
    GrpcStatus {
        /// The listed codes.
        statuses: Box<[i64]>,
        /// Whether it is the others that pass.
        exclude: bool,
    },
    /// `metadata_filter`.
    Metadata(MetadataFilter),
    /// `extension_filter` with an expression.
    Expression(CelExpression),
    /// `log_type_filter`.
    LogType {
        /// Names of the listed types, as `%ACCESS_LOG_TYPE%` prints them.
        types: Box<[&'static str]>,
        /// Whether it is the others that pass.
        exclude: bool,
    },
}

/// `RuntimeFilter`: a share of the streams.
#[derive(Clone, Debug)]
pub struct Sampled {
    key: Box<str>,
    share: Fraction,
    /// Draw a number of its own for each stream instead of taking the one that its request id stands for.
    independent: bool,
}

impl Sampled {
    fn wants(&self, logged: &Logged<'_>) -> bool {
        // A value of the runtime counts in units of the denominator.
        let numerator = Current.number(&self.key).unwrap_or_else(|| self.share.numerator.into());
        let of_request = || logged.request.and_then(number_of_request);
        let random = if self.independent { None } else { of_request() };
        let random = random.unwrap_or_else(|| Rng::from_entropy().next_u64());
        random % u64::from(self.share.denominator) < numerator
    }
}

/// The number that a request's id stands for: its first eight digits.
fn number_of_request(request: &HeaderMap) -> Option<u64> {
    let id = request.get_known(KnownHeader::XRequestId)?;
    u64::from_str_radix(std::str::from_utf8(id.get(..8)?).ok()?, 16).ok()
}

/// `MetadataFilter`: dynamic metadata.
#[derive(Clone, Debug)]
pub struct MetadataFilter {
    matcher: Option<MetadataMatcher>,
    path: Box<[Box<str>]>,
    /// What a stream without the value is.
    without: bool,
}

impl MetadataFilter {
    fn lower(filter: pb::MetadataFilter, path: &FieldPath) -> Result<Self, ConfigError> {
        use dhow_proto::envoy::r#type::matcher::v3::metadata_matcher::path_segment::Segment;
        let pb::MetadataFilter { matcher, match_if_key_not_found } = filter;
        let compile = |message| MetadataMatcher::compile(message, &path.field("matcher"));
        let segments = matcher.iter().flat_map(|message| &message.path);
        let keys = segments
            .filter_map(|segment| segment.segment.as_ref().map(|Segment::Key(key)| key.as_str().into()));
        Ok(Self {
            path: keys.collect(),
            without: match_if_key_not_found.is_none_or(|flag| flag.value),
            matcher: matcher.as_ref().map(compile).transpose()?,
        })
    }

    fn wants(&self, info: &StreamInfo) -> bool {
        let Some(matcher) = &self.matcher else { return self.without };
        let fields = info.dynamic_metadata.get(matcher.namespace());
        if fields.is_some_and(|fields| holds(fields, &self.path)) {
            matcher.matches(fields)
        } else {
            self.without
        }
    }
}

/// Whether there is a value at a path.
fn holds(fields: &Struct, path: &[Box<str>]) -> bool {
    let Some((first, rest)) = path.split_first() else { return true };
    match fields.fields.get(&**first).and_then(|value| value.kind.as_ref()) {
        Some(Kind::StructValue(inner)) if !rest.is_empty() => holds(inner, rest),
        Some(_) => rest.is_empty(),
        None => false,
    }
}

/// `ComparisonFilter`.
#[derive(Clone, Debug)]
pub struct Comparison {
    op: pb::comparison_filter::Op,
    value: RuntimeUint32,
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
        let value = value.as_ref().map_or_else(|| RuntimeUint32::new("", 0), RuntimeUint32::from);
        Ok(Self { op, value })
    }

    fn holds(&self, value: u64) -> bool {
        let limit = u64::from(self.value.value(&Current));
        match self.op {
            pb::comparison_filter::Op::Eq => value == limit,
            pb::comparison_filter::Op::Ge => value >= limit,
            pb::comparison_filter::Op::Le => value <= limit,
            pb::comparison_filter::Op::Ne => value != limit,
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
            Some(FilterSpecifier::NotHealthCheckFilter(pb::NotHealthCheckFilter {})) => {
                Ok(Self::NotHealthCheck)
            }
            Some(FilterSpecifier::TraceableFilter(pb::TraceableFilter {})) => Ok(Self::Traceable),
            Some(FilterSpecifier::RuntimeFilter(pb::RuntimeFilter {
                runtime_key,
                percent_sampled,
                use_independent_randomness,
            })) => Ok(Self::Runtime(Sampled {
                key: runtime_key.as_str().into(),
                share: Fraction::from_message(percent_sampled.as_ref()),
                independent: use_independent_randomness,
            })),
            Some(FilterSpecifier::GrpcStatusFilter(pb::GrpcStatusFilter { statuses, exclude })) => {
                Ok(Self::GrpcStatus { statuses: statuses.into_iter().map(i64::from).collect(), exclude })
            }
            Some(FilterSpecifier::MetadataFilter(filter)) => {
                MetadataFilter::lower(filter, &path.field("metadata_filter")).map(Self::Metadata)
            }
            Some(FilterSpecifier::LogTypeFilter(pb::LogTypeFilter { types, exclude })) => {
                let types = types.into_iter().filter_map(|kind| AccessLogType::try_from(kind).ok());
                Ok(Self::LogType { types: types.map(|kind| kind.as_str_name()).collect(), exclude })
            }
            Some(FilterSpecifier::ExtensionFilter(filter)) => {
                expression(filter, &path.field("extension_filter")).map(Self::Expression)
            }
        }
    }

    fn lower_all(filters: Vec<pb::AccessLogFilter>, path: &FieldPath) -> Result<Vec<Self>, ConfigError> {
        let path = path.field("filters");
        filters.into_iter().enumerate().map(|(i, filter)| Self::lower(filter, &path.index(i))).collect()
    }

    /// Whether the stream is to be logged.
    pub fn wants(&self, logged: &Logged<'_>, context: &dyn FormatContext) -> bool {
        match self {
            Self::Expression(expression) => expression.holds(context),
            Self::NotHealthCheck => !logged.info.health_check,
            Self::Traceable => false,
            Self::Runtime(sampled) => sampled.wants(logged),
            Self::GrpcStatus { statuses, exclude } => {
                // A stream without any status counts as one whose status is not known.
                const UNKNOWN: i64 = 2;
                statuses.contains(&grpc_status(context).unwrap_or(UNKNOWN)) != *exclude
            }
            Self::Metadata(filter) => filter.wants(logged.info),
            Self::LogType { types, exclude } => {
                let kind = context.text(TextFact::AccessLogType);
                kind.is_some_and(|kind| types.contains(&&*kind)) != *exclude
            }
            Self::Status(comparison) => comparison.holds(logged.info.response_code.unwrap_or(0).into()),
            Self::Duration(comparison) => {
                let end = logged.info.end.unwrap_or(logged.info.start);
                comparison.holds(end.duration_since(logged.info.start).as_millis() as u64)
            }
            Self::Header(matcher) => logged.request.is_some_and(|request| matcher.matches(request)),
            Self::Flags(flags) if flags.is_empty() => !logged.info.flags.is_empty(),
            Self::Flags(flags) => flags.intersects(logged.info.flags),
            Self::And(filters) => filters.iter().all(|filter| filter.wants(logged, context)),
            Self::Or(filters) => filters.iter().any(|filter| filter.wants(logged, context)),
        }
    }
}

const EXPRESSION: &str = "envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter";

/// The only extension among the filters: an expression of CEL.
fn expression(filter: pb::ExtensionFilter, path: &FieldPath) -> Result<CelExpression, ConfigError> {
    use pb::extension_filter::ConfigType;
    let pb::ExtensionFilter { name, config_type } = filter;
    let config = config_type.map(|ConfigType::TypedConfig(config)| config).unwrap_or_default();
    let type_name = dhow_proto::any::type_name(&config.type_url);
    if type_name != EXPRESSION {
        let reason =
            format!("Didn't find a registered implementation for '{name}' with type URL: '{type_name}'");
        return Err(ConfigError::new(path.clone(), reason));
    }
    let path = path.field("typed_config");
    let malformed = |error: dhow_proto::prost::DecodeError| ConfigError::new(path.clone(), error.to_string());
    let ExpressionFilter { expression, cel_config } =
        ExpressionFilter::decode(config.value.as_slice()).map_err(malformed)?;
    let path = path.field("expression");
    CelExpression::parse_with(&expression, CelOptions::of(cel_config)).map_err(|reason| {
        // Envoy words this differently from the same fault in a format.
        let reason =
            reason.replacen("Not able to parse expression: ", "Not able to parse filter expression: ", 1);
        ConfigError::new(path, reason)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use dhow_proto::LoadOptions;

    #[test]
    fn the_number_of_a_request_is_the_beginning_of_its_id() {
        let number = |id: &str| {
            let mut request = HeaderMap::default();
            request.set_known(KnownHeader::XRequestId, id.as_bytes());
            number_of_request(&request)
        };
        assert_eq!(number("0000001f-0000-4000-8000-000000000000"), Some(31));
        assert_eq!((number("short"), number("not-hexadecimal")), (None, None));
    }

    #[test]
    fn a_value_is_there_or_not() {
        let json = r#"{"a": {"b": "x", "n": null}, "c": 1}"#;
        let fields: Struct = dhow_proto::load_json(json, &LoadOptions::default()).unwrap().message;
        let there = |path: &[&str]| {
            let path: Vec<Box<str>> = path.iter().map(|key| Box::from(*key)).collect();
            holds(&fields, &path)
        };
        assert!(there(&["a"]) && there(&["a", "b"]) && there(&["a", "n"]) && there(&["c"]));
        assert!(!there(&["b"]) && !there(&["a", "x"]) && !there(&["c", "x"]));
    }

    #[test]
    fn comparisons_read_the_runtime_only_with_a_key() {
        let comparison = |op| Comparison { op, value: RuntimeUint32::new("", 400) };
        use pb::comparison_filter::Op;
        let holds = |op, value| comparison(op).holds(value);
        assert!(holds(Op::Ge, 400) && !holds(Op::Ge, 399) && holds(Op::Le, 400) && holds(Op::Eq, 400));
        assert!(holds(Op::Ne, 1) && !holds(Op::Ne, 400));
    }
}
