//! The actions that a descriptor's entries come from.

use dhow_base::{ConfigError, FieldPath};
use dhow_expr::{Address, AddressFact, MetadataSource, PrefixLength};
use dhow_http::HeaderName;
use dhow_matching::{CidrSet, HeaderMatcher, QueryParameterMatcher, all_match, query_parameter};

use super::RateLimitInput;
use super::extension::Extension;
use super::metadata_key::MetadataPath;
use crate::pb::matcher::AddressMatcher;
use crate::pb::protobuf::{UInt32Value, value::Kind};
use crate::pb::route::rate_limit::Action as Message;
use crate::pb::route::rate_limit::action::{
    ActionSpecifier, DestinationCluster, DynamicMetaData, GenericKey, HeaderValueMatch, MaskedRemoteAddress,
    MetaData, QueryParameterValueMatch, QueryParameters, RemoteAddress, RemoteAddressMatch, RequestHeaders,
    SourceCluster, meta_data::Source,
};

/// Where one entry comes from.
#[derive(Clone, Debug)]
pub(super) struct RateLimitAction {
    key: Box<str>,
    source: EntrySource,
}

#[derive(Clone, Debug)]
enum EntrySource {
    SourceCluster,
    DestinationCluster,
    RequestHeader { name: HeaderName, skip_if_absent: bool },
    QueryParameter { name: Box<[u8]>, skip_if_absent: bool },
    RemoteAddress,
    MaskedRemoteAddress(PrefixLength),
    Text(EntryText),
    HeaderMatch { headers: Box<[HeaderMatcher]>, expected: bool, text: EntryText },
    QueryMatch { parameters: Box<[QueryParameterMatcher]>, expected: bool, text: EntryText },
    AddressMatch { ranges: CidrSet, invert: bool, text: EntryText },
    Metadata { path: MetadataPath, of: MetadataOwner, default: Box<str>, skip_if_absent: bool },
    Extension(Extension),
}

/// Whose metadata an entry is taken from.
#[derive(Clone, Copy, Debug)]
enum MetadataOwner {
    /// What filters set on the stream.
    Request,
    Route,
    /// The cluster that the request goes to.
    Cluster,
}

/// `descriptor_value`, or `default_value` when it is empty; both are taken as they stand, as Envoy does by default.
#[derive(Clone, Debug)]
struct EntryText(Box<str>);

/// What an action gives for a request.
pub(super) enum Outcome {
    /// An entry.
    Entry(String, String),
    /// Nothing; the descriptor goes without it.
    Skip,
    /// The request has no such descriptor.
    NoDescriptor,
}

impl RateLimitAction {
    pub(super) fn compile(message: &Message, path: &FieldPath) -> Result<Self, ConfigError> {
        let Message { action_specifier } = message;
        let Some(specifier) = action_specifier else {
            return Err(ConfigError::new(path.field("action_specifier"), "is required"));
        };
        let (key, source) = match specifier {
            ActionSpecifier::SourceCluster(SourceCluster {}) => {
                ("source_cluster", EntrySource::SourceCluster)
            }
            ActionSpecifier::DestinationCluster(DestinationCluster {}) => {
                ("destination_cluster", EntrySource::DestinationCluster)
            }
            ActionSpecifier::RequestHeaders(RequestHeaders {
                header_name,
                descriptor_key,
                skip_if_absent,
            }) => {
                let name = HeaderName::new(header_name);
                let source = EntrySource::RequestHeader { name, skip_if_absent: *skip_if_absent };
                (descriptor_key.as_str(), source)
            }
            ActionSpecifier::QueryParameters(message) => {
                let QueryParameters { query_parameter_name, descriptor_key, skip_if_absent } = message;
                let name = query_parameter_name.as_bytes().into();
                let source = EntrySource::QueryParameter { name, skip_if_absent: *skip_if_absent };
                (descriptor_key.as_str(), source)
            }
            ActionSpecifier::RemoteAddress(RemoteAddress {}) => {
                ("remote_address", EntrySource::RemoteAddress)
            }
            ActionSpecifier::MaskedRemoteAddress(message) => {
                let MaskedRemoteAddress { v4_prefix_mask_len, v6_prefix_mask_len } = message;
                let bits = |length: &Option<UInt32Value>, longest: u8| {
                    length.as_ref().map_or(longest, |w| u8::try_from(w.value).unwrap_or(longest).min(longest))
                };
                let mask =
                    PrefixLength { v4: bits(v4_prefix_mask_len, 32), v6: bits(v6_prefix_mask_len, 128) };
                ("masked_remote_address", EntrySource::MaskedRemoteAddress(mask))
            }
            ActionSpecifier::GenericKey(GenericKey { descriptor_value, default_value, descriptor_key }) => {
                let text = EntryText::new(descriptor_value, default_value);
                (or(descriptor_key, "generic_key"), EntrySource::Text(text))
            }
            ActionSpecifier::HeaderValueMatch(message) => {
                header_match(message, &path.field("header_value_match"))?
            }
            ActionSpecifier::QueryParameterValueMatch(message) => {
                query_match(message, &path.field("query_parameter_value_match"))?
            }
            ActionSpecifier::RemoteAddressMatch(message) => {
                address_match(message, &path.field("remote_address_match"))?
            }
            ActionSpecifier::Metadata(message) => metadata(message, &path.field("metadata"))?,
            #[allow(deprecated, reason = "accepted where deprecated fields are")]
            ActionSpecifier::DynamicMetadata(message) => {
                dynamic_metadata(message, &path.field("dynamic_metadata"))?
            }
            ActionSpecifier::Extension(extension) => {
                let (key, source) = Extension::compile(extension, &path.field("extension"))?;
                return Ok(Self { key: key.into(), source: EntrySource::Extension(source) });
            }
        };
        Ok(Self { key: key.into(), source })
    }

    pub(super) fn entry(&self, input: &RateLimitInput<'_>) -> Outcome {
        let absent = |skip: bool| if skip { Outcome::Skip } else { Outcome::NoDescriptor };
        let entry = |value: String| Outcome::Entry(self.key.to_string(), value);
        let written = |text: &EntryText| text.value().map_or(Outcome::NoDescriptor, entry);
        match &self.source {
            EntrySource::SourceCluster => entry(input.source_cluster.to_owned()),
            EntrySource::DestinationCluster => entry(input.destination_cluster.to_owned()),
            EntrySource::RequestHeader { name, skip_if_absent } => match input.headers.get(name) {
                Some(value) => entry(String::from_utf8_lossy(value).into_owned()),
                None => absent(*skip_if_absent),
            },
            EntrySource::QueryParameter { name, skip_if_absent } => {
                match query_parameter(input.headers.path(), name) {
                    Some(value) => entry(String::from_utf8_lossy(value).into_owned()),
                    None => absent(*skip_if_absent),
                }
            }
            EntrySource::RemoteAddress => match input.context.address(AddressFact::DownstreamRemote) {
                Some(Address::Ip(address)) => entry(address.ip().to_string()),
                _ => Outcome::NoDescriptor,
            },
            EntrySource::MaskedRemoteAddress(mask) => {
                let mut out = Vec::new();
                let address = input.context.address(AddressFact::DownstreamRemote);
                if address.is_some_and(|address| address.append_masked(*mask, &mut out)) {
                    entry(String::from_utf8_lossy(&out).into_owned())
                } else {
                    Outcome::NoDescriptor
                }
            }
            EntrySource::Text(text) => written(text),
            EntrySource::HeaderMatch { headers, expected, text } => {
                if all_match(headers, input.headers) == *expected {
                    written(text)
                } else {
                    Outcome::NoDescriptor
                }
            }
            EntrySource::QueryMatch { parameters, expected, text } => {
                let path = input.headers.path();
                let all = parameters.iter().all(|parameter| parameter.matches(path));
                if all == *expected { written(text) } else { Outcome::NoDescriptor }
            }
            EntrySource::AddressMatch { ranges, invert, text } => {
                match input.context.address(AddressFact::DownstreamRemote) {
                    Some(Address::Ip(address)) if ranges.contains(address.ip()) != *invert => written(text),
                    _ => Outcome::NoDescriptor,
                }
            }
            EntrySource::Extension(extension) => extension.entry(&self.key, input),
            EntrySource::Metadata { path, of, default, skip_if_absent } => {
                match metadata_text(path, *of, input) {
                    Some(value) if !value.is_empty() => entry(value),
                    _ if !default.is_empty() => entry(default.to_string()),
                    _ => absent(*skip_if_absent),
                }
            }
        }
    }
}

impl EntryText {
    fn new(value: &str, default: &str) -> Self {
        Self(if value.is_empty() { default.into() } else { value.into() })
    }

    /// The text, when there is one.
    fn value(&self) -> Option<String> {
        (!self.0.is_empty()).then(|| self.0.to_string())
    }
}

fn or<'a>(text: &'a str, default: &'a str) -> &'a str {
    if text.is_empty() { default } else { text }
}

fn header_match<'a>(
    message: &'a HeaderValueMatch,
    path: &FieldPath,
) -> Result<(&'a str, EntrySource), ConfigError> {
    let HeaderValueMatch { descriptor_value, default_value, descriptor_key, expect_match, headers } = message;
    let source = EntrySource::HeaderMatch {
        headers: HeaderMatcher::compile_all(headers, &path.field("headers"))?,
        expected: expect_match.as_ref().is_none_or(|wrapped| wrapped.value),
        text: EntryText::new(descriptor_value, default_value),
    };
    Ok((or(descriptor_key, "header_match"), source))
}

fn query_match<'a>(
    message: &'a QueryParameterValueMatch,
    path: &FieldPath,
) -> Result<(&'a str, EntrySource), ConfigError> {
    let QueryParameterValueMatch {
        descriptor_value,
        default_value,
        descriptor_key,
        expect_match,
        query_parameters,
    } = message;
    let parameters_path = path.field("query_parameters");
    let parameters = query_parameters.iter().enumerate();
    let parameters = parameters.map(|(at, m)| QueryParameterMatcher::compile(m, &parameters_path.index(at)));
    let source = EntrySource::QueryMatch {
        parameters: parameters.collect::<Result<_, _>>()?,
        expected: expect_match.as_ref().is_none_or(|wrapped| wrapped.value),
        text: EntryText::new(descriptor_value, default_value),
    };
    Ok((or(descriptor_key, "query_match"), source))
}

fn address_match<'a>(
    message: &'a RemoteAddressMatch,
    path: &FieldPath,
) -> Result<(&'a str, EntrySource), ConfigError> {
    let RemoteAddressMatch { descriptor_value, descriptor_key, default_value, address_matcher } = message;
    let field = path.field("address_matcher");
    let AddressMatcher { ranges, invert_match } =
        address_matcher.as_ref().ok_or_else(|| ConfigError::new(field.clone(), "value is required"))?;
    let source = EntrySource::AddressMatch {
        ranges: CidrSet::compile_xds(ranges, &field.field("ranges"))?,
        invert: *invert_match,
        text: EntryText::new(descriptor_value, default_value),
    };
    Ok((or(descriptor_key, "remote_address_match"), source))
}

fn metadata<'a>(message: &'a MetaData, path: &FieldPath) -> Result<(&'a str, EntrySource), ConfigError> {
    let MetaData { descriptor_key, metadata_key, default_value, source, skip_if_absent } = message;
    let of = match Source::try_from(*source) {
        Ok(Source::Dynamic) => MetadataOwner::Request,
        Ok(Source::RouteEntry) => MetadataOwner::Route,
        Ok(Source::ClusterEntry) => MetadataOwner::Cluster,
        Ok(Source::ClusterLocalityEntry) => {
            return Err(ConfigError::unsupported(path.field("source")));
        }
        Err(_) => {
            let reason = "value must be one of the defined enum values";
            return Err(ConfigError::new(path.field("source"), reason));
        }
    };
    let source = EntrySource::Metadata {
        path: MetadataPath::compile(metadata_key.as_ref(), &path.field("metadata_key"))?,
        of,
        default: default_value.as_str().into(),
        skip_if_absent: *skip_if_absent,
    };
    Ok((descriptor_key, source))
}

fn dynamic_metadata<'a>(
    message: &'a DynamicMetaData,
    path: &FieldPath,
) -> Result<(&'a str, EntrySource), ConfigError> {
    let DynamicMetaData { descriptor_key, metadata_key, default_value } = message;
    let source = EntrySource::Metadata {
        path: MetadataPath::compile(metadata_key.as_ref(), &path.field("metadata_key"))?,
        of: MetadataOwner::Request,
        default: default_value.as_str().into(),
        skip_if_absent: false,
    };
    Ok((descriptor_key, source))
}

fn metadata_text(path: &MetadataPath, of: MetadataOwner, input: &RateLimitInput<'_>) -> Option<String> {
    let namespace = path.namespace();
    let of_cluster;
    let fields = match of {
        MetadataOwner::Request => input.context.metadata(MetadataSource::Dynamic, namespace),
        MetadataOwner::Route => input.route_metadata?.filter_metadata.get(namespace),
        MetadataOwner::Cluster => {
            of_cluster = (input.cluster_metadata)(input.destination_cluster)?;
            of_cluster.filter_metadata.get(namespace)
        }
    };
    match &path.find(fields)?.kind {
        Some(Kind::StringValue(text)) => Some(text.clone()),
        _ => None,
    }
}
