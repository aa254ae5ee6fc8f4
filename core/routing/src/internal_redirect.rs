//! `InternalRedirectPolicy`: redirects of upstreams that are followed here instead of by the client.

use dhow_base::{ConfigError, FieldPath};
use dhow_http::HeaderName;
use dhow_proto::Message;
use dhow_proto::any;
use dhow_proto::envoy::extensions::internal_redirect::allow_listed_routes::v3::AllowListedRoutesConfig;
use dhow_proto::envoy::extensions::internal_redirect::filter_state::v3::FilterStateConfig;

use crate::pb::core::TypedExtensionConfig;
use crate::pb::route;

/// A compiled `envoy.config.route.v3.InternalRedirectPolicy`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InternalRedirectPolicy {
    /// How many redirects one request may follow.
    pub max_internal_redirects: u32,
    /// Status codes that are followed.
    pub response_codes: Box<[u16]>,
    /// What must hold of the target.
    pub predicates: Box<[RedirectPredicate]>,
    /// Whether a redirect may change the scheme.
    pub allow_cross_scheme: bool,
    /// Headers of the redirect response that go into the new request.
    pub response_headers_to_copy: Box<[HeaderName]>,
}

/// What must hold of the route that a redirect leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedirectPredicate {
    /// `previous_routes`: the route has not been taken by this request before.
    PreviousRoutes,
    /// `allow_listed_routes`: the route's name is one of these.
    AllowListedRoutes(Box<[Box<str>]>),
    /// `safe_cross_scheme`: no redirect from https to http.
    SafeCrossScheme,
    /// `filter_state`: the object of this key is `true`, or there is none and that is enough.
    FilterState {
        /// Its key.
        key: Box<str>,
        /// Whether its absence lets the redirect pass.
        if_absent: bool,
    },
}

impl InternalRedirectPolicy {
    /// Compiles the message.
    ///
    /// # Errors
    /// When a predicate is not known, or a header that may not be copied is named.
    pub(crate) fn compile(
        message: &route::InternalRedirectPolicy,
        path: &FieldPath,
    ) -> Result<Self, ConfigError> {
        let route::InternalRedirectPolicy {
            max_internal_redirects,
            redirect_response_codes,
            predicates,
            allow_cross_scheme_redirect,
            response_headers_to_copy,
        } = message;
        // Only redirects can be followed; other codes have no effect, as in Envoy.
        let is_redirect = |code: &u32| matches!(code, 301 | 302 | 303 | 307 | 308);
        let codes: Box<[u16]> = if redirect_response_codes.is_empty() {
            [302].into()
        } else {
            redirect_response_codes.iter().filter(|code| is_redirect(code)).map(|&code| code as u16).collect()
        };
        let predicates_path = path.field("predicates");
        let predicates = predicates.iter().enumerate();
        let predicates = predicates.map(|(at, message)| predicate(message, &predicates_path.index(at)));
        for (at, name) in response_headers_to_copy.iter().enumerate() {
            if name.starts_with(':') || name.eq_ignore_ascii_case("host") {
                let path = path.field("response_headers_to_copy").index(at);
                let reason = ":-prefixed headers or Hosts may not be specified here.";
                return Err(ConfigError::new(path, reason));
            }
        }
        Ok(Self {
            max_internal_redirects: max_internal_redirects.as_ref().map_or(1, |wrapped| wrapped.value),
            response_codes: codes,
            predicates: predicates.collect::<Result<_, _>>()?,
            allow_cross_scheme: *allow_cross_scheme_redirect,
            response_headers_to_copy: response_headers_to_copy
                .iter()
                .map(|name| HeaderName::new(name))
                .collect(),
        })
    }

    /// Whether a response with this status is a redirect that may be followed.
    pub fn follows(&self, status: u16) -> bool {
        self.response_codes.contains(&status)
    }
}

fn predicate(message: &TypedExtensionConfig, path: &FieldPath) -> Result<RedirectPredicate, ConfigError> {
    const PREFIX: &str = "envoy.extensions.internal_redirect.";
    let TypedExtensionConfig { name, typed_config } = message;
    let path = path.field("typed_config");
    let config = typed_config.as_ref().ok_or_else(|| ConfigError::new(path.clone(), "value is required"))?;
    let resolved = any::resolve(config).map_err(|error| error.under(&path))?;
    let bytes = &*resolved.value;
    let malformed = |error: dhow_proto::prost::DecodeError| ConfigError::new(path.clone(), error.to_string());
    match resolved.type_name.strip_prefix(PREFIX) {
        Some("previous_routes.v3.PreviousRoutesConfig") => Ok(RedirectPredicate::PreviousRoutes),
        Some("safe_cross_scheme.v3.SafeCrossSchemeConfig") => Ok(RedirectPredicate::SafeCrossScheme),
        Some("allow_listed_routes.v3.AllowListedRoutesConfig") => {
            let AllowListedRoutesConfig { allowed_route_names } =
                AllowListedRoutesConfig::decode(bytes).map_err(malformed)?;
            let names = allowed_route_names.into_iter().map(String::into_boxed_str);
            Ok(RedirectPredicate::AllowListedRoutes(names.collect()))
        }
        Some("filter_state.v3.FilterStateConfig") => {
            let FilterStateConfig { redirect_enabled_key, redirect_if_absent } =
                FilterStateConfig::decode(bytes).map_err(malformed)?;
            Ok(RedirectPredicate::FilterState {
                key: redirect_enabled_key.into(),
                if_absent: redirect_if_absent,
            })
        }
        _ => {
            let url = resolved.type_name;
            let reason =
                format!("Didn't find a registered implementation for '{name}' with type URL: '{url}'");
            Err(ConfigError::new(path, reason))
        }
    }
}
