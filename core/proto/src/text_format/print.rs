//! From the wire to protobuf's text format, as its own printer writes it.

use std::fmt::Write;

use crate::any::type_name;
use crate::check::any_parts;
use crate::tables::{FieldType, Kind, MessageType, WellKnown};
use crate::wire::{Fields, Malformed, WireValue, unzigzag};

use super::MAX_DEPTH;

/// The fields of a message, one a line, in the order of their numbers.
pub(crate) fn print(message: MessageType, bytes: &[u8]) -> Result<String, Malformed> {
    let mut printer = Printer { out: String::new(), depth: 0 };
    printer.fields(message, bytes)?;
    Ok(printer.out)
}

struct Printer {
    out: String,
    depth: usize,
}

impl Printer {
    fn fields(&mut self, message: MessageType, bytes: &[u8]) -> Result<(), Malformed> {
        if self.depth >= MAX_DEPTH {
            return Ok(());
        }
        if message.well_known() == Some(WellKnown::Any) && self.expanded_any(bytes)? {
            return Ok(());
        }
        let mut occurrences = Vec::new();
        for field in Fields::new(bytes) {
            let (number, value) = field?;
            occurrences.extend(message.field_by_number(number).map(|field| (field, value)));
        }
        occurrences.sort_by_key(|(field, _)| field.number());
        occurrences.into_iter().try_for_each(|(field, value)| self.field(field, value))
    }

    fn field(&mut self, field: FieldType, value: WireValue<'_>) -> Result<(), Malformed> {
        match (field.kind(), value) {
            (Kind::Message(target), WireValue::Bytes(bytes)) => self.block(field.name(), target, bytes),
            (Kind::String | Kind::Bytes, WireValue::Bytes(text)) => {
                self.start(field.name());
                self.quoted(text);
                Ok(())
            }
            (kind, WireValue::Bytes(mut packed)) => {
                while !packed.is_empty() {
                    let value = crate::json::unpack(kind, &mut packed)?;
                    self.scalar(field.name(), kind, value)?;
                }
                Ok(())
            }
            (kind, value) => self.scalar(field.name(), kind, value),
        }
    }

    fn block(&mut self, name: &str, target: MessageType, bytes: &[u8]) -> Result<(), Malformed> {
        self.indent();
        self.out.push_str(name);
        self.out.push_str(" {\n");
        self.depth += 1;
        self.fields(target, bytes)?;
        self.depth -= 1;
        self.indent();
        self.out.push_str("}\n");
        Ok(())
    }

    /// `[type.googleapis.com/full.Name] { ... }`, for a type that is known.
    fn expanded_any(&mut self, bytes: &[u8]) -> Result<bool, Malformed> {
        let (type_url, payload) = any_parts(bytes)?;
        let Some(target) = MessageType::find(type_name(type_url)) else { return Ok(false) };
        self.block(&format!("[{type_url}]"), target, payload)?;
        Ok(true)
    }

    fn scalar(&mut self, name: &str, kind: Kind, value: WireValue<'_>) -> Result<(), Malformed> {
        let text = match (kind, value) {
            (Kind::Double, WireValue::Fixed64(bits)) => f64::from_bits(bits).to_string(),
            (Kind::Float, WireValue::Fixed32(bits)) => f32::from_bits(bits).to_string(),
            (Kind::Fixed32, WireValue::Fixed32(bits)) => bits.to_string(),
            (Kind::Sfixed32, WireValue::Fixed32(bits)) => (bits as i32).to_string(),
            (Kind::Fixed64, WireValue::Fixed64(bits)) => bits.to_string(),
            (Kind::Sfixed64, WireValue::Fixed64(bits)) => (bits as i64).to_string(),
            (Kind::Bool, WireValue::Varint(bits)) => (bits != 0).to_string(),
            (Kind::Int32, WireValue::Varint(bits)) => (bits as i32).to_string(),
            (Kind::Int64, WireValue::Varint(bits)) => (bits as i64).to_string(),
            (Kind::Uint32 | Kind::Uint64, WireValue::Varint(bits)) => bits.to_string(),
            (Kind::Sint32 | Kind::Sint64, WireValue::Varint(bits)) => unzigzag(bits).to_string(),
            (Kind::Enum(enumeration), WireValue::Varint(bits)) => {
                match enumeration.value_by_number(bits as i32) {
                    Some(value) => value.name.to_owned(),
                    None => (bits as i32).to_string(),
                }
            }
            _ => return Err(Malformed),
        };
        self.start(name);
        self.out.push_str(&text);
        self.out.push('\n');
        Ok(())
    }

    fn start(&mut self, name: &str) {
        self.indent();
        self.out.push_str(name);
        self.out.push_str(": ");
    }

    fn indent(&mut self) {
        self.out.extend(std::iter::repeat_n("  ", self.depth));
    }

    /// A string in quotes with the escapes of C; bytes beyond ASCII in octal.
    fn quoted(&mut self, text: &[u8]) {
        self.out.push('"');
        for &byte in text {
            match byte {
                b'\n' => self.out.push_str("\\n"),
                b'\r' => self.out.push_str("\\r"),
                b'\t' => self.out.push_str("\\t"),
                b'"' | b'\'' | b'\\' => {
                    self.out.push('\\');
                    self.out.push(char::from(byte));
                }
                b' '..=b'~' => self.out.push(char::from(byte)),
                // Writing to a string does not fail.
                _ => {
                    let _ = write!(self.out, "\\{byte:03o}");
                }
            }
        }
        self.out.push_str("\"\n");
    }
}

#[cfg(test)]
mod tests {
    use super::print;
    use crate::tables::MessageType;
    use crate::text_format::encode;

    #[test]
    fn what_is_read_is_printed_in_the_order_of_numbers() {
        let text = "case_sensitive { value: false }\nprefix: \"/a\\\"\\n\\303\\244\"\n\
                    headers { invert_match: true name: \":method\" range_match { start: -1 end: 7 } }\n\
                    runtime_fraction { default_value { numerator: 5 denominator: MILLION } }\n";
        let message = MessageType::find("envoy.config.route.v3.RouteMatch").expect("known");
        let bytes = encode(message, text).expect("valid");
        let printed = print(message, &bytes).expect("encoded");
        let expected = r#"prefix: "/a\"\n\303\244"
case_sensitive {
  value: false
}
headers {
  name: ":method"
  range_match {
    start: -1
    end: 7
  }
  invert_match: true
}
runtime_fraction {
  default_value {
    numerator: 5
    denominator: MILLION
  }
}
"#;
        assert_eq!(printed, expected);
        assert_eq!(print(message, &encode(message, &printed).expect("valid")).expect("encoded"), printed);
    }

    #[test]
    fn known_extensions_are_expanded() {
        let text = "name: \"t\"\ntyped_config {\n  [type.googleapis.com/google.protobuf.UInt32Value] {\n    value: 3\n  }\n}\n";
        let message = MessageType::find("envoy.config.core.v3.TypedExtensionConfig").expect("known");
        let bytes = encode(message, text).expect("valid");
        assert_eq!(print(message, &bytes).expect("encoded"), text);
    }
}
