//! `StatefulSession` and `StatefulSessionPerRoute` validated.

use dhow_base::{ConfigError, FieldPath};
use dhow_proto::envoy::config::core::v3::TypedExtensionConfig;
use dhow_proto::envoy::extensions::filters::http::stateful_session::v3::stateful_session_per_route::Override;
use dhow_proto::envoy::extensions::filters::http::stateful_session::v3::{
    StatefulSession, StatefulSessionPerRoute,
};
use dhow_proto::google::protobuf::Any;

use super::session::SessionState;

/// The filter's configuration, or that of a route.
#[derive(Debug)]
pub(super) struct Settings {
    /// How sessions are told; none: there are none.
    pub(super) state: Option<SessionState>,
    pub(super) strict: bool,
    /// Status of the reply when the host of a strict session is not there.
    pub(super) strict_status: u16,
    pub(super) stat_prefix: Box<str>,
}

/// What a route says.
#[derive(Debug)]
pub(super) struct RouteSettings(pub(super) Option<std::sync::Arc<Settings>>);

impl Settings {
    /// Reads the filter's message.
    pub(super) fn read(config: &Any, path: &FieldPath) -> Result<Self, ConfigError> {
        Self::of_message(dhow_proto::any::unpack(config).map_err(|error| error.under(path))?, path)
    }

    fn of_message(message: StatefulSession, path: &FieldPath) -> Result<Self, ConfigError> {
        let StatefulSession { session_state, strict, stat_prefix, status_on_strict_destination_not_found } =
            message;
        let strict_status = match status_on_strict_destination_not_found {
            0 => 503,
            status => u16::try_from(status).map_err(|_| {
                let path = path.field("status_on_strict_destination_not_found");
                ConfigError::new(path, "a status has three digits")
            })?,
        };
        let path = path.field("session_state");
        let state = session_state.map(|TypedExtensionConfig { name, typed_config }| {
            SessionState::read(&name, typed_config.as_ref(), &path)
        });
        Ok(Self { state: state.transpose()?, strict, strict_status, stat_prefix: stat_prefix.into() })
    }
}

impl RouteSettings {
    /// Reads a route's message.
    pub(super) fn read(config: &Any, path: &FieldPath) -> Result<Self, ConfigError> {
        let StatefulSessionPerRoute { r#override } =
            dhow_proto::any::unpack(config).map_err(|error| error.under(path))?;
        match r#override {
            None => {
                let reason = r#"Proto constraint validation failed (field: "override", reason: is required)"#;
                Err(ConfigError::new(path.clone(), reason))
            }
            Some(Override::Disabled(true)) => Ok(Self(None)),
            Some(Override::Disabled(false)) => {
                Err(ConfigError::new(path.field("disabled"), "value must equal true"))
            }
            Some(Override::StatefulSession(session)) => {
                let settings = Settings::of_message(session, &path.field("stateful_session"))?;
                Ok(Self(Some(std::sync::Arc::new(settings))))
            }
        }
    }
}
