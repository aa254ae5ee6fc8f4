//! `RouteMatch`.

use std::borrow::Cow;

use dhow_base::{ConfigError, FieldPath};
use dhow_expr::MetadataSource;
use dhow_http::{HeaderMap, KnownHeader};
use dhow_matching::{
    CidrSet, CookieMatcher, FullRegex, HeaderMatcher, MetadataMatcher, PathMatcher, QueryParameterMatcher,
    StringMatcher, UriTemplate, path_without_query,
};
use dhow_proto::any;
use dhow_proto::envoy::extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig;

use crate::pb::core::TypedExtensionConfig;
use crate::pb::matcher::{AddressMatcher, FilterStateMatcher, filter_state_matcher};
use crate::pb::route::RouteMatch as Message;
use crate::pb::route::route_match::{GrpcRouteMatchOptions, PathSpecifier, TlsContextMatchOptions};
use crate::table::{ClientCertificate, RouteInput};
use dhow_runtime_config::RuntimeFraction;

/// A compiled `envoy.config.route.v3.RouteMatch`.
#[derive(Clone, Debug)]
pub struct RouteMatch {
    path: PathRule,
    /// Everything but the path; most routes have nothing else.
    rest: Option<Box<Rest>>,
}

#[derive(Clone, Debug)]
pub(crate) enum PathRule {
    Path(PathMatcher),
    Template(Box<UriTemplate>),
    Connect,
}

#[derive(Clone, Debug)]
struct Rest {
    fraction: Option<RuntimeFraction>,
    grpc: bool,
    headers: Box<[HeaderMatcher]>,
    query_parameters: Box<[QueryParameterMatcher]>,
    cookies: Box<[CookieMatcher]>,
    tls_presented: Option<bool>,
    tls_validated: Option<bool>,
    dynamic_metadata: Box<[MetadataMatcher]>,
    filter_state: Box<[FilterStateRule]>,
}

#[derive(Clone, Debug)]
struct FilterStateRule {
    key: Box<str>,
    wanted: FilterStateValue,
}

#[derive(Clone, Debug)]
enum FilterStateValue {
    Text(StringMatcher),
    /// An address in one of the ranges, or in none of them.
    Address {
        ranges: CidrSet,
        invert: bool,
    },
}

/// Why a route does not match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// The random value is outside of `runtime_fraction`.
    RuntimeFraction,
    /// The path.
    Path,
    /// The request is not a CONNECT request.
    NotConnect,
    /// The request is not gRPC.
    NotGrpc,
    /// The header matcher of this index.
    Header(usize),
    /// The query parameter matcher of this index.
    QueryParameter(usize),
    /// The cookie matcher of this index.
    Cookie(usize),
    /// `tls_context`.
    TlsContext,
    /// The dynamic metadata matcher of this index.
    DynamicMetadata(usize),
    /// The filter state matcher of this index.
    FilterState(usize),
}

impl RouteMatch {
    /// A match of every path.
    pub(crate) fn any() -> Self {
        Self {
            path: PathRule::Path(PathMatcher::Prefix { prefix: Box::default(), ignore_case: false }),
            rest: None,
        }
    }

    /// Compiles the message.
    ///
    /// # Errors
    /// When there is no path specifier, or one of the matchers is not valid.
    pub fn compile(message: &Message, path: &FieldPath) -> Result<Self, ConfigError> {
        let Message {
            case_sensitive,
            runtime_fraction,
            headers,
            query_parameters,
            cookies,
            grpc,
            tls_context,
            dynamic_metadata,
            filter_state,
            path_specifier,
        } = message;
        let ignore_case = case_sensitive.as_ref().is_some_and(|wrapped| !wrapped.value);
        let fraction =
            runtime_fraction.as_ref().map(|f| RuntimeFraction::compile(f, &path.field("runtime_fraction")));
        let TlsContextMatchOptions { presented, validated } = tls_context.unwrap_or_default();
        let rest = Rest {
            fraction: fraction.transpose()?,
            grpc: matches!(grpc, Some(GrpcRouteMatchOptions {})),
            headers: HeaderMatcher::compile_all(headers, &path.field("headers"))?,
            query_parameters: each(
                query_parameters,
                path,
                "query_parameters",
                QueryParameterMatcher::compile,
            )?,
            cookies: each(cookies, path, "cookies", CookieMatcher::compile)?,
            tls_presented: presented.map(|wrapped| wrapped.value),
            tls_validated: validated.map(|wrapped| wrapped.value),
            dynamic_metadata: each(dynamic_metadata, path, "dynamic_metadata", MetadataMatcher::compile)?,
            filter_state: each(filter_state, path, "filter_state", FilterStateRule::compile)?,
        };
        let path = path_rule(path_specifier.as_ref(), ignore_case, path)?;
        Ok(Self { path, rest: (!rest.is_empty()).then(|| Box::new(rest)) })
    }

    /// Whether a request matches. `path` is what paths are compared with: without query, and without parameters where they are ignored.
    pub(crate) fn check(
        &self,
        headers: &HeaderMap,
        path: &[u8],
        input: &RouteInput<'_>,
    ) -> Result<(), Mismatch> {
        if let Some(rest) = &self.rest
            && let Some(fraction) = &rest.fraction
            && !fraction.contains(input.random, input.runtime)
        {
            return Err(Mismatch::RuntimeFraction);
        }
        match &self.path {
            PathRule::Path(matcher) if matcher.matches(path) => {}
            // Templates see parameters, whatever the table says.
            PathRule::Template(template) if template.is_match(path_without_query(headers.path())) => {}
            PathRule::Path(_) | PathRule::Template(_) => return Err(Mismatch::Path),
            PathRule::Connect if headers.method() == b"CONNECT" => {}
            PathRule::Connect => return Err(Mismatch::NotConnect),
        }
        match &self.rest {
            Some(rest) => rest.check(headers, input),
            None => Ok(()),
        }
    }

    /// How many bytes of the path `prefix_rewrite` replaces; none when it does not begin with what it was matched by.
    pub(crate) fn replaced_length(&self, path_without_query: &[u8]) -> Option<usize> {
        match &self.path {
            PathRule::Path(matcher) => matcher.replaced_length(path_without_query),
            PathRule::Template(_) => Some(path_without_query.len()),
            PathRule::Connect => Some(0),
        }
    }

    /// The template that the path is matched by, if it is.
    pub(crate) fn template(&self) -> Option<&UriTemplate> {
        match &self.path {
            PathRule::Template(template) => Some(template),
            _ => None,
        }
    }

    pub(crate) fn path(&self) -> &PathRule {
        &self.path
    }
}

/// What paths are compared with: without query and, on request, without the parameters of its segments.
pub(crate) fn compared_path(path: &[u8], ignore_parameters: bool) -> Cow<'_, [u8]> {
    let path = path_without_query(path);
    if !ignore_parameters || !path.contains(&b';') {
        return Cow::Borrowed(path);
    }
    let names =
        path.split(|&b| b == b'/').map(|segment| segment.split(|&b| b == b';').next().unwrap_or_default());
    Cow::Owned(names.collect::<Vec<_>>().join(&b'/'))
}

fn each<M, T>(
    messages: &[M],
    path: &FieldPath,
    field: &str,
    compile: impl Fn(&M, &FieldPath) -> Result<T, ConfigError>,
) -> Result<Box<[T]>, ConfigError> {
    let path = path.field(field);
    messages.iter().enumerate().map(|(at, message)| compile(message, &path.index(at))).collect()
}

fn path_rule(
    specifier: Option<&PathSpecifier>,
    ignore_case: bool,
    path: &FieldPath,
) -> Result<PathRule, ConfigError> {
    Ok(PathRule::Path(match specifier {
        None => return Err(ConfigError::new(path.field("path_specifier"), "is required")),
        Some(PathSpecifier::Prefix(prefix)) => {
            PathMatcher::Prefix { prefix: prefix.as_bytes().into(), ignore_case }
        }
        Some(PathSpecifier::Path(exact)) => PathMatcher::Exact { path: exact.as_bytes().into(), ignore_case },
        Some(PathSpecifier::SafeRegex(regex)) => {
            PathMatcher::Regex(FullRegex::compile(regex, &path.field("safe_regex"))?)
        }
        Some(PathSpecifier::PathSeparatedPrefix(prefix)) => {
            if prefix.len() < 2 || prefix.ends_with('/') || prefix.contains(['?', '#']) {
                let reason = "value does not match regex pattern \"^[^?#]+[^?#/]$\"";
                return Err(ConfigError::new(path.field("path_separated_prefix"), reason));
            }
            PathMatcher::SeparatedPrefix { prefix: prefix.as_bytes().into(), ignore_case }
        }
        Some(PathSpecifier::ConnectMatcher(_)) => return Ok(PathRule::Connect),
        Some(PathSpecifier::PathMatchPolicy(policy)) => {
            return template(policy, &path.field("path_match_policy"));
        }
    }))
}

fn template(message: &TypedExtensionConfig, path: &FieldPath) -> Result<PathRule, ConfigError> {
    let TypedExtensionConfig { name, typed_config } = message;
    let path = path.field("typed_config");
    let config = typed_config.as_ref().ok_or_else(|| ConfigError::new(path.clone(), "value is required"))?;
    if !any::is::<UriTemplateMatchConfig>(config) {
        let url = any::type_name(&config.type_url);
        let reason = format!("Didn't find a registered implementation for '{name}' with type URL: '{url}'");
        return Err(ConfigError::new(path, reason));
    }
    let UriTemplateMatchConfig { path_template } = any::unpack(config).map_err(|error| error.under(&path))?;
    let template = UriTemplate::compile(&path_template).map_err(|reason| ConfigError::new(path, reason))?;
    Ok(PathRule::Template(Box::new(template)))
}

impl FilterStateRule {
    fn compile(message: &FilterStateMatcher, path: &FieldPath) -> Result<Self, ConfigError> {
        let FilterStateMatcher { key, matcher } = message;
        let wanted = match matcher {
            Some(filter_state_matcher::Matcher::StringMatch(text)) => {
                FilterStateValue::Text(StringMatcher::compile(text, &path.field("string_match"))?)
            }
            Some(filter_state_matcher::Matcher::AddressMatch(AddressMatcher { ranges, invert_match })) => {
                let path = path.field("address_match").field("ranges");
                FilterStateValue::Address {
                    ranges: CidrSet::compile_xds(ranges, &path)?,
                    invert: *invert_match,
                }
            }
            None => return Err(ConfigError::new(path.field("matcher"), "is required")),
        };
        Ok(Self { key: key.as_str().into(), wanted })
    }

    fn matches(&self, input: &RouteInput<'_>) -> bool {
        let Some(object) = input.context.filter_state(false, &self.key) else { return false };
        let mut text = Vec::new();
        if !object.append_text(&mut text) {
            return false;
        }
        match &self.wanted {
            FilterStateValue::Text(matcher) => matcher.matches(&text),
            FilterStateValue::Address { ranges, invert } => {
                let address = std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok());
                address.is_some_and(|address| ranges.contains(address) != *invert)
            }
        }
    }
}

fn failing<T>(rules: &[T], holds: impl Fn(&T) -> bool) -> Option<usize> {
    rules.iter().position(|rule| !holds(rule))
}

impl Rest {
    fn is_empty(&self) -> bool {
        let Self {
            fraction,
            grpc,
            headers,
            query_parameters,
            cookies,
            tls_presented,
            tls_validated,
            dynamic_metadata,
            filter_state,
        } = self;
        fraction.is_none()
            && !grpc
            && headers.is_empty()
            && query_parameters.is_empty()
            && cookies.is_empty()
            && tls_presented.is_none()
            && tls_validated.is_none()
            && dynamic_metadata.is_empty()
            && filter_state.is_empty()
    }

    fn check(&self, headers: &HeaderMap, input: &RouteInput<'_>) -> Result<(), Mismatch> {
        if let Some(at) = failing(&self.headers, |rule| rule.matches(headers)) {
            return Err(Mismatch::Header(at));
        }
        if let Some(at) = failing(&self.query_parameters, |rule| rule.matches(headers.path())) {
            return Err(Mismatch::QueryParameter(at));
        }
        if let Some(at) = failing(&self.cookies, |rule| rule.matches(headers)) {
            return Err(Mismatch::Cookie(at));
        }
        if self.grpc && !is_grpc(headers) {
            return Err(Mismatch::NotGrpc);
        }
        // Without TLS no certificate is presented.
        let certificate = input.client_certificate.unwrap_or(ClientCertificate::None);
        let presented = certificate != ClientCertificate::None;
        let validated = certificate == ClientCertificate::Validated;
        if self.tls_presented.is_some_and(|wanted| wanted != presented)
            || self.tls_validated.is_some_and(|wanted| wanted != validated)
        {
            return Err(Mismatch::TlsContext);
        }
        let metadata = |rule: &MetadataMatcher| {
            rule.matches(input.context.metadata(MetadataSource::Dynamic, rule.namespace()))
        };
        if let Some(at) = failing(&self.dynamic_metadata, metadata) {
            return Err(Mismatch::DynamicMetadata(at));
        }
        match failing(&self.filter_state, |rule| rule.matches(input)) {
            Some(at) => Err(Mismatch::FilterState(at)),
            None => Ok(()),
        }
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    let rest = headers.get_known(KnownHeader::ContentType).and_then(|v| v.strip_prefix(b"application/grpc"));
    matches!(rest, Some([] | [b'+', ..]))
}
