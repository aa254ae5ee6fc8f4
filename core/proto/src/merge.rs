//! Protobuf's merge, on the wire.

use crate::tables::{FieldType, Kind, MessageType};
use crate::wire::{Fields, Malformed, WireValue, put_bytes, put_value};

/// Rewrites the concatenation of several encodings of a message so that each singular message field occurs once and of
/// each oneof only the last member is left: what a decoder would make of it, unknown fields kept.
pub(crate) fn merge(message: MessageType, concatenated: &[u8]) -> Result<Vec<u8>, Malformed> {
    let occurrences = Fields::new(concatenated)
        .map(|field| field.map(|(number, value)| (number, message.field_by_number(number), value)))
        .collect::<Result<Vec<_>, _>>()?;
    let mut out = Vec::with_capacity(concatenated.len());
    for (index, &(number, field, value)) in occurrences.iter().enumerate() {
        let later = || occurrences[index + 1..].iter().filter_map(|&(_, later, _)| later);
        let Some(field) = field else {
            put_value(&mut out, number, value);
            continue;
        };
        if later().any(|other| other != field && same_oneof(field, other)) {
            continue;
        }
        let Kind::Message(target) = field.kind() else {
            put_value(&mut out, number, value);
            continue;
        };
        if field.is_repeated() {
            put_value(&mut out, number, value);
        } else if later().all(|other| other != field) {
            let start = start_of(field, &occurrences[..index]);
            let parts = occurrences[start..=index].iter().filter(|(_, other, _)| *other == Some(field));
            let mut whole = Vec::new();
            for &(_, _, part) in parts {
                let WireValue::Bytes(part) = part else { return Err(Malformed) };
                whole.extend_from_slice(part);
            }
            put_bytes(&mut out, number, &merge(target, &whole)?);
        }
    }
    Ok(out)
}

/// A message field of a oneof starts anew when another member was set in between.
fn start_of(field: FieldType, before: &[(u32, Option<FieldType>, WireValue<'_>)]) -> usize {
    let other_member = |occurrence: &(u32, Option<FieldType>, WireValue<'_>)| {
        occurrence.1.is_some_and(|other| other != field && same_oneof(field, other))
    };
    before.iter().rposition(other_member).map_or(0, |position| position + 1)
}

fn same_oneof(left: FieldType, right: FieldType) -> bool {
    left.oneof().is_some() && left.oneof() == right.oneof()
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::config::cluster::v3::Cluster;
    use prost::Message;
    use serde_json::json;

    use super::merge;
    use crate::json::JsonReader;
    use crate::tables::MessageType;
    use crate::wire::put_uint;

    #[test]
    fn merging_agrees_with_the_decoder_and_keeps_unknown_fields() {
        let cluster = MessageType::find("envoy.config.cluster.v3.Cluster").expect("known");
        let mut bytes = Vec::new();
        for part in [
            json!({"name": "a", "type": "EDS", "connect_timeout": "1s", "health_checks": [{"timeout": "1s"}],
                   "common_lb_config": {"update_merge_window": "1s"}}),
            json!({"cluster_type": {"name": "old"}}),
            json!({"type": "STATIC"}),
            json!({"name": "b", "cluster_type": {"name": "new"}, "health_checks": [{"timeout": "2s"}],
                   "connect_timeout": "0.5s", "common_lb_config": {"close_connections_on_host_set_change": true}}),
        ] {
            bytes.extend(JsonReader::new(cluster, false).read(&part).expect("valid").bytes);
        }
        put_uint(&mut bytes, 9999, 7);
        let merged = merge(cluster, &bytes).expect("well formed");
        assert_eq!(Cluster::decode(merged.as_slice()), Cluster::decode(bytes.as_slice()));
        let numbers: Vec<u32> =
            crate::wire::Fields::new(&merged).map(|field| field.expect("well formed").0).collect();
        let count = |wanted| numbers.iter().filter(|&&number| number == wanted).count();
        let number = |name: &str| cluster.field_by_name(name).expect("declared").number();
        assert_eq!(count(number("common_lb_config")), 1);
        assert_eq!(count(number("type")), 0, "replaced by the other member of the oneof");
        assert_eq!(count(number("cluster_type")), 1);
        assert_eq!(count(number("health_checks")), 2);
        assert_eq!(count(9999), 1);
    }

    #[test]
    fn damaged_bytes_are_an_error() {
        let cluster = MessageType::find("envoy.config.cluster.v3.Cluster").expect("known");
        assert!(merge(cluster, &[0x0a]).is_err());
    }
}
