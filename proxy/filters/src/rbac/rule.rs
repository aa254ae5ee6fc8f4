//! Permissions (what is asked for) and principals (who asks).

use std::ops::RangeInclusive;

use dhow_base::{ConfigError, FieldPath};
use dhow_expr::{FilterStateObject, FormatContext, MetadataSource};
use dhow_http::HeaderMap;
use dhow_matching::{
    AddressMatcher, Cidr, HeaderMatcher, MetadataMatcher, StringMatcher, UriTemplate, path_without_query,
};
use dhow_net::StreamAddress;
use dhow_proto::envoy::config::core::v3::{CidrRange, TypedExtensionConfig};
use dhow_proto::envoy::config::rbac::v3::{
    Permission as PermissionMessage, Principal as PrincipalMessage, SourcedMetadata, permission, principal,
};
use dhow_proto::envoy::extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig;
use dhow_proto::envoy::extensions::rbac::matchers::upstream_ip_port::v3::UpstreamIpPortMatcher;
use dhow_proto::envoy::extensions::rbac::principals::mtls_authenticated::v3::Config as MtlsAuthenticated;
use dhow_proto::envoy::r#type::matcher::v3 as matcher;
use dhow_proto::{Name, any};
use dhow_proxy_api::{FilterStateValue, StreamFormat, StreamInfo};
use dhow_tls::NameMatcher;

use crate::dynamic_forward_proxy::UPSTREAM_ADDRESS;

/// Compiles a range of addresses; what is wrong with it is said in this filter's words.
fn compile_range(range: &CidrRange, path: &FieldPath) -> Result<Cidr, ConfigError> {
    Cidr::compile(range, path).map_err(|error| {
        let reason = format!("Failed to create CIDR range: {}", error.reason);
        ConfigError { reason, ..error }
    })
}

/// What rules look at.
#[derive(Clone, Copy)]
pub(crate) struct Facts<'a> {
    pub(crate) headers: &'a HeaderMap,
    pub(crate) info: &'a StreamInfo,
}

/// A rule about the request and what it asks for.
#[derive(Debug)]
pub(crate) enum Permission {
    All(Box<[Permission]>),
    One(Box<[Permission]>),
    Not(Box<Permission>),
    Any,
    Shared(Shared),
    DestinationIp(Cidr),
    /// From the first port to the one before the second.
    DestinationPort(u32, u32),
    RequestedServerName(StringMatcher),
    UriTemplate(UriTemplate),
    /// The host that a dynamic forward proxy found is in the range, and its port between these.
    UpstreamAddress {
        range: Option<Cidr>,
        ports: Option<RangeInclusive<i64>>,
    },
}

/// A rule about who asks.
#[derive(Debug)]
pub(crate) enum Principal {
    All(Box<[Principal]>),
    One(Box<[Principal]>),
    Not(Box<Principal>),
    Any,
    Shared(Shared),
    /// A peer with a TLS session, and one of whose certificate's names matches.
    Authenticated(Option<StringMatcher>),
    /// A peer with a certificate that was verified, and one of whose names matches.
    MtlsAuthenticated(Option<NameMatcher>),
    DirectRemoteIp(Cidr),
    RemoteIp(Cidr),
    FilterState {
        key: Box<str>,
        rule: FilterStateRule,
    },
}

/// A rule that both kinds know.
#[derive(Debug)]
pub(crate) enum Shared {
    Header(HeaderMatcher),
    UrlPath(StringMatcher),
    Metadata(MetadataSource, MetadataMatcher),
}

/// What an object of the filter state must be.
#[derive(Debug)]
pub(crate) enum FilterStateRule {
    Text(StringMatcher),
    Address(AddressMatcher),
}

fn missing(path: &FieldPath, field: &str) -> ConfigError {
    ConfigError::new(path.field(field), "is required")
}

/// The one message that an extension may have here.
fn known<M: Name + Default>(message: &TypedExtensionConfig, path: &FieldPath) -> Result<M, ConfigError> {
    let TypedExtensionConfig { name, typed_config } = message;
    let config = typed_config.as_ref().ok_or_else(|| missing(path, "value"))?;
    if !any::is::<M>(config) {
        let url = any::type_name(&config.type_url);
        let reason = format!("Didn't find a registered implementation for '{name}' with type URL: '{url}'");
        return Err(ConfigError::new(path.clone(), reason));
    }
    any::unpack(config).map_err(|error| error.under(path))
}

fn always(value: bool, path: &FieldPath) -> Result<(), ConfigError> {
    if value { Ok(()) } else { Err(ConfigError::new(path.field("any"), "value must equal true")) }
}

fn at_least_one<T>(rules: Box<[T]>, path: &FieldPath) -> Result<Box<[T]>, ConfigError> {
    if rules.is_empty() {
        return Err(ConfigError::new(path.clone(), "value must contain at least 1 item(s)"));
    }
    Ok(rules)
}

impl Permission {
    /// Compiles a list.
    pub(crate) fn compile_all(
        messages: &[PermissionMessage],
        path: &FieldPath,
    ) -> Result<Box<[Self]>, ConfigError> {
        messages.iter().enumerate().map(|(at, message)| Self::compile(message, &path.index(at))).collect()
    }

    fn compile(message: &PermissionMessage, path: &FieldPath) -> Result<Self, ConfigError> {
        use permission::Rule;
        let PermissionMessage { rule } = message;
        #[allow(deprecated, reason = "the older field is still accepted, as in Envoy")]
        Ok(match rule.as_ref().ok_or_else(|| missing(path, "rule"))? {
            Rule::AndRules(permission::Set { rules }) => {
                let path = path.field("and_rules").field("rules");
                Self::All(at_least_one(Self::compile_all(rules, &path)?, &path)?)
            }
            Rule::OrRules(permission::Set { rules }) => {
                let path = path.field("or_rules").field("rules");
                Self::One(at_least_one(Self::compile_all(rules, &path)?, &path)?)
            }
            Rule::NotRule(rule) => Self::Not(Box::new(Self::compile(rule, &path.field("not_rule"))?)),
            Rule::Any(value) => {
                always(*value, path)?;
                Self::Any
            }
            Rule::Header(header) => Self::Shared(Shared::header(header, path)?),
            Rule::UrlPath(rule) => Self::Shared(Shared::url_path(rule, path)?),
            Rule::Metadata(rule) => Self::Shared(Shared::metadata(rule, path)?),
            Rule::SourcedMetadata(rule) => Self::Shared(Shared::sourced_metadata(rule, path)?),
            Rule::DestinationIp(range) => {
                Self::DestinationIp(compile_range(range, &path.field("destination_ip"))?)
            }
            Rule::DestinationPort(port) => Self::DestinationPort(*port, port.saturating_add(1)),
            Rule::DestinationPortRange(range) => {
                let path = path.field("destination_port_range");
                let bound = |port: i32, which: &str| match u32::try_from(port) {
                    Ok(port @ ..=65536) => Ok(port),
                    _ => {
                        Err(ConfigError::new(path.clone(), format!("range {which} {port} is out of bounds")))
                    }
                };
                let (start, end) = (bound(range.start, "start")?, bound(range.end, "end")?);
                if start >= end {
                    let reason =
                        format!("range start {start} cannot be greater or equal than range end {end}");
                    return Err(ConfigError::new(path, reason));
                }
                Self::DestinationPort(start, end)
            }
            Rule::RequestedServerName(name) => {
                Self::RequestedServerName(StringMatcher::compile(name, &path.field("requested_server_name"))?)
            }
            Rule::UriTemplate(extension) => Self::uri_template(extension, &path.field("uri_template"))?,
            Rule::Matcher(extension) => Self::extension(extension, &path.field("matcher"))?,
        })
    }

    /// `envoy.rbac.matchers.upstream_ip_port`.
    fn extension(message: &TypedExtensionConfig, path: &FieldPath) -> Result<Self, ConfigError> {
        let path = path.field("typed_config");
        let UpstreamIpPortMatcher { upstream_ip, upstream_port_range } = known(message, &path)?;
        if upstream_ip.is_none() && upstream_port_range.is_none() {
            let reason = "Invalid UpstreamIpPortMatcher configuration - missing `upstream_ip` and/or \
                          `upstream_port_range`";
            return Err(ConfigError::new(path, reason));
        }
        let range = upstream_ip.map(|range| Cidr::compile(&range, &path.field("upstream_ip")));
        Ok(Self::UpstreamAddress {
            range: range.transpose()?,
            ports: upstream_port_range.map(|range| range.start..=range.end),
        })
    }

    fn uri_template(extension: &TypedExtensionConfig, path: &FieldPath) -> Result<Self, ConfigError> {
        let TypedExtensionConfig { name: _, typed_config } = extension;
        let path = path.field("typed_config");
        let config =
            typed_config.as_ref().ok_or_else(|| ConfigError::new(path.clone(), "value is required"))?;
        let UriTemplateMatchConfig { path_template } =
            any::unpack(config).map_err(|error| error.under(&path))?;
        UriTemplate::compile(&path_template)
            .map(Self::UriTemplate)
            .map_err(|reason| ConfigError::new(path.field("path_template"), reason))
    }

    /// Whether the rule holds.
    pub(crate) fn matches(&self, facts: &Facts<'_>) -> bool {
        let connection = &facts.info.connection;
        match self {
            Self::All(rules) => rules.iter().all(|rule| rule.matches(facts)),
            Self::One(rules) => rules.iter().any(|rule| rule.matches(facts)),
            Self::Not(rule) => !rule.matches(facts),
            Self::Any => true,
            Self::Shared(rule) => rule.matches(facts),
            Self::DestinationIp(range) => contains(range, &connection.local_address),
            Self::DestinationPort(start, end) => {
                connection.local_address.port().is_some_and(|port| (*start..*end).contains(&port.into()))
            }
            Self::RequestedServerName(matcher) => {
                matcher.matches(connection.requested_server_name.as_deref().unwrap_or_default().as_bytes())
            }
            Self::UpstreamAddress { range, ports } => {
                let Some(FilterStateValue::HostAddress(host)) = facts.info.filter_state.get(UPSTREAM_ADDRESS)
                else {
                    return false;
                };
                range.is_none_or(|range| range.contains(host.ip()))
                    && ports.as_ref().is_none_or(|ports| ports.contains(&host.port().into()))
            }
            Self::UriTemplate(template) => template.is_match(path_without_query(facts.headers.path())),
        }
    }
}

impl Principal {
    /// Compiles a list.
    pub(crate) fn compile_all(
        messages: &[PrincipalMessage],
        path: &FieldPath,
    ) -> Result<Box<[Self]>, ConfigError> {
        messages.iter().enumerate().map(|(at, message)| Self::compile(message, &path.index(at))).collect()
    }

    fn compile(message: &PrincipalMessage, path: &FieldPath) -> Result<Self, ConfigError> {
        use principal::Identifier;
        let PrincipalMessage { identifier } = message;
        let range = |range: &CidrRange, field| compile_range(range, &path.field(field));
        #[allow(deprecated, reason = "the older field is still accepted, as in Envoy")]
        Ok(match identifier.as_ref().ok_or_else(|| missing(path, "identifier"))? {
            Identifier::AndIds(principal::Set { ids }) => {
                let path = path.field("and_ids").field("ids");
                Self::All(at_least_one(Self::compile_all(ids, &path)?, &path)?)
            }
            Identifier::OrIds(principal::Set { ids }) => {
                let path = path.field("or_ids").field("ids");
                Self::One(at_least_one(Self::compile_all(ids, &path)?, &path)?)
            }
            Identifier::NotId(id) => Self::Not(Box::new(Self::compile(id, &path.field("not_id"))?)),
            Identifier::Any(value) => {
                always(*value, path)?;
                Self::Any
            }
            Identifier::Header(header) => Self::Shared(Shared::header(header, path)?),
            Identifier::UrlPath(rule) => Self::Shared(Shared::url_path(rule, path)?),
            Identifier::Metadata(rule) => Self::Shared(Shared::metadata(rule, path)?),
            Identifier::SourcedMetadata(rule) => Self::Shared(Shared::sourced_metadata(rule, path)?),
            Identifier::Authenticated(principal::Authenticated { principal_name }) => {
                let path = path.field("authenticated").field("principal_name");
                let name = principal_name.as_ref().map(|name| StringMatcher::compile(name, &path));
                Self::Authenticated(name.transpose()?)
            }
            Identifier::SourceIp(source) => Self::DirectRemoteIp(range(source, "source_ip")?),
            Identifier::DirectRemoteIp(source) => Self::DirectRemoteIp(range(source, "direct_remote_ip")?),
            Identifier::RemoteIp(source) => Self::RemoteIp(range(source, "remote_ip")?),
            Identifier::FilterState(state) => Self::filter_state(state, &path.field("filter_state"))?,
            Identifier::Custom(extension) => Self::extension(extension, &path.field("custom"))?,
        })
    }

    fn extension(message: &TypedExtensionConfig, path: &FieldPath) -> Result<Self, ConfigError> {
        let path = path.field("typed_config");
        let MtlsAuthenticated { san_matcher, any_validated_client_certificate } = known(message, &path)?;
        let names = san_matcher.map(|message| NameMatcher::compile(&message, &path.field("san_matcher")));
        if names.is_none() && !any_validated_client_certificate {
            let reason = "envoy.rbac.principals.mtls_authenticated did not have any configured validation. \
                          At least one configuration field must be set.";
            return Err(ConfigError::new(path, reason));
        }
        Ok(Self::MtlsAuthenticated(names.transpose()?))
    }

    fn filter_state(message: &matcher::FilterStateMatcher, path: &FieldPath) -> Result<Self, ConfigError> {
        use matcher::filter_state_matcher::Matcher;
        let matcher::FilterStateMatcher { key, matcher } = message;
        if key.is_empty() {
            return Err(ConfigError::new(path.field("key"), "value length must be at least 1 characters"));
        }
        let rule = match matcher.as_ref().ok_or_else(|| missing(path, "matcher"))? {
            Matcher::StringMatch(text) => {
                FilterStateRule::Text(StringMatcher::compile(text, &path.field("string_match"))?)
            }
            Matcher::AddressMatch(addresses) => {
                FilterStateRule::Address(AddressMatcher::compile(addresses, &path.field("address_match"))?)
            }
        };
        Ok(Self::FilterState { key: key.as_str().into(), rule })
    }

    /// Whether the rule holds.
    pub(crate) fn matches(&self, facts: &Facts<'_>) -> bool {
        match self {
            Self::All(rules) => rules.iter().all(|rule| rule.matches(facts)),
            Self::One(rules) => rules.iter().any(|rule| rule.matches(facts)),
            Self::Not(rule) => !rule.matches(facts),
            Self::Any => true,
            Self::Shared(rule) => rule.matches(facts),
            Self::Authenticated(name) => authenticated(name.as_ref(), facts.info),
            Self::MtlsAuthenticated(names) => facts.info.connection.tls.session().is_some_and(|tls| {
                let peer = tls.peer.as_ref().filter(|_| tls.peer_verified);
                peer.is_some_and(|peer| names.as_ref().is_none_or(|names| names.fits(peer)))
            }),
            Self::DirectRemoteIp(range) => contains(range, facts.info.connection.direct_remote_address()),
            Self::RemoteIp(range) => contains(range, &facts.info.client_address),
            Self::FilterState { key, rule } => {
                facts.info.filter_state.get(key).is_some_and(|object| rule.matches(object))
            }
        }
    }
}

/// Whether an address is in the range; one that is not of IP is in none.
fn contains(range: &Cidr, address: &StreamAddress) -> bool {
    address.ip().is_some_and(|ip| range.contains(ip))
}

/// Whether the peer has a TLS session, and one of its names matches: URIs, then DNS names, then the subject.
fn authenticated(name: Option<&StringMatcher>, info: &StreamInfo) -> bool {
    let Some(tls) = info.connection.tls.session() else { return false };
    let Some(name) = name else { return true };
    let Some(peer) = &tls.peer else { return name.matches(b"") };
    let names = peer.uris.iter().chain(&peer.dns_names);
    names.chain([&peer.subject]).any(|text| name.matches(text.as_bytes()))
}

impl Shared {
    fn header(
        message: &dhow_proto::envoy::config::route::v3::HeaderMatcher,
        path: &FieldPath,
    ) -> Result<Self, ConfigError> {
        HeaderMatcher::compile(message, &path.field("header")).map(Self::Header)
    }

    fn url_path(message: &matcher::PathMatcher, path: &FieldPath) -> Result<Self, ConfigError> {
        let path = path.field("url_path");
        let matcher::PathMatcher { rule } = message;
        match rule {
            Some(matcher::path_matcher::Rule::Path(text)) => {
                StringMatcher::compile(text, &path.field("path")).map(Self::UrlPath)
            }
            None => Err(missing(&path, "rule")),
        }
    }

    fn metadata(message: &matcher::MetadataMatcher, path: &FieldPath) -> Result<Self, ConfigError> {
        let matcher = MetadataMatcher::compile(message, &path.field("metadata"))?;
        Ok(Self::Metadata(MetadataSource::Dynamic, matcher))
    }

    fn sourced_metadata(message: &SourcedMetadata, path: &FieldPath) -> Result<Self, ConfigError> {
        use dhow_proto::envoy::config::rbac::v3::MetadataSource as Source;
        let path = path.field("sourced_metadata");
        let SourcedMetadata { metadata_matcher, metadata_source } = message;
        let field = path.field("metadata_matcher");
        let matcher =
            metadata_matcher.as_ref().ok_or_else(|| ConfigError::new(field.clone(), "value is required"))?;
        let source = match Source::try_from(*metadata_source) {
            Ok(Source::Dynamic) => MetadataSource::Dynamic,
            Ok(Source::Route) => MetadataSource::Route,
            Err(_) => {
                let reason = "value must be one of the defined enum values";
                return Err(ConfigError::new(path.field("metadata_source"), reason));
            }
        };
        Ok(Self::Metadata(source, MetadataMatcher::compile(matcher, &field)?))
    }

    fn matches(&self, facts: &Facts<'_>) -> bool {
        match self {
            Self::Header(matcher) => matcher.matches(facts.headers),
            Self::UrlPath(matcher) => matcher.matches(path_without_query(facts.headers.path())),
            Self::Metadata(source, matcher) => {
                matcher.matches(StreamFormat::new(facts.info).metadata(*source, matcher.namespace()))
            }
        }
    }
}

impl FilterStateRule {
    fn matches(&self, object: &FilterStateValue) -> bool {
        match self {
            Self::Text(matcher) => {
                let mut text = Vec::new();
                object.append_text(&mut text) && matcher.matches(&text)
            }
            Self::Address(matcher) => match object {
                FilterStateValue::Ip(ip) => matcher.matches(*ip),
                FilterStateValue::Address(address) => matcher.matches(address.ip()),
                _ => false,
            },
        }
    }
}
