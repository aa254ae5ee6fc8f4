//! `Http2ProtocolOptions.custom_settings_parameters`: settings by their numbers.

use dhow_base::{ConfigError, FieldPath};
use dhow_proto::envoy::config::core::v3::http2_protocol_options::SettingsParameter;

/// The settings that have fields of their own, as far as they are set.
#[derive(Clone, Copy, Debug, Default)]
pub struct NamedSettings {
    /// `hpack_table_size` in bytes.
    pub hpack_table_size: Option<u32>,
    /// `max_concurrent_streams` per connection.
    pub max_concurrent_streams: Option<u32>,
    /// `initial_stream_window_size` in bytes.
    pub initial_stream_window_size: Option<u32>,
}

impl NamedSettings {
    /// The field of a setting, if it is set.
    fn field_of(&self, id: u32) -> Option<&'static str> {
        let (field, value) = match id {
            1 => ("hpack_table_size", self.hpack_table_size),
            3 => ("max_concurrent_streams", self.max_concurrent_streams),
            4 => ("initial_stream_window_size", self.initial_stream_window_size),
            _ => return None,
        };
        value.map(|_| field)
    }
}

/// The settings to announce, in order.
///
/// # Errors
/// In Envoy's words: a setting with two values or a field of its own that is set, push, extended CONNECT.
pub fn lower_custom_settings(
    parameters: &[SettingsParameter],
    named: &NamedSettings,
    path: &FieldPath,
) -> Result<Vec<(u16, u32)>, ConfigError> {
    let refused = |reason: String| Err(ConfigError::new(path.field("custom_settings_parameters"), reason));
    let entry = |parameter: &SettingsParameter| {
        let SettingsParameter { identifier, value } = parameter;
        (identifier.map_or(0, |id| id.value), value.map_or(0, |value| value.value))
    };
    let mut twice = Vec::new();
    for (at, (id, value)) in parameters.iter().map(entry).enumerate() {
        match (id, value) {
            (2, 1) => {
                let reason =
                    "server push is not supported by Envoy and can not be enabled via a SETTINGS parameter.";
                return refused(reason.to_owned());
            }
            (8, _) => {
                let reason = "the \"allow_connect\" SETTINGS parameter must only be configured through the named field";
                return refused(reason.to_owned());
            }
            _ => {}
        }
        if parameters[..at].iter().map(entry).find(|(known, _)| *known == id).is_some_and(|(_, v)| v != value)
        {
            twice.push(format!("{id:#04x}"));
        }
    }
    if !twice.is_empty() {
        let ids = twice.join(",");
        return refused(format!(
            "inconsistent HTTP/2 custom SETTINGS parameter(s) detected; identifiers = {{{ids}}}"
        ));
    }
    let fields: Vec<_> = parameters.iter().filter_map(|one| named.field_of(entry(one).0)).collect();
    if !fields.is_empty() {
        let fields = fields.join(",");
        return refused(format!(
            "the {{{fields}}} HTTP/2 SETTINGS parameter(s) can not be configured through both named and custom parameters"
        ));
    }
    // The rules of the message keep the numbers below 2^16.
    Ok(parameters.iter().map(entry).map(|(id, value)| (id as u16, value)).collect())
}

#[cfg(test)]
mod tests {
    use dhow_proto::google::protobuf::UInt32Value;

    use super::*;

    fn lowered(entries: &[(u32, u32)]) -> Result<Vec<(u16, u32)>, String> {
        let wrap = |value| Some(UInt32Value { value });
        let one = |(id, value): &(u32, u32)| SettingsParameter { identifier: wrap(*id), value: wrap(*value) };
        let named = NamedSettings { max_concurrent_streams: Some(10), ..NamedSettings::default() };
        let parameters: Vec<_> = entries.iter().map(one).collect();
        lower_custom_settings(&parameters, &named, &FieldPath::root()).map_err(|error| error.reason)
    }

    #[test]
    fn settings_are_announced_as_they_are_written() {
        assert_eq!(lowered(&[(99, 1), (2, 0), (99, 1)]), Ok(vec![(99, 1), (2, 0), (99, 1)]));
    }

    #[test]
    fn contradictions_are_refused() {
        let refused = |entries: &[(u32, u32)]| lowered(entries).unwrap_err();
        assert!(refused(&[(99, 1), (2, 1), (8, 1)]).starts_with("server push is not supported"));
        assert!(refused(&[(8, 0), (2, 1)]).starts_with("the \"allow_connect\" SETTINGS parameter"));
        assert!(refused(&[(3, 1), (256, 1), (99, 1), (256, 2), (99, 0)]).ends_with("= {0x100,0x63}"));
        assert!(
            refused(&[(3, 7), (3, 7)]).starts_with("the {max_concurrent_streams,max_concurrent_streams} ")
        );
    }
}
