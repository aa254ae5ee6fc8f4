//! `RedirectAction`.

use dhow_base::{ConfigError, FieldPath};
use dhow_expr::{Format, FormatContext};
use dhow_http::{HeaderMap, KnownHeader, format_decimal};
use dhow_matching::RegexRewrite;

use crate::pb::route::RedirectAction;
use crate::pb::route::redirect_action::{PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier};
use crate::rewrite::PathRewrite;
use crate::route_match::RouteMatch;

/// A compiled redirect.
#[derive(Clone, Debug)]
pub struct Redirect {
    status: u16,
    scheme: Option<Box<[u8]>>,
    host: Box<[u8]>,
    /// Any number: as in Envoy it is not looked at.
    port: Option<u32>,
    path: Option<RedirectPath>,
    strip_query: bool,
    /// The request's host is used with whatever port it has.
    keeps_port: bool,
}

#[derive(Clone, Debug)]
enum RedirectPath {
    /// Replaces all of the path; the request's query is kept when this one has none.
    Whole(Box<[u8]>),
    Rewrite(PathRewrite),
}

impl Redirect {
    /// The redirect of a virtual host that requires TLS.
    pub(crate) fn to_https() -> Self {
        Self {
            status: 301,
            scheme: Some(b"https"[..].into()),
            host: Box::default(),
            port: None,
            path: None,
            strip_query: false,
            keeps_port: true,
        }
    }

    /// The way to where the request already is: what Envoy gives as the location of a direct response.
    pub(crate) fn nowhere_else() -> Self {
        Self { scheme: None, keeps_port: false, ..Self::to_https() }
    }

    /// Compiles the message.
    ///
    /// # Errors
    /// When an expression or format is not valid.
    pub(crate) fn compile(
        message: &RedirectAction,
        matched: &RouteMatch,
        path: &FieldPath,
    ) -> Result<Self, ConfigError> {
        let RedirectAction {
            host_redirect,
            port_redirect,
            response_code,
            strip_query,
            scheme_rewrite_specifier,
            path_rewrite_specifier,
        } = message;
        let scheme = match scheme_rewrite_specifier {
            Some(SchemeRewriteSpecifier::HttpsRedirect(true)) => Some(b"https"[..].into()),
            Some(SchemeRewriteSpecifier::SchemeRedirect(scheme)) if !scheme.is_empty() => {
                Some(scheme.as_bytes().into())
            }
            _ => None,
        };
        let redirect_path = match path_rewrite_specifier {
            None => None,
            Some(PathRewriteSpecifier::PathRedirect(whole)) => {
                (!whole.is_empty()).then(|| RedirectPath::Whole(whole.as_bytes().into()))
            }
            Some(PathRewriteSpecifier::PrefixRewrite(_)) if matched.template().is_some() => {
                let reason = "Cannot use redirect.prefix_rewrite with path_match_policy";
                return Err(ConfigError::new(path.field("prefix_rewrite"), reason));
            }
            // Unlike that of a route, an empty one leaves the path as it is.
            Some(PathRewriteSpecifier::PrefixRewrite(prefix)) => (!prefix.is_empty())
                .then(|| RedirectPath::Rewrite(PathRewrite::Prefix(prefix.as_bytes().into()))),
            Some(PathRewriteSpecifier::RegexRewrite(regex)) => {
                let regex = RegexRewrite::compile(regex, &path.field("regex_rewrite"))?;
                Some(RedirectPath::Rewrite(PathRewrite::Regex(regex)))
            }
            Some(PathRewriteSpecifier::PathRewrite(format)) => {
                let format = Format::parse(format).map_err(|e| e.under(&path.field("path_rewrite")))?;
                Some(RedirectPath::Rewrite(PathRewrite::Format(format.omitting_empty(true))))
            }
        };
        Ok(Self {
            status: status_of(*response_code, path)?,
            scheme,
            host: host_redirect.as_bytes().into(),
            port: (*port_redirect != 0).then_some(*port_redirect),
            path: redirect_path,
            strip_query: *strip_query,
            keeps_port: false,
        })
    }

    /// The response's status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The `location` of the response.
    pub fn location(
        &self,
        matched: &RouteMatch,
        headers: &HeaderMap,
        context: &dyn FormatContext,
    ) -> Vec<u8> {
        let scheme = self.scheme.as_deref().unwrap_or_else(|| headers.scheme());
        let mut out = Vec::with_capacity(128);
        out.extend_from_slice(scheme);
        out.extend_from_slice(b"://");
        if self.host.is_empty() && self.keeps_port {
            out.extend_from_slice(headers.authority());
        } else if self.host.is_empty() {
            out.extend_from_slice(request_host(headers, scheme, self.port.is_some()));
        } else {
            out.extend_from_slice(&self.host);
        }
        if let Some(port) = self.port {
            out.push(b':');
            out.extend_from_slice(format_decimal(u64::from(port), &mut [0; 20]));
        }
        self.append_path(matched, headers, context, &mut out);
        out
    }

    /// The path that the request has once it is redirected, where `prefix_rewrite` or `regex_rewrite` changes it.
    pub(crate) fn path_rewrite(&self) -> Option<&PathRewrite> {
        match &self.path {
            Some(RedirectPath::Rewrite(rewrite)) => Some(rewrite),
            Some(RedirectPath::Whole(_)) | None => None,
        }
    }

    fn append_path(
        &self,
        matched: &RouteMatch,
        headers: &HeaderMap,
        context: &dyn FormatContext,
        out: &mut Vec<u8>,
    ) {
        let path = headers.path();
        let query_of = |path: &[u8]| path.iter().position(|&b| b == b'?').unwrap_or(path.len());
        let start = out.len();
        // Whatever the configuration says, the authority ends where a path begins.
        let mut start_path = |path: &[u8]| {
            if path.first() != Some(&b'/') {
                out.push(b'/');
            }
            out.extend_from_slice(path);
        };
        match &self.path {
            // A query that the configuration gives is never stripped.
            Some(RedirectPath::Whole(whole)) if whole.contains(&b'?') => {
                start_path(whole);
                return;
            }
            Some(RedirectPath::Whole(whole)) => {
                start_path(whole);
                out.extend_from_slice(&path[query_of(path)..]);
            }
            Some(RedirectPath::Rewrite(rewrite)) => match rewrite.rewritten(matched, headers, context) {
                Some(rewritten) => start_path(&rewritten),
                None => start_path(path),
            },
            None => start_path(path),
        }
        if self.strip_query {
            out.truncate(start + query_of(&out[start..]));
        }
    }
}

fn status_of(code: i32, path: &FieldPath) -> Result<u16, ConfigError> {
    match RedirectResponseCode::try_from(code) {
        Ok(RedirectResponseCode::MovedPermanently) => Ok(301),
        Ok(RedirectResponseCode::Found) => Ok(302),
        Ok(RedirectResponseCode::SeeOther) => Ok(303),
        Ok(RedirectResponseCode::TemporaryRedirect) => Ok(307),
        Ok(RedirectResponseCode::PermanentRedirect) => Ok(308),
        Err(_) => {
            Err(ConfigError::new(path.field("response_code"), "value must be one of the defined enum values"))
        }
    }
}

/// The request's host; its port goes when a new one is given, or when the scheme changes and it is the old scheme's default.
fn request_host<'a>(headers: &'a HeaderMap, new_scheme: &[u8], new_port: bool) -> &'a [u8] {
    let host = headers.authority();
    let port_at = match host.first() {
        Some(b'[') => host.windows(2).rposition(|pair| pair == b"]:").map(|at| at + 1),
        _ => host.iter().rposition(|&b| b == b':'),
    };
    let Some(port_at) = port_at else { return host };
    let port = &host[port_at..];
    let protocol = headers.get_known(KnownHeader::XForwardedProto).unwrap_or_default();
    let is_default = (protocol == b"https" && port == b":443") || (protocol == b"http" && port == b":80");
    if new_port || (new_scheme != protocol && is_default) { &host[..port_at] } else { host }
}
