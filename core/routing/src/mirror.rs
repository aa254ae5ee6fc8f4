//! `RequestMirrorPolicy`.

use std::sync::Arc;

use dhow_base::{ConfigError, ConfigWarning, FieldPath};
use dhow_expr::FormatContext;
use dhow_http::{HeaderMap, HeaderName};

use crate::cluster::ClusterSource;
use crate::compile::{CompileOptions, mirrors};
use crate::headers::{HeaderMutations, Side};
use crate::pb::mutation::{HeaderMutation, header_mutation::Action};
use crate::pb::route::route_action::RequestMirrorPolicy;
use dhow_runtime_config::RuntimeFraction;

/// A copy of the request for another cluster, whose response is discarded.
#[derive(Clone, Debug)]
pub struct MirrorPolicy {
    /// Where to.
    pub cluster: ClusterSource,
    /// Of which requests; `None` is all.
    pub fraction: Option<RuntimeFraction>,
    /// Whether the host gets `-shadow` appended.
    pub host_suffix: bool,
    /// Replaces the host.
    pub host_rewrite: Option<Box<[u8]>>,
    mutations: Box<[HeaderMutations]>,
}

impl MirrorPolicy {
    /// Compiles the policies that something under `path` has under `request_mirror_policies`. Whether their clusters exist is not
    /// asked.
    ///
    /// # Errors
    /// When one has not exactly one of cluster and cluster header.
    pub fn compile_all(
        messages: &[RequestMirrorPolicy],
        path: &FieldPath,
        warnings: &mut Vec<ConfigWarning>,
    ) -> Result<Arc<[Self]>, ConfigError> {
        mirrors(messages, path, None, warnings)
    }

    /// Compiles the message.
    ///
    /// # Errors
    /// When not exactly one of cluster and cluster header is given, or the cluster does not exist.
    pub(crate) fn compile(
        message: &RequestMirrorPolicy,
        path: &FieldPath,
        validate: Option<&CompileOptions<'_>>,
    ) -> Result<Self, ConfigError> {
        let RequestMirrorPolicy {
            cluster,
            cluster_header,
            runtime_fraction,
            trace_sampled: _, // see `warnings`
            disable_shadow_host_suffix_append,
            request_headers_mutations,
            host_rewrite_literal,
        } = message;
        let source = match (cluster.is_empty(), cluster_header.is_empty()) {
            (false, true) => ClusterSource::named(cluster, "shadow ", &path.field("cluster"), validate)?,
            (true, false) => ClusterSource::Header(HeaderName::new(cluster_header)),
            (true, true) => {
                let reason =
                    "Exactly one of cluster or cluster_header in request mirror policy need to be specified";
                return Err(ConfigError::new(path.clone(), reason));
            }
            (false, false) => {
                let reason = format!(
                    "Only one of cluster '{cluster}' or cluster_header '{cluster_header}' in request mirror policy can be specified"
                );
                return Err(ConfigError::new(path.clone(), reason));
            }
        };
        let fraction = runtime_fraction.as_ref();
        let fraction =
            fraction.map(|f| RuntimeFraction::compile(f, &path.field("runtime_fraction"))).transpose()?;
        let mutations_path = path.field("request_headers_mutations");
        let mutations = request_headers_mutations
            .iter()
            .enumerate()
            .map(|(at, m)| mutation(m, &mutations_path.index(at)));
        Ok(Self {
            cluster: source,
            fraction,
            host_suffix: !disable_shadow_host_suffix_append,
            host_rewrite: (!host_rewrite_literal.is_empty()).then(|| host_rewrite_literal.as_bytes().into()),
            mutations: mutations.collect::<Result<_, _>>()?,
        })
    }

    /// What authors should know of the policies that something under `path` has.
    pub fn warnings<'a>(
        messages: &'a [RequestMirrorPolicy],
        path: &'a FieldPath,
    ) -> impl Iterator<Item = ConfigWarning> + 'a {
        let untraced = messages.iter().enumerate().filter(|(_, policy)| policy.trace_sampled.is_some());
        untraced.map(|(at, _)| {
            let path = path.field("request_mirror_policies").index(at).field("trace_sampled");
            ConfigWarning::new(path, "without effect: no spans are reported")
        })
    }

    /// Edits the headers of the copy.
    pub fn apply_to_request(&self, headers: &mut HeaderMap, context: &dyn FormatContext) {
        for mutation in &self.mutations {
            mutation.apply(Side::Request, headers, context);
        }
    }
}

fn mutation(message: &HeaderMutation, path: &FieldPath) -> Result<HeaderMutations, ConfigError> {
    let HeaderMutation { action } = message;
    match action {
        Some(Action::Remove(name)) => {
            HeaderMutations::compile(&[], path, std::slice::from_ref(name), &path.field("remove"))
        }
        Some(Action::Append(option)) => {
            HeaderMutations::compile(std::slice::from_ref(option), &path.field("append"), &[], path)
        }
        Some(Action::RemoveOnMatch(_)) => Err(ConfigError::unsupported(path.field("remove_on_match"))),
        None => Err(ConfigError::new(path.field("action"), "is required")),
    }
}
