//! Edits of query parameters.

use std::collections::BTreeMap;

use dhow_base::{ConfigError, FieldPath};
use dhow_expr::{Format, FormatContext};
use dhow_proto::envoy::config::core::v3::key_value_append::KeyValueAppendAction as AppendAction;
use dhow_proto::envoy::config::core::v3::{KeyValueAppend, KeyValueMutation, KeyValuePair};
use dhow_proto::google::protobuf::value::Kind;

/// One edit of the query.
#[derive(Debug)]
pub(super) enum QueryEdit {
    Set { name: Box<[u8]>, value: Format, action: AppendAction },
    Remove(Box<[u8]>),
}

/// Parameters with their values, decoded. Envoy writes them back in the order of their names.
type Parameters = BTreeMap<Vec<u8>, Vec<Vec<u8>>>;

impl QueryEdit {
    /// Reads the message.
    pub(super) fn read(message: KeyValueMutation, path: &FieldPath) -> Result<Self, ConfigError> {
        let KeyValueMutation { append, remove } = message;
        match (append, remove.is_empty()) {
            (None, true) => {
                Err(ConfigError::new(path.clone(), "One of 'append'/'remove' must be specified."))
            }
            (Some(_), false) => {
                Err(ConfigError::new(path.clone(), "Only one of 'append'/'remove can be specified."))
            }
            (None, false) => Ok(Self::Remove(remove.into_bytes().into())),
            (Some(append), true) => Self::read_append(append, &path.field("append")),
        }
    }

    fn read_append(message: KeyValueAppend, path: &FieldPath) -> Result<Self, ConfigError> {
        #[allow(deprecated, reason = "named so that nothing is dropped")]
        let KeyValueAppend { record, entry, action } = message;
        let Some(KeyValuePair { key, value }) = record else {
            // Envoy does not read `entry` here: it says the same with it.
            let field = if entry.is_some() { path.field("entry") } else { path.field("record") };
            return Err(ConfigError::new(field, "No record specified for append mutation."));
        };
        let path = path.field("record");
        let Some(Kind::StringValue(text)) = value.and_then(|value| value.kind) else {
            return Err(ConfigError::new(
                path.field("value"),
                "Only string value is allowed for record value.",
            ));
        };
        let value = Format::parse(&text).map_err(|error| error.under(&path.field("value")))?;
        let action = AppendAction::try_from(action).map_err(|_| {
            ConfigError::new(path.field("action"), "value must be one of the defined enum values")
        })?;
        Ok(Self::Set { name: key.into_bytes().into(), value: value.omitting_empty(true), action })
    }

    fn apply(&self, parameters: &mut Parameters, context: &dyn FormatContext) {
        let (name, value, action) = match self {
            Self::Remove(name) => {
                parameters.remove(&**name);
                return;
            }
            Self::Set { name, value, action } => (name.to_vec(), value, *action),
        };
        let value = || encode(&value.to_bytes(context));
        match action {
            AppendAction::AppendIfExistsOrAdd => parameters.entry(name).or_default().push(value()),
            AppendAction::AddIfAbsent => {
                parameters.entry(name).or_insert_with(|| vec![value()]);
            }
            AppendAction::OverwriteIfExistsOrAdd => {
                parameters.insert(name, vec![value()]);
            }
            AppendAction::OverwriteIfExists => {
                if let Some(values) = parameters.get_mut(&name) {
                    *values = vec![value()];
                }
            }
        }
    }
}

/// A path with the edits made. What was in its query before is decoded and not encoded again, as in Envoy.
pub(super) fn edit_path<'a>(
    path: &[u8],
    edits: impl Iterator<Item = &'a QueryEdit>,
    context: &dyn FormatContext,
) -> Vec<u8> {
    let at = path.iter().position(|&byte| byte == b'?').unwrap_or(path.len());
    let mut parameters = parse(path.get(at + 1..).unwrap_or_default());
    for edit in edits {
        edit.apply(&mut parameters, context);
    }
    let mut edited = path[..at].to_vec();
    let mut delimiter = b'?';
    for (name, values) in &parameters {
        for value in values {
            edited.push(delimiter);
            edited.extend_from_slice(name);
            edited.push(b'=');
            edited.extend_from_slice(value);
            delimiter = b'&';
        }
    }
    edited
}

fn parse(query: &[u8]) -> Parameters {
    let mut parameters = Parameters::new();
    if query.is_empty() {
        return parameters;
    }
    // A delimiter at the end has nothing behind it.
    let query = query.strip_suffix(b"&").unwrap_or(query);
    for part in query.split(|&byte| byte == b'&') {
        let mut halves = part.splitn(2, |&byte| byte == b'=');
        let name = decode(halves.next().unwrap_or_default());
        parameters.entry(name).or_default().push(decode(halves.next().unwrap_or_default()));
    }
    parameters
}

fn decode(text: &[u8]) -> Vec<u8> {
    let digit = |at: usize| text.get(at).and_then(|&byte| char::from(byte).to_digit(16));
    let mut decoded = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        match (text[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, ..) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    decoded
}

/// Everything but letters, digits and `-._*` as `%XX`.
fn encode(text: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(text.len());
    for &byte in text {
        if byte.is_ascii_alphanumeric() || b"-._*".contains(&byte) {
            encoded.push(byte);
        } else {
            encoded.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use dhow_expr::EmptyContext;

    use super::*;

    fn edited(path: &str, name: &str, value: &str, action: AppendAction) -> String {
        let value = Format::parse(value).unwrap();
        let edit = QueryEdit::Set { name: name.as_bytes().into(), value, action };
        String::from_utf8(edit_path(path.as_bytes(), [&edit].into_iter(), &EmptyContext)).unwrap()
    }

    #[test]
    fn queries_are_written_back_in_the_order_of_names() {
        let add = AppendAction::AppendIfExistsOrAdd;
        assert_eq!(edited("/p?z=1&&y=a=b&x", "k", "~ *", add), "/p?=&k=%7E%20*&x=&y=a=b&z=1");
        assert_eq!(edited("/p?", "k", "", add), "/p?k=");
        assert_eq!(edited("/p?m=%2526&a=%zz+1&m=%26", "a", "n", add), "/p?a=%zz+1&a=n&m=%26&m=&");
    }

    #[test]
    fn each_action_does_as_its_name_says() {
        let run = |action| [edited("/?a=1&a=2", "a", "n", action), edited("/", "a", "n", action)];
        assert_eq!(run(AppendAction::AppendIfExistsOrAdd), ["/?a=1&a=2&a=n", "/?a=n"]);
        assert_eq!(run(AppendAction::AddIfAbsent), ["/?a=1&a=2", "/?a=n"]);
        assert_eq!(run(AppendAction::OverwriteIfExists), ["/?a=n", "/"]);
        assert_eq!(run(AppendAction::OverwriteIfExistsOrAdd), ["/?a=n", "/?a=n"]);
        let path = edit_path(b"/?a=1&b=2", [&QueryEdit::Remove((*b"a").into())].into_iter(), &EmptyContext);
        assert_eq!(path, b"/?b=2");
    }
}
