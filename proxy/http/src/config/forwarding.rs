//! Where requests come from: `internal_address_config`.

use dhow_base::{ConfigError, FieldPath};
use dhow_matching::CidrSet;
use dhow_proto::envoy::config::core::v3 as core;
use dhow_proto::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager as hcm;

/// The addresses that count as internal; none when nobody does.
pub(super) fn lower_internal(
    config: Option<hcm::InternalAddressConfig>,
    path: &FieldPath,
) -> Result<Option<CidrSet>, ConfigError> {
    /// The ranges that count as internal when the message is there and names none (RFC 1918, RFC 4193).
    const PRIVATE: [(&str, u32); 4] =
        [("10.0.0.0", 8), ("172.16.0.0", 12), ("192.168.0.0", 16), ("fd00::", 8)];
    let Some(hcm::InternalAddressConfig { unix_sockets, cidr_ranges }) = config else { return Ok(None) };
    ConfigError::refuse_if(unix_sockets, path, "unix_sockets")?;
    let ranges = if cidr_ranges.is_empty() {
        let range = |(prefix, len): (&str, u32)| core::CidrRange {
            address_prefix: prefix.into(),
            prefix_len: Some(dhow_proto::google::protobuf::UInt32Value { value: len }),
        };
        PRIVATE.map(range).to_vec()
    } else {
        cidr_ranges
    };
    CidrSet::compile(&ranges, &path.field("cidr_ranges")).map(Some)
}
