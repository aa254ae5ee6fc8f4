//! `FilterChain` messages lowered.

use std::sync::Arc;

use dhow_base::{ConfigError, ConfigWarning, FieldPath};
use dhow_matching::Cidr;
use dhow_matching::generic::{InputFamily, MatchOptions, MatchTree};
use dhow_net::StreamAddress;
use dhow_proto::envoy::config::core::v3::CidrRange as ProtoCidr;
use dhow_proto::envoy::config::listener::v3 as pb;
use dhow_proto::xds::core::v3::TypedExtensionConfig;
use dhow_proto::xds::r#type::matcher::v3::Matcher;
use dhow_proto::{Excerpts, Message};

use super::empty::Nothing;
use super::{FilterChain, FilterChainMatch, FilterChains, SourceType};
use crate::config::{FilterContext, NetworkFilters};

/// Lowers the filter chains of a listener.
pub(crate) struct ChainBuilder<'a> {
    pub(crate) previous: Option<&'a FilterChains>,
    pub(crate) filters: &'a dyn NetworkFilters,
    pub(crate) context: FilterContext,
    /// The first address of the listener, by which Envoy names it in errors.
    pub(crate) address: StreamAddress,
    /// Of the listener's message.
    pub(crate) excerpts: Excerpts,
}

impl ChainBuilder<'_> {
    /// Lowers the chains; with a `matcher` it alone chooses among them.
    ///
    /// # Errors
    /// The first field that is not acceptable.
    pub(crate) fn build(
        &mut self,
        chains: Vec<pb::FilterChain>,
        default: Option<pb::FilterChain>,
        matcher: Option<Matcher>,
        path: &FieldPath,
        warnings: &mut Vec<ConfigWarning>,
    ) -> Result<FilterChains, ConfigError> {
        let listener = self.address.clone();
        if chains.is_empty() && default.is_none() {
            let reason = format!("error adding listener '{listener}': no filter chains specified");
            return Err(ConfigError::new(path.field("filter_chains"), reason));
        }
        let mut built: Vec<Arc<FilterChain>> = Vec::with_capacity(chains.len());
        for (i, chain) in chains.into_iter().enumerate() {
            let path = path.field("filter_chains").index(i);
            let chain = self.chain(chain, &path, warnings)?;
            if matcher.is_some() {
                check_name(&chain, &built, &listener, &path)?;
            } else if let Some(same) = built.iter().find(|other| other.matches == chain.matches) {
                let reason = format!(
                    "error adding listener '{listener}': filter chain '{}' has the same matching rules defined as '{}'",
                    chain.name, same.name
                );
                return Err(ConfigError::new(path, reason));
            } else if chain.matches.repeats_itself()
                || built.iter().any(|other| other.matches.overlaps(&chain.matches))
            {
                let reason = format!(
                    "error adding listener '{listener}': multiple filter chains with overlapping matching rules are defined"
                );
                return Err(ConfigError::new(path.field("filter_chain_match"), reason));
            }
            built.push(chain);
        }
        let default = default.map(|chain| self.chain(chain, &path.field("default_filter_chain"), warnings));
        let matcher = matcher.map(|matcher| compile_matcher(&matcher, &path.field("filter_chain_matcher")));
        Ok(FilterChains::new(built, default.transpose()?).with_matcher(matcher.transpose()?))
    }

    /// Refuses what Envoy knows of and refuses.
    fn check_match(&self, chain: &pb::FilterChain, path: &FieldPath) -> Result<(), ConfigError> {
        let Some(matches) = &chain.filter_chain_match else { return Ok(()) };
        // Wildcards stand for whole labels at the beginning.
        let is_partial = |name: &String| name.contains('*') && !name.starts_with("*.");
        if let Some(at) = matches.server_names.iter().position(is_partial) {
            let listener = &self.address;
            let reason = format!(
                "error adding listener '{listener}': partial wildcards are not supported in \"server_names\""
            );
            return Err(ConfigError::new(
                path.field("filter_chain_match").field("server_names").index(at),
                reason,
            ));
        }
        let field = match (matches.address_suffix.is_empty(), matches.suffix_len) {
            (true, None) => return Ok(()),
            (false, _) => "address_suffix",
            (true, Some(_)) => "suffix_len",
        };
        let reason = format!(
            "error adding listener '{}': filter chain '{}' contains unimplemented fields",
            self.address, chain.name
        );
        Err(ConfigError::new(path.field("filter_chain_match").field(field), reason))
    }

    /// The chain of the message, or the same as before.
    fn chain(
        &mut self,
        chain: pb::FilterChain,
        path: &FieldPath,
        warnings: &mut Vec<ConfigWarning>,
    ) -> Result<Arc<FilterChain>, ConfigError> {
        self.check_match(&chain, path)?;
        let encoded = self.excerpts.share(chain.encode_to_vec());
        let mut previous = self.previous.into_iter().flat_map(|chains| chains.iter());
        if let Some(same) = previous.find(|chain| chain.encoded == encoded) {
            return Ok(same.clone());
        }
        self.context.encoded = encoded;
        lower_chain(chain, self.filters, &self.context, path, warnings)
    }
}

fn lower_chain(
    chain: pb::FilterChain,
    filters: &dyn NetworkFilters,
    context: &FilterContext,
    path: &FieldPath,
    warnings: &mut Vec<ConfigWarning>,
) -> Result<Arc<FilterChain>, ConfigError> {
    #[allow(deprecated, reason = "named so that nothing is dropped")]
    let pb::FilterChain {
        filter_chain_match,
        filters: mut network_filters,
        use_proxy_proto,
        metadata,
        transport_socket,
        transport_socket_connect_timeout,
        name,
    } = chain;
    ConfigError::refuse_if(use_proxy_proto.is_some_and(|b| b.value), path, "use_proxy_proto")?;
    let matches = filter_chain_match
        .map(|m| lower_match(m, &path.field("filter_chain_match")))
        .transpose()?
        .unwrap_or_default();
    let last = network_filters.len().saturating_sub(1);
    let filter_path = path.field("filters").index(last);
    let terminal = network_filters.pop();
    let mut in_front = Vec::with_capacity(network_filters.len());
    for (i, filter) in network_filters.into_iter().enumerate() {
        let path = path.field("filters").index(i);
        in_front.push(filters.build_read_filter(filter, &path, warnings)?);
    }
    let tls = match transport_socket {
        None => None,
        Some(socket) => filters.build_tls(socket, &path.field("transport_socket"), warnings)?,
    };
    let filter = match terminal {
        Some(terminal) => filters.build(terminal, context, &filter_path, warnings)?,
        None => Arc::new(Nothing),
    };
    Ok(Arc::new(FilterChain {
        name: name.into(),
        metadata: metadata.map(Arc::new),
        encoded: context.encoded.clone(),
        matches,
        tls,
        handshake_timeout: transport_socket_connect_timeout
            .map(|t| dhow_proto::whole_millis(&t))
            .filter(|t| !t.is_zero()),
        in_front: in_front.into(),
        filter,
    }))
}

/// A matcher knows chains by their names.
fn check_name(
    chain: &FilterChain,
    others: &[Arc<FilterChain>],
    listener: &StreamAddress,
    path: &FieldPath,
) -> Result<(), ConfigError> {
    let wrong = if chain.name.is_empty() {
        "is required when using a listener matcher".to_owned()
    } else if others.iter().any(|other| other.name == chain.name) {
        format!("is duplicated with value '{}'", chain.name)
    } else {
        return Ok(());
    };
    let reason = format!("error adding listener '{listener}': \"name\" field {wrong}");
    Err(ConfigError::new(path.field("name"), reason))
}

fn compile_matcher(message: &Matcher, path: &FieldPath) -> Result<MatchTree<Arc<str>>, ConfigError> {
    let mut action = |message: &TypedExtensionConfig, path: &FieldPath| {
        let TypedExtensionConfig { name, typed_config } = message;
        let path = path.field("typed_config");
        let config =
            typed_config.as_ref().ok_or_else(|| ConfigError::new(path.clone(), "value is required"))?;
        let resolved = dhow_proto::any::resolve(config).map_err(|error| error.under(&path))?;
        if resolved.type_name != "google.protobuf.StringValue" {
            let reason = format!(
                "cannot create a filter chain matcher: Didn't find a registered implementation for '{name}' with type \
                 URL: '{}'",
                resolved.type_name
            );
            return Err(ConfigError::new(path, reason));
        }
        let chain = String::decode(&*resolved.value)
            .map_err(|error| ConfigError::new(path.clone(), error.to_string()))?;
        Ok(Arc::from(chain))
    };
    let options = &mut MatchOptions {
        inputs: InputFamily::Network,
        admit: &|_| Ok(()),
        keep_matching: false,
        expressions: None,
        action: &mut action,
    };
    MatchTree::compile(message, path, options)
}

fn lower_match(message: pb::FilterChainMatch, path: &FieldPath) -> Result<FilterChainMatch, ConfigError> {
    let pb::FilterChainMatch {
        destination_port,
        prefix_ranges,
        address_suffix: _, // refused with the chain
        suffix_len: _,     // so is this one
        direct_source_prefix_ranges,
        source_type,
        source_prefix_ranges,
        source_ports,
        server_names,
        transport_protocol,
        application_protocols,
    } = message;
    Ok(FilterChainMatch {
        destination_port: destination_port.map(|port| port.value as u16),
        destination: cidr_ranges(&prefix_ranges, &path.field("prefix_ranges"))?,
        server_names: server_names.iter().map(|name| name.to_lowercase()).collect(),
        transport_protocol,
        application_protocols,
        direct_source: cidr_ranges(&direct_source_prefix_ranges, &path.field("direct_source_prefix_ranges"))?,
        source_type: match source_type {
            1 => SourceType::SameIpOrLoopback,
            2 => SourceType::External,
            _ => SourceType::Any,
        },
        source: cidr_ranges(&source_prefix_ranges, &path.field("source_prefix_ranges"))?,
        source_ports: source_ports.into_iter().map(|port| port as u16).collect(),
    })
}

fn cidr_ranges(ranges: &[ProtoCidr], path: &FieldPath) -> Result<Vec<Cidr>, ConfigError> {
    ranges.iter().enumerate().map(|(i, range)| Cidr::compile(range, &path.index(i))).collect()
}
