//! Sizes of consistent-hash tables.

use dhow_base::{ConfigError, FieldPath};
use dhow_proto::google::protobuf::UInt64Value;

use crate::lb::{HashFunction, TableConfig};

const MAX_RING_SIZE: u64 = 8 << 20;
const MAX_TABLE_SIZE: u64 = 5_000_011;

pub(super) fn ring(
    minimum: Option<UInt64Value>,
    maximum: Option<UInt64Value>,
    function: HashFunction,
    by_hostname: bool,
) -> Result<TableConfig, ConfigError> {
    let minimum = minimum.map_or(1024, |size| size.value);
    let maximum = maximum.map_or(MAX_RING_SIZE, |size| size.value);
    if minimum > maximum {
        let reason = format!("ring hash: minimum_ring_size ({minimum}) > maximum_ring_size ({maximum})");
        return Err(ConfigError::at_root(reason));
    }
    // The rules of `load_balancing_policy` are not looked at, and a ring of any size would be built.
    if minimum > MAX_RING_SIZE {
        let reason = format!("value must be less than or equal to {MAX_RING_SIZE}");
        return Err(ConfigError::new(FieldPath::root().field("minimum_ring_size"), reason));
    }
    Ok(TableConfig::Ring { minimum, maximum, function, by_hostname })
}

pub(super) fn maglev(size: Option<UInt64Value>, by_hostname: bool) -> Result<TableConfig, ConfigError> {
    let size = size.map_or(65_537, |size| size.value);
    let is_prime = size > 1
        && (2..).take_while(|factor| factor * factor <= size).all(|factor| !size.is_multiple_of(factor));
    let path = FieldPath::root().field("table_size");
    if !is_prime {
        return Err(ConfigError::new(path, "The table size of maglev must be prime number"));
    }
    if size > MAX_TABLE_SIZE {
        return Err(ConfigError::new(path, "value must be less than or equal to 5000011"));
    }
    Ok(TableConfig::Maglev { size, by_hostname })
}
