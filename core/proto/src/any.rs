//! `google.protobuf.Any`: messages that carry their type with them.

use std::borrow::Cow;

use dhow_base::{ConfigError, FieldPath};
use envoy_types::pb::google::protobuf::Any;
use prost::{Message, Name};
use serde_json::Value as Json;

use crate::json::{JsonReader, PrintOptions, Printer};
use crate::supplement::TypedStruct;
use crate::tables::MessageType;

const TYPE_URL_PREFIX: &str = "type.googleapis.com/";

/// The two names of the structure that stands for a message.
const TYPED_STRUCTS: [&str; 2] = ["xds.type.v3.TypedStruct", "udpa.type.v1.TypedStruct"];

/// Packs a message under its own type.
pub fn pack<M: Name>(message: &M) -> Any {
    Any { type_url: type_url(&M::full_name()), value: message.encode_to_vec() }
}

/// Packs an encoded message under a full type name.
pub fn pack_encoded(type_name: &str, value: Vec<u8>) -> Any {
    Any { type_url: type_url(type_name), value }
}

/// The type URL of a full type name.
pub fn type_url(type_name: &str) -> String {
    format!("{TYPE_URL_PREFIX}{type_name}")
}

/// The full type name in a type URL: what follows the last slash, or all of it.
pub fn type_name(type_url: &str) -> &str {
    type_url.rsplit_once('/').map_or(type_url, |(_, name)| name)
}

/// True when the tables describe the type.
pub fn is_known_type(type_url: &str) -> bool {
    MessageType::of_url(type_url).is_some()
}

/// True when `any` holds a structure that stands for a message.
pub(crate) fn is_typed_struct(any: &Any) -> bool {
    TYPED_STRUCTS.contains(&type_name(&any.type_url))
}

/// True when `any` holds an `M`, as itself or as a typed structure.
pub fn is<M: Name>(any: &Any) -> bool {
    resolve(any).is_ok_and(|resolved| resolved.type_name == M::full_name())
}

/// The message inside of an `Any`.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved<'a> {
    /// Full type name.
    pub type_name: String,
    /// The encoded message.
    pub value: Cow<'a, [u8]>,
}

/// What an `Any` holds, with a typed structure (`xds.type.v3.TypedStruct`, `udpa.type.v1.TypedStruct`) turned into the
/// message that it stands for. Extension factories are looked up by the name returned here.
///
/// # Errors
/// A typed structure that does not fit the type that it names.
pub fn resolve(any: &Any) -> Result<Resolved<'_>, ConfigError> {
    let name = type_name(&any.type_url);
    if !TYPED_STRUCTS.contains(&name) {
        return Ok(Resolved { type_name: name.to_owned(), value: Cow::Borrowed(&any.value) });
    }
    let typed = TypedStruct::decode(any.value.as_slice())
        .map_err(|error| ConfigError::new(FieldPath::root().field("value"), error.to_string()))?;
    let type_name = type_name(&typed.type_url).to_owned();
    let Some(target) = MessageType::find(&type_name) else {
        let reason = format!("could not find @type '{}'", typed.type_url);
        return Err(ConfigError::new(FieldPath::root().field("type_url"), reason));
    };
    let fields = match typed.value {
        Some(fields) => {
            let printer = Printer::new(PrintOptions { redact: false, ..PrintOptions::default() });
            let structure = MessageType::find("google.protobuf.Struct");
            structure.and_then(|structure| printer.print(structure, &fields.encode_to_vec()).ok())
        }
        None => None,
    };
    let fields = fields.unwrap_or_else(|| Json::Object(serde_json::Map::new()));
    let outcome = JsonReader::new(target, false).read(&fields)?;
    Ok(Resolved { type_name, value: Cow::Owned(outcome.bytes) })
}

/// Unpacks an `M`, also out of a typed structure.
///
/// # Errors
/// The type is another one, or the bytes are not a message of it; the path is relative to the `Any`.
pub fn unpack<M: Name + Default>(any: &Any) -> Result<M, ConfigError> {
    let resolved = resolve(any)?;
    let wanted = M::full_name();
    if resolved.type_name != wanted {
        let reason = format!("Unable to unpack as {wanted}: the type URL is '{}'", any.type_url);
        return Err(ConfigError::at_root(reason));
    }
    M::decode(&*resolved.value)
        .map_err(|error| ConfigError::at_root(format!("Unable to unpack as {wanted}: {error}")))
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::config::core::v3::SocketAddress;
    use envoy_types::pb::google::protobuf::{Any, Struct, Value, value::Kind};
    use prost::Message;

    use super::{is, is_known_type, pack, pack_encoded, resolve, unpack};
    use crate::supplement::TypedStruct;

    #[test]
    fn a_message_comes_out_as_it_went_in() {
        let address = SocketAddress { address: "127.0.0.1".to_owned(), ..SocketAddress::default() };
        let any = pack(&address);
        assert_eq!(any.type_url, "type.googleapis.com/envoy.config.core.v3.SocketAddress");
        assert!(is::<SocketAddress>(&any) && is_known_type(&any.type_url));
        assert_eq!(unpack::<SocketAddress>(&any), Ok(address));
    }

    #[test]
    fn another_type_is_refused_by_name() {
        let error = unpack::<SocketAddress>(&pack(&Struct::default())).expect_err("a structure");
        assert!(error.reason.contains("Unable to unpack as envoy.config.core.v3.SocketAddress"), "{error}");
        assert!(error.reason.contains("google.protobuf.Struct"), "{error}");
    }

    #[test]
    fn both_typed_structures_stand_for_their_message() {
        let text = Value { kind: Some(Kind::StringValue("10.0.0.1".to_owned())) };
        let port = Value { kind: Some(Kind::NumberValue(80.0)) };
        let fields = [("address".to_owned(), text), ("portValue".to_owned(), port)].into_iter().collect();
        let typed = TypedStruct {
            type_url: "type.googleapis.com/envoy.config.core.v3.SocketAddress".to_owned(),
            value: Some(Struct { fields }),
        };
        for name in super::TYPED_STRUCTS {
            let any = pack_encoded(name, typed.encode_to_vec());
            assert!(is_known_type(&any.type_url), "{name}");
            let address: SocketAddress = unpack(&any).expect(name);
            assert_eq!(address.address, "10.0.0.1");
            assert!(address.port_specifier.is_some());
        }
    }

    #[test]
    fn a_typed_structure_of_an_unknown_type_or_field_is_an_error_with_its_place() {
        let typed = |type_url: &str, field: &str| {
            let fields =
                [(field.to_owned(), Value { kind: Some(Kind::BoolValue(true)) })].into_iter().collect();
            let typed = TypedStruct { type_url: type_url.to_owned(), value: Some(Struct { fields }) };
            pack_encoded(super::TYPED_STRUCTS[0], typed.encode_to_vec())
        };
        let error = resolve(&typed("type.googleapis.com/no.Such", "a")).map(drop).expect_err("unknown type");
        assert_eq!(error.path.as_str(), "type_url");
        let any = typed("type.googleapis.com/envoy.config.core.v3.SocketAddress", "adress");
        let error = resolve(&any).map(drop).expect_err("unknown field");
        assert_eq!(error.path.as_str(), "adress");
        assert_eq!(error.hint.as_deref(), Some("did you mean 'address'?"));
    }

    #[test]
    fn damaged_bytes_are_an_error() {
        let any = Any { value: vec![0xff], ..pack(&SocketAddress::default()) };
        assert!(unpack::<SocketAddress>(&any).is_err());
    }
}
