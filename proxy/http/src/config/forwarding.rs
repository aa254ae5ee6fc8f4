//! Where requests come from and how that is told: addresses, schemes, request ids, early edits.

use dhow_base::{ConfigError, FieldPath};
use dhow_matching::CidrSet;
use dhow_proto::envoy::config::core::v3 as core;
use dhow_proto::envoy::extensions::filters::network::http_connection_manager::v3 as pb;
use dhow_proto::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager as hcm;
use dhow_proto::envoy::extensions::http::early_header_mutation::header_mutation::v3::HeaderMutation;
use dhow_proto::envoy::extensions::request_id::uuid::v3::UuidRequestIdConfig;
use dhow_routing::HeaderEdit;

use super::{InternalAddresses, SchemeTransformation};

const EARLY_MUTATION: &str = "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation";
const UUID_REQUEST_ID: &str = "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig";

/// The addresses that count as internal; none when nobody does.
pub(super) fn lower_internal(
    config: Option<hcm::InternalAddressConfig>,
    path: &FieldPath,
) -> Result<Option<InternalAddresses>, ConfigError> {
    /// The ranges that count as internal when the message is there and names none (RFC 1918, RFC 4193),
    /// and this machine.
    const PRIVATE: [(&str, u32); 6] = [
        ("10.0.0.0", 8),
        ("172.16.0.0", 12),
        ("192.168.0.0", 16),
        ("127.0.0.1", 32),
        ("fd00::", 8),
        ("::1", 128),
    ];
    let Some(hcm::InternalAddressConfig { unix_sockets, cidr_ranges }) = config else { return Ok(None) };
    let ranges = if cidr_ranges.is_empty() {
        let range = |(prefix, len): (&str, u32)| core::CidrRange {
            address_prefix: prefix.into(),
            prefix_len: Some(dhow_proto::google::protobuf::UInt32Value { value: len }),
        };
        PRIVATE.map(range).to_vec()
    } else {
        cidr_ranges
    };
    let ranges = CidrSet::compile(&ranges, &path.field("cidr_ranges"))?;
    Ok(Some(InternalAddresses { ranges, unix_sockets }))
}

/// `early_header_mutation_extensions`: the edits of all extensions, in order.
pub(super) fn lower_early_mutations(
    extensions: Vec<core::TypedExtensionConfig>,
    path: &FieldPath,
) -> Result<Box<[HeaderEdit]>, ConfigError> {
    let mut edits = Vec::new();
    for (i, extension) in extensions.into_iter().enumerate() {
        let path = path.index(i).field("typed_config");
        let core::TypedExtensionConfig { name, typed_config } = extension;
        let config = typed_config.unwrap_or_default();
        if dhow_proto::any::type_name(&config.type_url) != EARLY_MUTATION {
            return Err(ConfigError::new(
                path,
                format!("Early header mutation extension not found: '{name}'"),
            ));
        }
        let HeaderMutation { mutations } =
            dhow_proto::any::unpack(&config).map_err(|error| error.under(&path))?;
        let path = path.field("mutations");
        for (i, mutation) in mutations.iter().enumerate() {
            edits.push(HeaderEdit::compile(mutation, &path.index(i))?);
        }
    }
    Ok(edits.into())
}

/// `scheme_header_transformation`.
pub(super) fn lower_scheme(transformation: Option<core::SchemeHeaderTransformation>) -> SchemeTransformation {
    use core::scheme_header_transformation::Transformation;
    let core::SchemeHeaderTransformation { match_upstream, transformation } =
        transformation.unwrap_or_default();
    SchemeTransformation {
        overwrite: transformation.map(|Transformation::SchemeToOverwrite(scheme)| scheme.into_bytes().into()),
        match_upstream,
    }
}

/// `request_id_extension`: ids are UUIDs. The trace reason is packed into ids of traced requests only.
pub(super) fn check_request_id_extension(
    extension: Option<pb::RequestIdExtension>,
    path: &FieldPath,
) -> Result<(), ConfigError> {
    let Some(pb::RequestIdExtension { typed_config: Some(config) }) = extension else { return Ok(()) };
    let path = path.field("typed_config");
    match dhow_proto::any::type_name(&config.type_url) {
        UUID_REQUEST_ID => {
            // Both concern the sampling of traces, of which there are none.
            let UuidRequestIdConfig { pack_trace_reason: _, use_request_id_for_trace_sampling: _ } =
                dhow_proto::any::unpack(&config).map_err(|error| error.under(&path))?;
            Ok(())
        }
        other => {
            let reason = format!("Didn't find a registered implementation for type: '{other}'");
            Err(ConfigError::new(path, reason))
        }
    }
}
