//! Typed structures (`xds.type.v3.TypedStruct`, `udpa.type.v1.TypedStruct`) in place of the messages that they stand for.

use dhow_base::{ConfigError, FieldPath};
use prost::{Message, Name};

use crate::any::{is_typed_struct, resolve, type_name};
use crate::check::{CheckOptions, any_parts, check_encoded};
use crate::supplement::TypedStruct;
use crate::tables::{Kind, MessageType};
use crate::wire::{Fields, Malformed, WireValue, put_bytes, put_value};
use envoy_types::pb::google::protobuf::Any;

/// What is in every name of a typed structure, and hardly ever anywhere else.
const NAME: &[u8] = b".TypedStruct";

/// Puts the message that it stands for in the place of every typed structure in `message`, so that whoever takes an extension finds
/// it there. One that names a type which is not known becomes an empty message of that type, for the words of whoever looks for it.
///
/// # Errors
/// A structure that does not fit its type, or breaks the rules of it; the path leads there from `message`.
pub fn open_typed_structs<M: Name + Default>(message: M) -> Result<M, ConfigError> {
    let Some(described) = MessageType::find(&M::full_name()) else { return Ok(message) };
    let bytes = message.encode_to_vec();
    if !bytes.windows(NAME.len()).any(|window| window == NAME) {
        return Ok(message);
    }
    let opened = open(described, &bytes, &mut FieldPath::root())?;
    M::decode(opened.as_slice()).map_err(|error| ConfigError::at_root(error.to_string()))
}

fn open(message: MessageType, bytes: &[u8], path: &mut FieldPath) -> Result<Vec<u8>, ConfigError> {
    let malformed = |path: &FieldPath, error: Malformed| ConfigError::new(path.clone(), error.to_string());
    if message.full_name() == "google.protobuf.Any" {
        let (type_url, value) = any_parts(bytes).map_err(|error| malformed(path, error))?;
        let any = Any { type_url: type_url.to_owned(), value: value.to_vec() };
        return open_any(any, path).map(|any| any.encode_to_vec());
    }
    let mut out = Vec::with_capacity(bytes.len());
    let mut seen = Vec::new();
    for field in Fields::new(bytes) {
        let (number, value) = field.map_err(|error| malformed(path, error))?;
        let field = message.field_by_number(number);
        let (Some(field), WireValue::Bytes(inner)) = (field, value) else {
            put_value(&mut out, number, value);
            continue;
        };
        let Kind::Message(target) = field.kind() else {
            put_value(&mut out, number, value);
            continue;
        };
        let mark = path.mark();
        path.push_field(field.name());
        if field.is_repeated() {
            let index = seen.iter().filter(|&&other| other == number).count();
            path.push_index(index);
            seen.push(number);
        }
        put_bytes(&mut out, number, &open(target, inner, path)?);
        path.rewind(mark);
    }
    Ok(out)
}

fn open_any(any: Any, path: &mut FieldPath) -> Result<Any, ConfigError> {
    let mut any = any;
    if is_typed_struct(&any) {
        let typed = TypedStruct::decode(any.value.as_slice())
            .map_err(|error| ConfigError::new(path.clone(), error.to_string()))?;
        let Some(target) = MessageType::find(type_name(&typed.type_url)) else {
            return Ok(Any { type_url: typed.type_url, value: Vec::new() });
        };
        let value = resolve(&any).map_err(|error| error.under(path))?.value.into_owned();
        let options = CheckOptions { reject_unknown_fields: true, ..CheckOptions::default() };
        check_encoded(target, &value, &options).map_err(|error| error.under(path))?;
        any = Any { type_url: crate::any::type_url(target.full_name()), value };
    }
    match MessageType::of_url(&any.type_url) {
        Some(payload) => Ok(Any { value: open(payload, &any.value, path)?, ..any }),
        None => Ok(any),
    }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::config::listener::v3::{Filter, FilterChain, Listener, filter};
    use serde_json::json;

    use super::open_typed_structs;
    use crate::LoadOptions;

    const TCP_PROXY: &str = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";

    fn listener(type_url: &str, value: serde_json::Value) -> Listener {
        let filter = json!({"name": "t", "typed_config": {
            "@type": "type.googleapis.com/udpa.type.v1.TypedStruct", "type_url": type_url, "value": value}});
        let text = json!({"address": {"pipe": {"path": "@a"}}, "filter_chains": [{"filters": [filter]}]});
        crate::load_json(&text.to_string(), &LoadOptions::default()).expect("it is read").message
    }

    fn type_url(listener: &Listener) -> &str {
        let [FilterChain { filters, .. }] = &listener.filter_chains[..] else { panic!("one chain") };
        match &filters[..] {
            [Filter { config_type: Some(filter::ConfigType::TypedConfig(any)), .. }] => &any.type_url,
            _ => panic!("one filter"),
        }
    }

    #[test]
    fn a_structure_gives_way_to_its_message() {
        for url in [TCP_PROXY, TCP_PROXY.rsplit('/').next().unwrap()] {
            let opened = open_typed_structs(listener(url, json!({"stat_prefix": "t", "cluster": "c"})))
                .expect("it fits");
            assert_eq!(type_url(&opened), TCP_PROXY);
        }
    }

    #[test]
    fn a_type_that_is_not_known_is_left_to_whoever_looks_for_it() {
        let opened = open_typed_structs(listener("x/nope", json!({"a": 1}))).expect("it is nobody's yet");
        assert_eq!(type_url(&opened), "x/nope");
    }

    #[test]
    fn what_does_not_fit_is_found_by_its_path() {
        let at = "filter_chains[0].filters[0].typed_config";
        for (value, path, reason) in [
            (json!({"stat_prefix": "t", "nope": 1}), format!("{at}.nope"), "no such field: 'nope'"),
            (
                json!({"cluster": "c"}),
                format!("{at}.stat_prefix"),
                "value length must be at least 1 characters",
            ),
        ] {
            let error = open_typed_structs(listener(TCP_PROXY, value)).expect_err("it does not fit");
            assert_eq!(error.path.as_str(), path);
            assert!(error.reason.contains(reason), "{error}");
        }
    }
}
