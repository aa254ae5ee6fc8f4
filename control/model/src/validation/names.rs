//! Names: hosts, labels, subsets, `exportTo`, metadata.

use dhow_base::{ConfigError, FieldPath};

use super::Checker;
use crate::{Labels, Meta};

const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

pub(super) fn metadata(checker: &mut Checker, meta: &Meta) {
    if !is_subdomain(&meta.name) {
        let reason = format!("{:?} must be lower-case letters, digits, '-' and '.'", meta.name);
        checker.findings.errors.push(ConfigError::new(FieldPath::from("metadata.name"), reason));
    }
}

/// RFC 1123 label: letters, digits and inner dashes, at most 63.
pub(super) fn is_label(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= MAX_LABEL
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn is_subdomain(text: &str) -> bool {
    text.len() <= MAX_NAME
        && text.bytes().all(|byte| !byte.is_ascii_uppercase())
        && text.split('.').all(is_label)
}

/// A fully qualified name, as Istio checks it: labels of letters, digits, `-` and `_`, not all digits at the end.
pub(super) fn is_fqdn(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    let labels_ok = text.split('.').all(|label| {
        !label.is_empty()
            && label.len() <= MAX_LABEL
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    });
    let last_is_number =
        text.rsplit('.').next().is_some_and(|label| label.bytes().all(|byte| byte.is_ascii_digit()));
    !text.is_empty() && text.len() <= 255 && labels_ok && !last_is_number
}

/// A name or a wildcard: `*`, `*.example.com`, and `*x`, which Istio lets through.
pub(super) fn is_host_or_wildcard(text: &str) -> bool {
    match text.strip_prefix('*') {
        Some("") => true,
        Some(rest) => is_fqdn(rest.strip_prefix('.').unwrap_or(rest)),
        None => is_fqdn(text),
    }
}

pub(super) fn labels(checker: &mut Checker, name: &str, labels: &Labels) {
    for (key, value) in labels {
        let plain = key.rsplit_once('/').map_or(key.as_str(), |(_, plain)| plain);
        if !is_label_text(plain) || plain.is_empty() {
            checker.key(name, key, |checker| checker.refuse("is not a label name"));
        }
        if !is_label_text(value) {
            checker.key(name, key, |checker| checker.refuse(format!("{value:?} is not a label value")));
        }
    }
}

fn is_label_text(text: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_alphanumeric);
    text.len() <= MAX_LABEL
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
        && edge(text.as_bytes().first())
        && edge(text.as_bytes().last())
}

pub(super) fn export_to(checker: &mut Checker, list: &[String]) {
    checker.each("exportTo", list, |checker, entry| {
        if !matches!(entry.as_str(), "." | "*" | "~") && !is_label(entry) {
            checker.refuse(format!("{entry:?} must be '.', '*', '~' or a namespace"));
        }
    });
    if list.len() > 1 && list.iter().any(|entry| entry == "~") {
        checker.refuse_at("exportTo", "'~' excludes every other entry");
    }
    for (index, entry) in list.iter().enumerate() {
        if list[..index].contains(entry) {
            checker.refuse_at("exportTo", format!("{entry:?} is there twice"));
        }
    }
}

/// `namespace/name` or `name`, as gateways are referred to.
pub(super) fn gateway_name(checker: &mut Checker, name: &str) {
    let parts: Vec<&str> = name.split('/').collect();
    let good = match parts.as_slice() {
        [name] => !name.is_empty(),
        [namespace, name] => (*namespace == "." || is_label(namespace)) && !name.is_empty(),
        _ => false,
    };
    if !good {
        checker.refuse(format!("{name:?} must be NAME or NAMESPACE/NAME"));
    }
}
