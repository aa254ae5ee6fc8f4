//! Changes of path and host on the way upstream.

use dhow_base::{ConfigError, FieldPath};
use dhow_expr::{Format, FormatContext, WithRequestHeaders};
use dhow_http::{HeaderMap, HeaderName, KnownHeader};
use dhow_matching::{RegexRewrite, UriTemplateRewrite, path_without_query};
use dhow_proto::any;
use dhow_proto::envoy::extensions::path::rewrite::uri_template::v3::UriTemplateRewriteConfig;

use crate::action::HostRewrite;
use crate::pb::core::TypedExtensionConfig;
use crate::pb::matcher::RegexMatchAndSubstitute;
use crate::route_match::RouteMatch;

/// How the path is rewritten; the query is always kept.
#[derive(Clone, Debug)]
pub enum PathRewrite {
    /// `prefix_rewrite`: what the route matched is replaced.
    Prefix(Box<[u8]>),
    /// `regex_rewrite`.
    Regex(RegexRewrite),
    /// `path_rewrite_policy`: all of it is replaced by a template with the variables of the route's.
    Template(Box<UriTemplateRewrite>),
    /// `path_rewrite`: all of it is replaced, unless the result is empty.
    Format(Format),
}

impl PathRewrite {
    /// At most one may be given.
    pub(crate) fn compile(
        prefix: &str,
        regex: Option<&RegexMatchAndSubstitute>,
        policy: Option<&TypedExtensionConfig>,
        format: &str,
        matched: &RouteMatch,
        path: &FieldPath,
    ) -> Result<Option<Self>, ConfigError> {
        let given = [!prefix.is_empty(), regex.is_some(), policy.is_some(), !format.is_empty()];
        if given.into_iter().filter(|given| *given).count() > 1 {
            let reason = "Specify only one of prefix_rewrite, regex_rewrite or path_rewrite_policy";
            return Err(ConfigError::new(path.clone(), reason));
        }
        if !prefix.is_empty() && matched.template().is_some() {
            let reason = "Cannot use prefix_rewrite with matcher extension";
            return Err(ConfigError::new(path.field("prefix_rewrite"), reason));
        }
        if let Some(regex) = regex {
            return Ok(Some(Self::Regex(RegexRewrite::compile(regex, &path.field("regex_rewrite"))?)));
        }
        if let Some(policy) = policy {
            return template_rewrite(policy, matched, &path.field("path_rewrite_policy")).map(Some);
        }
        if !format.is_empty() {
            let format = Format::parse(format).map_err(|e| e.under(&path.field("path_rewrite")))?;
            return Ok(Some(Self::Format(format.omitting_empty(true))));
        }
        Ok((!prefix.is_empty()).then(|| Self::Prefix(prefix.as_bytes().into())))
    }

    /// The rewritten path with its query; `None` when the path stays as it is, as it does where nothing would be left of it.
    pub(crate) fn rewritten(
        &self,
        matched: &RouteMatch,
        headers: &HeaderMap,
        context: &dyn FormatContext,
    ) -> Option<Vec<u8>> {
        let path = headers.path();
        let (just_path, query) = path.split_at(path_without_query(path).len());
        let mut out = Vec::with_capacity(path.len() + 32);
        match self {
            Self::Prefix(replacement) => {
                let replaced = matched.replaced_length(just_path)?;
                out.extend_from_slice(replacement);
                out.extend_from_slice(&just_path[replaced..]);
            }
            Self::Regex(regex) => {
                regex.append(just_path, &mut out);
            }
            Self::Template(rewrite) => {
                if !rewrite.append(matched.template()?, just_path, &mut out) {
                    return None;
                }
            }
            Self::Format(format) => {
                format.append(&WithRequestHeaders { headers, below: context }, &mut out);
            }
        }
        if out.is_empty() {
            return None;
        }
        out.extend_from_slice(query);
        Some(out)
    }

    pub(crate) fn apply(
        &self,
        matched: &RouteMatch,
        headers: &mut HeaderMap,
        context: &dyn FormatContext,
        keep_original: bool,
    ) {
        let Some(rewritten) = self.rewritten(matched, headers, context) else { return };
        if keep_original {
            let original = headers.path().to_vec();
            headers.set_known(KnownHeader::XEnvoyOriginalPath, &original);
        }
        headers.set_known(KnownHeader::Path, &rewritten);
    }
}

/// The rewrite by a template, which needs the route to match by one.
fn template_rewrite(
    message: &TypedExtensionConfig,
    matched: &RouteMatch,
    path: &FieldPath,
) -> Result<PathRewrite, ConfigError> {
    let TypedExtensionConfig { name, typed_config } = message;
    let path = path.field("typed_config");
    let config = typed_config.as_ref().ok_or_else(|| ConfigError::new(path.clone(), "value is required"))?;
    if !any::is::<UriTemplateRewriteConfig>(config) {
        let url = any::type_name(&config.type_url);
        let reason = format!("Didn't find a registered implementation for '{name}' with type URL: '{url}'");
        return Err(ConfigError::new(path, reason));
    }
    let UriTemplateRewriteConfig { path_template_rewrite } =
        any::unpack(config).map_err(|error| error.under(&path))?;
    let Some(template) = matched.template() else {
        let reason = "unable to use envoy.path.rewrite.uri_template.uri_template_rewriter extension without \
                      envoy.path.match.uri_template.uri_template_matcher extension";
        return Err(ConfigError::new(path, reason));
    };
    let rewrite = UriTemplateRewrite::compile(&path_template_rewrite, template)
        .map_err(|reason| ConfigError::new(path, reason))?;
    Ok(PathRewrite::Template(Box::new(rewrite)))
}

impl HostRewrite {
    pub(crate) fn apply(
        &self,
        headers: &mut HeaderMap,
        context: &dyn FormatContext,
        append_forwarded_host: bool,
        keep_original: bool,
    ) {
        let mut host = Vec::new();
        match self {
            Self::Literal(literal) => host.extend_from_slice(literal),
            Self::Header(name) => host.extend_from_slice(headers.get(name).unwrap_or_default()),
            Self::PathRegex(regex) => {
                regex.append(path_without_query(headers.path()), &mut host);
            }
            Self::Format(format) => format.append(&WithRequestHeaders { headers, below: context }, &mut host),
            Self::Auto => {}
        }
        if !host.is_empty() {
            set_authority(headers, &host, append_forwarded_host, keep_original);
        }
    }
}

/// Sets `:authority`. The former one is appended to `x-forwarded-host` on request, and kept in `x-envoy-original-host` on request.
pub fn set_authority(headers: &mut HeaderMap, host: &[u8], append_forwarded_host: bool, keep_original: bool) {
    let former = headers.authority().to_vec();
    if keep_original && !former.is_empty() {
        headers.set_known(KnownHeader::XEnvoyOriginalHost, &former);
    }
    if append_forwarded_host && !former.is_empty() {
        append_to_list(headers, &KnownHeader::XForwardedHost.into(), &former);
    }
    headers.set_known(KnownHeader::Authority, host);
}

/// Joins with a comma and no blank, as Envoy joins forwarded hosts, unless the list ends with the value already.
fn append_to_list(headers: &mut HeaderMap, name: &HeaderName, value: &[u8]) {
    match headers.get(name).filter(|before| !before.is_empty()) {
        Some(before) if before.rsplit(|&b| b == b',').find(|last| !last.is_empty()) == Some(value) => {}
        Some(before) => {
            let joined = [before, b",", value].concat();
            headers.set(name, &joined);
        }
        None => headers.set(name, value),
    }
}
