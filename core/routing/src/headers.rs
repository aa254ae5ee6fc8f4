//! Headers that routes add and remove.

use std::sync::Arc;

use dhow_base::{ConfigError, FieldPath};
use dhow_expr::{Format, FormatContext, WithRequestHeaders, WithResponseHeaders};
use dhow_http::{HeaderMap, HeaderName, KnownHeader};

use crate::pb::core::{HeaderValue, HeaderValueOption, header_value_option::HeaderAppendAction};

/// What one level (route, virtual host, ...) adds and removes: removals first, then all values are formatted, then
/// those that replace are set, then the others are added.
#[derive(Clone, Debug, Default)]
pub struct HeaderMutations {
    remove: Box<[HeaderName]>,
    add: Box<[Addition]>,
}

#[derive(Clone, Debug)]
struct Addition {
    name: HeaderName,
    value: Format,
    action: HeaderAppendAction,
    keep_empty: bool,
}

/// Whose headers are edited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Request,
    Response,
    /// Trailers of either: formats do not see them, but the heads.
    Trailers,
}

impl Side {
    /// Whether values of the header are joined by commas.
    fn joins(self, name: KnownHeader) -> bool {
        match self {
            Self::Request => name.joins_in_request(),
            Self::Response => name.joins_in_response(),
            Self::Trailers => false,
        }
    }
}

impl HeaderMutations {
    /// Compiles the messages.
    ///
    /// # Errors
    /// When `host` or a pseudo header is edited, or a value is not a format string; in Envoy's words.
    pub fn compile(
        add: &[HeaderValueOption],
        add_path: &FieldPath,
        remove: &[String],
        remove_path: &FieldPath,
    ) -> Result<Self, ConfigError> {
        let name = |(at, name): (usize, &String)| {
            if is_protected(name) {
                let reason = ":-prefixed or host headers may not be removed";
                return Err(ConfigError::new(remove_path.index(at), reason));
            }
            Ok(HeaderName::new(name))
        };
        let remove = remove.iter().enumerate().map(name).collect::<Result<_, _>>()?;
        let add = add.iter().enumerate().map(|(at, option)| Addition::compile(option, &add_path.index(at)));
        Ok(Self { remove, add: add.collect::<Result<_, _>>()? })
    }

    /// Whether nothing is edited.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.add.is_empty()
    }

    /// Edits a request's headers; other facts come from `context`.
    pub fn apply_to_request(&self, headers: &mut HeaderMap, context: &dyn FormatContext) {
        self.apply(Side::Request, headers, context);
    }

    /// Edits a response's headers; request headers and other facts come from `context`.
    pub fn apply_to_response(&self, headers: &mut HeaderMap, context: &dyn FormatContext) {
        self.apply(Side::Response, headers, context);
    }

    /// Edits trailers; the heads and other facts come from `context`.
    pub fn apply_to_trailers(&self, trailers: &mut HeaderMap, context: &dyn FormatContext) {
        self.apply(Side::Trailers, trailers, context);
    }

    pub(crate) fn apply(&self, side: Side, headers: &mut HeaderMap, context: &dyn FormatContext) {
        for name in &self.remove {
            headers.remove(name);
        }
        if let [only] = &*self.add
            && let Some(literal) = only.value.as_literal()
        {
            if only.applies(headers, literal) {
                only.write(side, headers, literal);
            }
            return;
        }
        // All values are formatted before any of them is written: they do not see each other.
        let mut values = Vec::new();
        let mut ready: Vec<(&Addition, std::ops::Range<usize>)> = Vec::new();
        for addition in &self.add {
            let start = values.len();
            match side {
                Side::Request => {
                    addition.value.append(&WithRequestHeaders { headers, below: context }, &mut values);
                }
                Side::Response => {
                    addition.value.append(&WithResponseHeaders { headers, below: context }, &mut values);
                }
                Side::Trailers => addition.value.append(context, &mut values),
            }
            if addition.applies(headers, &values[start..]) {
                ready.push((addition, start..values.len()));
            }
        }
        for replacing in [true, false] {
            for (addition, range) in ready.iter().filter(|(addition, _)| addition.replaces() == replacing) {
                addition.write(side, headers, &values[range.clone()]);
            }
        }
    }
}

impl Addition {
    fn compile(option: &HeaderValueOption, path: &FieldPath) -> Result<Self, ConfigError> {
        #[allow(deprecated, reason = "the older field is still accepted, as in Envoy")]
        let HeaderValueOption { header, append, append_action, keep_empty_value } = option;
        let field = path.field("header");
        // As in Envoy, nothing but `value` is added here.
        let Some(HeaderValue { key, value, raw_value: _ }) = header else {
            return Err(ConfigError::new(field, "value is required"));
        };
        if key.is_empty() {
            return Err(ConfigError::new(field.field("key"), "value length must be at least 1 characters"));
        }
        if is_protected(key) {
            return Err(ConfigError::new(
                field.field("key"),
                ":-prefixed or host headers may not be modified",
            ));
        }
        let action = HeaderAppendAction::try_from(*append_action).map_err(|_| {
            ConfigError::new(path.field("append_action"), "value must be one of the defined enum values")
        })?;
        let action = match append {
            Some(_) if action != HeaderAppendAction::AppendIfExistsOrAdd => {
                let reason = "Both append and append_action are set and it's not allowed";
                return Err(ConfigError::new(path.field("append"), reason));
            }
            Some(append) if !append.value => HeaderAppendAction::OverwriteIfExistsOrAdd,
            _ => action,
        };
        let value = Format::parse(&current_syntax(value)).map_err(|e| e.under(&field.field("value")))?;
        let value = value.omitting_empty(true);
        Ok(Self { name: HeaderName::new(key), value, action, keep_empty: *keep_empty_value })
    }

    fn replaces(&self) -> bool {
        matches!(
            self.action,
            HeaderAppendAction::OverwriteIfExists | HeaderAppendAction::OverwriteIfExistsOrAdd
        )
    }

    /// Whether there is something to write, given the headers before any of the level's values is written.
    fn applies(&self, headers: &HeaderMap, value: &[u8]) -> bool {
        let exists = || headers.contains(&self.name);
        (self.keep_empty || !value.is_empty())
            && match self.action {
                HeaderAppendAction::AppendIfExistsOrAdd | HeaderAppendAction::OverwriteIfExistsOrAdd => true,
                HeaderAppendAction::AddIfAbsent => !exists(),
                HeaderAppendAction::OverwriteIfExists => exists(),
            }
    }

    fn write(&self, side: Side, headers: &mut HeaderMap, value: &[u8]) {
        if self.replaces() {
            // What replaces a header stands behind the others.
            headers.remove(&self.name);
            headers.append_name(&self.name, value);
            return;
        }
        // Headers that Envoy keeps in one slot have one line, whoever adds to them.
        if let HeaderName::Known(known) = &self.name
            && side.joins(*known)
            && let Some(before) = headers.get_known(*known)
        {
            // An empty value adds no comma, wherever it is.
            let joined = match (before, value) {
                (_, b"") => return,
                (b"", value) => value.to_vec(),
                (before, value) => [before, b",", value].concat(),
            };
            headers.set_known(*known, &joined);
            return;
        }
        headers.append_name(&self.name, value);
    }
}

fn is_protected(name: &str) -> bool {
    name.starts_with(':') || name.eq_ignore_ascii_case(KnownHeader::Host.as_str())
}

/// Older header values name metadata as `%UPSTREAM_METADATA(["namespace", "key"])%`; the present form is `(namespace:key)`.
fn current_syntax(text: &str) -> std::borrow::Cow<'_, str> {
    if !text.contains("_METADATA([") {
        return text.into();
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("_METADATA([") {
        let (before, list) = rest.split_at(at + "_METADATA(".len());
        out.push_str(before);
        let Some(end) = list.find("])") else {
            rest = list;
            break;
        };
        let keys: Vec<&str> = list[1..end].split(',').map(|key| key.trim().trim_matches('"')).collect();
        out.push_str(&keys.join(":"));
        rest = &list[end + 1..];
    }
    out.push_str(rest);
    out.into()
}

/// The levels' mutations, in the order in which they are applied.
#[derive(Clone, Debug, Default)]
pub struct HeaderLevels {
    levels: Box<[Arc<HeaderMutations>]>,
}

impl HeaderLevels {
    /// The levels in the order in which they are applied; empty ones are dropped.
    pub(crate) fn new<'a>(levels: impl Iterator<Item = &'a Arc<HeaderMutations>>) -> Self {
        Self { levels: levels.filter(|level| !level.is_empty()).cloned().collect() }
    }

    /// Edits a request's headers. Formats see the headers as they are before the level; other facts come from `context`.
    pub fn apply_to_request(&self, headers: &mut HeaderMap, context: &dyn FormatContext) {
        for level in &self.levels {
            level.apply(Side::Request, headers, context);
        }
    }

    /// Edits a response's headers; request headers and other facts come from `context`.
    pub fn apply_to_response(&self, headers: &mut HeaderMap, context: &dyn FormatContext) {
        for level in &self.levels {
            level.apply(Side::Response, headers, context);
        }
    }
}
