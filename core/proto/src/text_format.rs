//! Protobuf's text format, to the wire: `.pb_text` configurations. The way back is in `print.rs`.

mod lexer;
mod print;

use dhow_base::{ConfigError, FieldPath};
use lexer::{Lexer, Token};
pub(crate) use print::print;
use serde_json::Value as Json;

use crate::any::type_name;
use crate::json::{ScalarError, put_scalar};
use crate::tables::{FieldType, Kind, MessageType, WellKnown};
use crate::wire::{WireType, put_bytes, put_tag, put_varint};

const MAX_DEPTH: usize = 100;

/// Encodes a message in text format.
///
/// # Errors
/// The first thing that is not text format or not a field of the type, with its line.
pub(crate) fn encode(message: MessageType, text: &str) -> Result<Vec<u8>, ConfigError> {
    let mut reader = Reader { lexer: Lexer::new(text), path: FieldPath::root(), depth: 0 };
    let bytes = reader.fields(message, None)?;
    Ok(bytes)
}

struct Reader<'a> {
    lexer: Lexer<'a>,
    path: FieldPath,
    depth: usize,
}

impl Reader<'_> {
    /// The fields up to `end` (the end of the text for `None`).
    fn fields(&mut self, message: MessageType, end: Option<char>) -> Result<Vec<u8>, ConfigError> {
        if self.depth >= MAX_DEPTH {
            return Err(self.error("the message is nested too deeply"));
        }
        self.depth += 1;
        let mut out = Vec::new();
        let mut counts: Vec<(FieldType, usize)> = Vec::new();
        loop {
            match (self.next()?, end) {
                (Token::End, None) => break,
                (Token::Symbol(symbol), Some(end)) if symbol == end => break,
                (Token::Symbol(',' | ';'), _) => {}
                (Token::Symbol('['), _) if message.well_known() == Some(WellKnown::Any) => {
                    self.expanded_any(&mut out)?;
                }
                (Token::Word(name), _) => {
                    let Some(field) = message.field_by_name(&name).filter(|field| field.name() == name)
                    else {
                        let reason = format!(
                            "Message type \"{}\" has no field named \"{name}\".",
                            message.full_name()
                        );
                        return Err(self.error(&reason));
                    };
                    let count = match counts.iter_mut().find(|(seen, _)| *seen == field) {
                        Some((_, count)) => count,
                        None => {
                            counts.push((field, 0));
                            let last = counts.len() - 1;
                            &mut counts[last].1
                        }
                    };
                    self.field(field, count, &mut out)?;
                }
                (token, _) => return Err(self.unexpected(&token, "a field name")),
            }
        }
        self.depth -= 1;
        Ok(out)
    }

    fn field(&mut self, field: FieldType, count: &mut usize, out: &mut Vec<u8>) -> Result<(), ConfigError> {
        let mark = self.path.mark();
        self.path.push_field(field.name());
        let mut token = self.next()?;
        let colon = token == Token::Symbol(':');
        if colon {
            token = self.next()?;
        } else if !matches!(field.kind(), Kind::Message(_)) {
            return Err(self.unexpected(&token, "\":\""));
        }
        if token == Token::Symbol('[') && field.is_repeated() {
            loop {
                match self.next()? {
                    Token::Symbol(']') => break,
                    Token::Symbol(',') => {}
                    token => self.element(field, count, token, out)?,
                }
            }
        } else {
            self.element(field, count, token, out)?;
        }
        self.path.rewind(mark);
        Ok(())
    }

    fn element(
        &mut self,
        field: FieldType,
        count: &mut usize,
        token: Token,
        out: &mut Vec<u8>,
    ) -> Result<(), ConfigError> {
        let mark = self.path.mark();
        if field.is_repeated() {
            self.path.push_index(*count);
            *count += 1;
        }
        match (field.kind(), token) {
            (Kind::Message(target), Token::Symbol(opening @ ('{' | '<'))) => {
                let body = self.fields(target, Some(if opening == '{' { '}' } else { '>' }))?;
                put_bytes(out, field.number(), &body);
            }
            (Kind::Message(_), token) => return Err(self.unexpected(&token, "\"{\"")),
            (Kind::String | Kind::Bytes, Token::Text(mut bytes)) => {
                while let Token::Text(more) = self.lexer.peek().map_err(|reason| self.error(&reason))? {
                    bytes.extend_from_slice(&more);
                    self.next()?;
                }
                if field.kind() == Kind::String && std::str::from_utf8(&bytes).is_err() {
                    return Err(self.error("the string is not UTF-8"));
                }
                put_bytes(out, field.number(), &bytes);
            }
            (Kind::String | Kind::Bytes, token) => return Err(self.unexpected(&token, "a string")),
            (kind, token) => {
                let value = scalar_value(kind, &token).ok_or_else(|| self.unexpected(&token, "a value"))?;
                put_scalar(out, field.number(), kind, &value, false).map_err(|error| match error {
                    ScalarError::Wrong(reason) => self.error(&reason),
                    ScalarError::UnknownEnumValue(name) => {
                        self.error(&format!("unknown enum value: '{name}'"))
                    }
                })?;
            }
        }
        self.path.rewind(mark);
        Ok(())
    }

    /// `[type.googleapis.com/full.Name] { ... }`, the opening bracket already taken.
    fn expanded_any(&mut self, out: &mut Vec<u8>) -> Result<(), ConfigError> {
        let mut type_url = String::new();
        loop {
            match self.next()? {
                Token::Symbol(']') => break,
                Token::Word(part) => type_url.push_str(&part),
                Token::Symbol('/') => type_url.push('/'),
                token => return Err(self.unexpected(&token, "a type URL")),
            }
        }
        let Some(payload) = MessageType::find(type_name(&type_url)) else {
            return Err(self.error(&format!("could not find @type '{type_url}'")));
        };
        let mut token = self.next()?;
        if token == Token::Symbol(':') {
            token = self.next()?;
        }
        let end = match token {
            Token::Symbol('{') => '}',
            Token::Symbol('<') => '>',
            token => return Err(self.unexpected(&token, "\"{\"")),
        };
        let body = self.fields(payload, Some(end))?;
        put_bytes(out, 1, type_url.as_bytes());
        put_tag(out, 2, WireType::Bytes);
        put_varint(out, body.len() as u64);
        out.extend_from_slice(&body);
        Ok(())
    }

    fn next(&mut self) -> Result<Token, ConfigError> {
        self.lexer.next().map_err(|reason| self.error(&reason))
    }

    fn unexpected(&self, token: &Token, wanted: &str) -> ConfigError {
        self.error(&format!("Expected {wanted}, found {token}"))
    }

    fn error(&self, reason: &str) -> ConfigError {
        let reason = format!("Unable to parse the text format (line {}: {reason})", self.lexer.line());
        ConfigError::new(self.path.clone(), reason)
    }
}

/// The token as JSON would write it, for the scalar rules that both forms share.
fn scalar_value(kind: Kind, token: &Token) -> Option<Json> {
    let Token::Word(word) = token else { return None };
    Some(match kind {
        Kind::Bool => match word.as_str() {
            "true" | "True" | "t" | "1" => Json::Bool(true),
            "false" | "False" | "f" | "0" => Json::Bool(false),
            _ => return None,
        },
        Kind::Float | Kind::Double => Json::String(match word.to_ascii_lowercase().as_str() {
            "inf" | "infinity" => "Infinity".to_owned(),
            "-inf" | "-infinity" => "-Infinity".to_owned(),
            "nan" => "NaN".to_owned(),
            number => number.trim_end_matches('f').to_owned(),
        }),
        Kind::Enum(_) => Json::String(word.clone()),
        _ => {
            let (sign, digits) = word.strip_prefix('-').map_or(("", word.as_str()), |digits| ("-", digits));
            let (radix, digits) = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
                Some(digits) => (16, digits),
                None if digits.len() > 1 && digits.starts_with('0') => (8, &digits[1..]),
                None => (10, digits),
            };
            let magnitude = u64::from_str_radix(digits, radix).ok()?;
            Json::String(format!("{sign}{magnitude}"))
        }
    })
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::config::bootstrap::v3::Bootstrap;
    use prost::Message;

    use super::encode;
    use crate::tables::MessageType;

    fn bootstrap() -> MessageType {
        MessageType::find("envoy.config.bootstrap.v3.Bootstrap").expect("known")
    }

    #[test]
    fn a_bootstrap_in_text_format_is_read() {
        let text = r#"
            # comment
            node { id: "a" "b"; cluster: 'c\n\x41\101' }
            static_resources <
              clusters { name: "x" lb_policy: RANDOM connect_timeout { nanos: 0x10 } }
              clusters: { name: "y", dns_lookup_family: 1
                transport_socket { name: "t" typed_config {
                  [type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer] {} } }
              }
            >
            enable_dispatcher_stats: true
        "#;
        let bytes = encode(bootstrap(), text).expect("valid");
        let message = Bootstrap::decode(bytes.as_slice()).expect("decodes");
        let node = message.node.expect("set");
        assert_eq!((node.id.as_str(), node.cluster.as_str()), ("ab", "c\nAA"));
        let clusters = message.static_resources.expect("set").clusters;
        assert_eq!(clusters.len(), 2);
        assert_eq!((clusters[0].lb_policy, clusters[1].dns_lookup_family), (3, 1));
        assert_eq!(clusters[0].connect_timeout.as_ref().map(|timeout| timeout.nanos), Some(16));
        assert!(message.enable_dispatcher_stats);
    }

    #[test]
    fn errors_name_line_and_path() {
        let error = encode(bootstrap(), "node {\n  idd: \"a\"\n}").expect_err("unknown field");
        assert_eq!(error.path.as_str(), "node");
        assert!(
            error.reason.contains("line 2") && error.reason.contains("no field named \"idd\""),
            "{error}"
        );
        for text in
            ["node {", "node: 3", "node { id: 3 }", "node { id: \"a }", "[x]", "enable_dispatcher_stats: 2"]
        {
            assert!(encode(bootstrap(), text).is_err(), "{text}");
        }
    }
}
