//! `HashPolicy`: the number that ring hash and Maglev balance by.

use std::net::IpAddr;
use std::time::Duration;

use dhow_base::{ConfigError, FieldPath};
use dhow_http::{HeaderMap, HeaderName};
use dhow_matching::{RegexRewrite, cookie_value, query_parameter};
use twox_hash::XxHash64;

use crate::pb::duration;
use crate::pb::route::route_action::HashPolicy as Message;
use crate::pb::route::route_action::hash_policy::{
    ConnectionProperties, Cookie, CookieAttribute, FilterState, Header, PolicySpecifier, QueryParameter,
};

/// One hash policy of a route; several are combined in order.
#[derive(Clone, Debug)]
pub struct HashPolicy {
    source: Source,
    terminal: bool,
}

#[derive(Clone, Debug)]
enum Source {
    Header {
        name: HeaderName,
        rewrite: Option<RegexRewrite>,
    },
    Cookie(HashCookie),
    ClientIp,
    /// Connection properties of which none is asked for.
    Nothing,
    QueryParameter(Box<[u8]>),
    FilterState(Box<str>),
}

/// A cookie that is hashed, and made when the request has none and `ttl` is given.
#[derive(Clone, Debug)]
pub struct HashCookie {
    /// Its name.
    pub name: Box<str>,
    /// How long it lives; zero is for the session. `None`: none is made.
    pub ttl: Option<Duration>,
    /// Its path.
    pub path: Box<str>,
    /// Further attributes.
    pub attributes: Box<[(Box<str>, Box<str>)]>,
}

impl HashCookie {
    /// The value of the `set-cookie` header that gives a client this cookie.
    pub fn set_cookie(&self, value: &str) -> String {
        use std::fmt::Write;
        let mut text = format!("{}=\"{value}\"", self.name);
        if let Some(ttl) = self.ttl.filter(|ttl| !ttl.is_zero()) {
            // Writing to a String cannot fail.
            let _ = write!(text, "; Max-Age={}", ttl.as_secs());
        }
        if !self.path.is_empty() {
            let _ = write!(text, "; Path={}", self.path);
        }
        for (name, value) in &self.attributes {
            let _ =
                if value.is_empty() { write!(text, "; {name}") } else { write!(text, "; {name}={value}") };
        }
        text.push_str("; HttpOnly");
        text
    }
}

/// What a hash is computed from.
pub struct HashInput<'a> {
    /// The request.
    pub headers: &'a HeaderMap,
    /// The client's address.
    pub source_ip: Option<IpAddr>,
    /// The hash of a filter-state object, by key.
    pub filter_state: &'a dyn Fn(&str) -> Option<u64>,
    /// Called for a cookie that has to be made; gives its value, and the caller adds it to the response.
    pub make_cookie: &'a mut dyn FnMut(&HashCookie) -> Option<String>,
}

impl HashPolicy {
    /// Compiles the message.
    ///
    /// # Errors
    /// When the policy is missing or not valid.
    pub fn compile(message: &Message, path: &FieldPath) -> Result<Self, ConfigError> {
        let Message { terminal, policy_specifier } = message;
        let source = match policy_specifier {
            None => return Err(ConfigError::new(path.field("policy_specifier"), "is required")),
            Some(PolicySpecifier::Header(Header { header_name, regex_rewrite })) => {
                let path = path.field("header");
                let rewrite = regex_rewrite
                    .as_ref()
                    .map(|rewrite| RegexRewrite::compile(rewrite, &path.field("regex_rewrite")));
                Source::Header { name: HeaderName::new(header_name), rewrite: rewrite.transpose()? }
            }
            Some(PolicySpecifier::Cookie(Cookie { name, ttl, path: cookie_path, attributes })) => {
                let attribute = |CookieAttribute { name, value }: &CookieAttribute| {
                    (name.as_str().into(), value.as_str().into())
                };
                Source::Cookie(HashCookie {
                    name: name.as_str().into(),
                    ttl: duration(ttl.as_ref(), &path.field("cookie"), "ttl")?,
                    path: cookie_path.as_str().into(),
                    attributes: attributes.iter().map(attribute).collect(),
                })
            }
            Some(PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip })) => {
                if *source_ip {
                    Source::ClientIp
                } else {
                    Source::Nothing
                }
            }
            Some(PolicySpecifier::QueryParameter(QueryParameter { name })) => {
                Source::QueryParameter(name.as_bytes().into())
            }
            Some(PolicySpecifier::FilterState(FilterState { key })) => {
                Source::FilterState(key.as_str().into())
            }
        };
        Ok(Self { source, terminal: *terminal })
    }

    fn hash(&self, input: &mut HashInput<'_>) -> Option<u64> {
        match &self.source {
            Source::Header { name, rewrite } => {
                let mut values: Vec<Vec<u8>> = input
                    .headers
                    .get_all(name)
                    .map(|value| {
                        rewrite.as_ref().map_or_else(|| value.to_vec(), |rewrite| rewrite.apply(value))
                    })
                    .collect();
                if values.is_empty() {
                    return None;
                }
                // The order in which a client sends repeated headers does not matter.
                values.sort_unstable();
                Some(xx_hash(&values.concat()))
            }
            Source::Cookie(cookie) => {
                if let Some(value) =
                    cookie_value(input.headers, cookie.name.as_bytes()).filter(|v| !v.is_empty())
                {
                    return Some(xx_hash(value));
                }
                cookie.ttl?;
                Some(xx_hash((input.make_cookie)(cookie)?.as_bytes()))
            }
            Source::Nothing => None,
            Source::ClientIp => Some(xx_hash(input.source_ip?.to_string().as_bytes())),
            Source::QueryParameter(name) => query_parameter(input.headers.path(), name).map(xx_hash),
            Source::FilterState(key) => (input.filter_state)(key),
        }
    }

    /// The combined hash of a route's policies; `None` when none has a value.
    pub fn combined(policies: &[Self], input: &mut HashInput<'_>) -> Option<u64> {
        let mut combined: Option<u64> = None;
        for policy in policies {
            if let Some(hash) = policy.hash(input) {
                combined = Some(combined.map_or(0, |before| before.rotate_left(1)) ^ hash);
            }
            if policy.terminal && combined.is_some() {
                break;
            }
        }
        combined
    }
}

/// The hash that Envoy uses everywhere in load balancing.
pub fn xx_hash(bytes: &[u8]) -> u64 {
    XxHash64::oneshot(0, bytes)
}
