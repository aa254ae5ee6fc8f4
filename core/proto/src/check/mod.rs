//! Whether an encoded message may be used: what is unknown or deprecated in it, and whether it fulfils its rules.

mod compiled;
mod inspect;
mod number;
mod rules;
mod text;
mod validate;

#[cfg(test)]
mod tests;

use dhow_base::{ConfigError, ConfigWarning};

use crate::tables::MessageType;
use crate::wire::Malformed;

/// Decides about a deprecated field by its full name, or about a value of one; also told whether Envoy disallows it unless it is
/// configured to.
pub type DecideDeprecated = fn(field: &str, disallowed: bool) -> bool;

/// Which deprecated fields and values may be used.
#[derive(Clone, Copy, Debug, Default)]
pub enum Deprecated {
    /// Those that are not disallowed by default.
    #[default]
    ByDefault,
    /// Those that the function says, which in Envoy is the runtime.
    Decided(DecideDeprecated),
}

impl Deprecated {
    fn allows(self, field: &str, disallowed: bool) -> bool {
        match self {
            Self::ByDefault => !disallowed,
            Self::Decided(decide) => decide(field, disallowed),
        }
    }
}

/// What to let pass.
#[derive(Clone, Copy, Debug, Default)]
pub struct CheckOptions {
    /// Fields that the types do not have are errors (`--reject-unknown-dynamic-fields`) instead of warnings.
    pub reject_unknown_fields: bool,
    /// Which deprecated fields and values are warnings instead of errors.
    pub deprecated: Deprecated,
}

/// Inspects first and validates then, as Envoy does.
pub(crate) fn check_encoded(
    message: MessageType,
    bytes: &[u8],
    options: &CheckOptions,
) -> Result<Vec<ConfigWarning>, ConfigError> {
    let warnings = inspect::inspect(message, bytes, options)?;
    validate::validate(message, bytes)?;
    Ok(warnings)
}

/// Whether Envoy never looks at what is wrong with these messages, and reads them as they are.
fn is_unchecked(message: MessageType) -> bool {
    let name = message.full_name();
    let policy = name.strip_prefix("envoy.extensions.load_balancing_policies.");
    policy.is_some_and(|policy| !policy.starts_with("override_host."))
        || name.starts_with("envoy.extensions.matching.common_inputs.transport_socket.v3.")
}

/// Type URL and payload of an encoded `Any`.
pub(crate) fn any_parts(bytes: &[u8]) -> Result<(&str, &[u8]), Malformed> {
    use crate::wire::{Fields, WireValue};
    let (mut type_url, mut payload) = ("", &[][..]);
    for field in Fields::new(bytes) {
        match field? {
            (1, WireValue::Bytes(text)) => type_url = std::str::from_utf8(text).map_err(|_| Malformed)?,
            (2, WireValue::Bytes(bytes)) => payload = bytes,
            _ => {}
        }
    }
    Ok((type_url, payload))
}
