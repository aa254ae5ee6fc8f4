//! `transport_socket_matcher`: the transport socket of a host by a tree of matchers.

use std::cell::Cell;

use dhow_base::{ConfigError, FieldPath};
use dhow_expr::append_value;
use dhow_matching::generic::{HostPart, InputFamily, MatchData, MatchOptions, MatchTree};
use dhow_proto::any;
use dhow_proto::envoy::config::core::v3::Metadata;
use dhow_proto::envoy::extensions::matching::common_inputs::transport_socket::v3::TransportSocketNameAction;
use dhow_proto::google::protobuf::value::Kind;
use dhow_proto::xds::core::v3::TypedExtensionConfig;
use dhow_proto::xds::r#type::matcher::v3::Matcher;

use super::fields::unpack;
use crate::metadata::HostMetadata;

const FILTER_STATE: &str = "envoy.extensions.matching.common_inputs.transport_socket.v3.FilterStateInput";

/// A compiled matcher whose actions name entries of `transport_socket_matches`.
#[derive(Debug)]
pub(crate) struct SocketMatcher {
    message: Matcher,
    tree: MatchTree<Box<str>>,
    reads_filter_state: bool,
}

impl PartialEq for SocketMatcher {
    fn eq(&self, other: &Self) -> bool {
        self.message == other.message
    }
}

impl SocketMatcher {
    /// Compiles the message.
    ///
    /// # Errors
    /// As for any tree; inputs are metadata of the endpoint and of its locality, and the filter state that is shared with
    /// connections to hosts.
    pub(crate) fn compile(message: Matcher, path: &FieldPath) -> Result<Self, ConfigError> {
        let reads_filter_state = Cell::new(false);
        let admit = |input: &str| {
            reads_filter_state.set(reads_filter_state.get() || input == FILTER_STATE);
            Ok(())
        };
        let mut options = MatchOptions {
            inputs: InputFamily::Host,
            admit: &admit,
            keep_matching: true,
            expressions: None,
            action: &mut action,
        };
        let tree = MatchTree::compile(&message, path, &mut options)?;
        Ok(Self { message, tree, reads_filter_state: reads_filter_state.get() })
    }

    /// Whether every connection asks anew.
    pub(crate) fn reads_filter_state(&self) -> bool {
        self.reads_filter_state
    }

    /// The name that the tree leads to. `state` gives objects of the filter state as text.
    pub(crate) fn name(
        &self,
        metadata: &HostMetadata,
        state: &dyn Fn(&str) -> Option<Vec<u8>>,
    ) -> Option<&str> {
        self.tree.evaluate(&HostFacts { metadata, state }).action().map(|name| &**name)
    }
}

fn action(message: &TypedExtensionConfig, path: &FieldPath) -> Result<Box<str>, ConfigError> {
    let TypedExtensionConfig { name, typed_config } = message;
    let path = path.field("typed_config");
    let config = typed_config.as_ref().ok_or_else(|| ConfigError::new(path.clone(), "value is required"))?;
    let Some(TransportSocketNameAction { name }) = unpack(config, || path.clone())? else {
        let type_name = any::type_name(&config.type_url);
        let reason =
            format!("Didn't find a registered implementation for '{name}' with type URL: '{type_name}'");
        return Err(ConfigError::new(path, reason));
    };
    Ok(name.into())
}

struct HostFacts<'a> {
    metadata: &'a HostMetadata,
    state: &'a dyn Fn(&str) -> Option<Vec<u8>>,
}

impl MatchData for HostFacts<'_> {
    fn host_metadata(&self, part: HostPart, namespace: &str, path: &[Box<str>], out: &mut Vec<u8>) -> bool {
        let metadata: &Metadata = match part {
            HostPart::Endpoint => &self.metadata.endpoint,
            HostPart::Locality => &self.metadata.locality,
        };
        if *metadata == Metadata::default() {
            return false;
        }
        let mut fields = metadata.filter_metadata.get(namespace);
        let mut found = None;
        for key in path {
            found = fields.and_then(|fields| fields.fields.get(&**key)?.kind.as_ref());
            fields = match found {
                Some(Kind::StructValue(inner)) => Some(inner),
                _ => None,
            };
        }
        match found {
            Some(Kind::StringValue(text)) => out.extend_from_slice(text.as_bytes()),
            kind => append_value(kind, out),
        }
        true
    }

    fn filter_state(&self, key: &str, _field: &str, out: &mut Vec<u8>) -> bool {
        let text = (self.state)(key).filter(|text| !text.is_empty());
        out.extend_from_slice(text.as_deref().unwrap_or_default());
        text.is_some()
    }
}
