//! How the host of a session travels with requests and responses.

use std::time::Duration;

use dhow_base::{ConfigError, FieldPath, base64};
use dhow_http::{HeaderMap, HeaderName, KnownHeader};
use dhow_matching::{cookie_value, path_without_query};
use dhow_proto::any;
use dhow_proto::envoy::extensions::http::stateful_session::cookie::v3::CookieBasedSessionState;
use dhow_proto::envoy::extensions::http::stateful_session::envelope::v3::{
    EnvelopeSessionState, envelope_session_state,
};
use dhow_proto::envoy::extensions::http::stateful_session::header::v3::HeaderBasedSessionState;
use dhow_proto::envoy::r#type::http::v3::{Cookie, CookieAttribute};
use dhow_proto::google::protobuf::Any;

use super::cookie;

/// Between the host's part of an envelope and the application's.
const SEPARATOR: &[u8] = b";UV:";

/// A kind of session state.
#[derive(Debug)]
pub(super) enum SessionState {
    Cookie {
        name: Box<str>,
        path: Box<str>,
        /// How long a cookie counts, in whole seconds; zero: as long as the browser keeps it.
        ttl: Duration,
        /// `; name="value"` of further attributes.
        attributes: Box<str>,
    },
    Header(HeaderName),
    Envelope(HeaderName),
}

impl SessionState {
    /// Reads the extension, which is found by its name, as in Envoy.
    pub(super) fn read(name: &str, config: Option<&Any>, path: &FieldPath) -> Result<Self, ConfigError> {
        let unknown = || {
            let reason = format!("Didn't find a registered implementation for name: '{name}'");
            ConfigError::new(path.clone(), reason)
        };
        let path = path.field("typed_config");
        let config = || config.ok_or_else(|| ConfigError::new(path.clone(), "value is required"));
        let named = |name: &str, field: FieldPath| {
            if name.is_empty() {
                return Err(ConfigError::new(
                    field.field("name"),
                    "value length must be at least 1 characters",
                ));
            }
            Ok(HeaderName::new(name))
        };
        Ok(match name {
            "envoy.http.stateful_session.cookie" => {
                let CookieBasedSessionState { cookie } =
                    any::unpack(config()?).map_err(|e| e.under(&path))?;
                let path = path.field("cookie");
                let cookie = cookie.ok_or_else(|| ConfigError::new(path.clone(), "value is required"))?;
                Self::read_cookie(cookie, &path)?
            }
            "envoy.http.stateful_session.header" => {
                let HeaderBasedSessionState { name } = any::unpack(config()?).map_err(|e| e.under(&path))?;
                Self::Header(named(&name, path.clone())?)
            }
            "envoy.http.stateful_session.envelope" => {
                let EnvelopeSessionState { header } = any::unpack(config()?).map_err(|e| e.under(&path))?;
                let path = path.field("header");
                let envelope_session_state::Header { name } =
                    header.ok_or_else(|| ConfigError::new(path.clone(), "value is required"))?;
                Self::Envelope(named(&name, path)?)
            }
            _ => return Err(unknown()),
        })
    }

    fn read_cookie(message: Cookie, path: &FieldPath) -> Result<Self, ConfigError> {
        let Cookie { name, ttl, path: of_paths, attributes } = message;
        if name.is_empty() {
            return Err(ConfigError::new(path.field("name"), "value length must be at least 1 characters"));
        }
        let ttl = ttl.map_or(Duration::ZERO, |ttl| Duration::from_secs(ttl.seconds.max(0) as u64));
        let attribute = |CookieAttribute { name, value }: CookieAttribute| {
            if value.is_empty() { format!("; {name}") } else { format!("; {name}={value}") }
        };
        Ok(Self::Cookie {
            name: name.into(),
            path: of_paths.into(),
            ttl,
            attributes: attributes.into_iter().map(attribute).collect::<String>().into(),
        })
    }

    /// Whether the request belongs to the paths that have sessions.
    pub(super) fn concerns(&self, request: &HeaderMap) -> bool {
        let Self::Cookie { path, .. } = self else { return true };
        let wanted = path.as_bytes();
        if wanted.is_empty() || wanted == b"/" {
            return true;
        }
        let Some(rest) = path_without_query(request.path()).strip_prefix(wanted) else { return false };
        rest.is_empty() || rest[0] == b'/' || wanted.ends_with(b"/")
    }

    /// The host that the request brings; `now` is since 1970. An envelope is replaced by the application's part.
    pub(super) fn take_host(&self, request: &mut HeaderMap, now: Duration) -> Option<String> {
        let text = |bytes: &[u8]| {
            let bytes = base64::decode_padded(std::str::from_utf8(bytes).ok()?)?;
            String::from_utf8(bytes).ok().filter(|address| !address.is_empty())
        };
        match self {
            Self::Cookie { name, .. } => cookie::read(cookie_value(request, name.as_bytes())?, now),
            Self::Header(name) => text(request.get(name)?),
            Self::Envelope(name) => {
                let value = request.get(name)?;
                let at = value.windows(SEPARATOR.len()).position(|part| part == SEPARATOR)?;
                let host = text(&value[..at])?;
                let origin = &value[at + SEPARATOR.len()..];
                let origin = base64::decode_padded(std::str::from_utf8(origin).ok()?)?;
                request.remove(name);
                request.append_name(name, &origin);
                Some(host)
            }
        }
    }

    /// Tells the client which host it was. `before` is the host that the request brought.
    pub(super) fn give_host(
        &self,
        host: &str,
        before: Option<&str>,
        response: &mut HeaderMap,
        now: Duration,
    ) {
        match self {
            Self::Cookie { name, path, ttl, attributes } => {
                if before == Some(host) {
                    return;
                }
                let expires = if ttl.is_zero() { 0 } else { (now + *ttl).as_secs() };
                let mut line = format!("{name}=\"{}\"", cookie::write(host, expires));
                if !ttl.is_zero() {
                    line.push_str(&format!("; Max-Age={}", ttl.as_secs()));
                }
                if !path.is_empty() {
                    line.push_str(&format!("; Path={path}"));
                }
                line.push_str(attributes);
                line.push_str("; HttpOnly");
                response.append_known(KnownHeader::SetCookie, line.as_bytes());
            }
            Self::Header(name) => {
                if before != Some(host) {
                    response.set(name, base64::encode(host.as_bytes()).as_bytes());
                }
            }
            Self::Envelope(name) => {
                let Some(origin) = response.get(name) else { return };
                let mut value = base64::encode(host.as_bytes()).into_bytes();
                value.extend_from_slice(SEPARATOR);
                value.extend_from_slice(base64::encode(origin).as_bytes());
                response.remove(name);
                response.append_name(name, &value);
            }
        }
    }
}
