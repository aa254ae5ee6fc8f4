//! `RouteAction`: everything about forwarding a request.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use dhow_expr::Format;
use dhow_http::HeaderName;
use dhow_matching::{MetadataCriteria, RegexRewrite};

use crate::cluster::ClusterChoice;
use crate::hash::HashPolicy;
use crate::internal_redirect::InternalRedirectPolicy;
use crate::mirror::MirrorPolicy;
use crate::rate_limit::RateLimitRule;
use crate::retry::RetryPolicy;
use crate::rewrite::PathRewrite;

/// `RoutingPriority`: which circuit breaker thresholds apply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Priority {
    /// `DEFAULT`.
    #[default]
    Default,
    /// `HIGH`.
    High,
}

/// How the host is rewritten.
#[derive(Clone, Debug)]
pub enum HostRewrite {
    /// `host_rewrite_literal`.
    Literal(Box<[u8]>),
    /// `host_rewrite_header`: the value of a header.
    Header(HeaderName),
    /// `host_rewrite_path_regex`: a substitution over the path without its query.
    PathRegex(RegexRewrite),
    /// `host_rewrite`.
    Format(Format),
    /// `auto_host_rewrite`: the upstream host's name, set by whoever chose the host.
    Auto,
}

/// `HedgePolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HedgePolicy {
    /// Whether a per-try time-out leaves the attempt running.
    pub hedge_on_per_try_timeout: bool,
}

/// `UpgradeConfig`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpgradeConfig {
    /// Lower-case type, such as `websocket` or `connect`.
    pub kind: Box<str>,
    /// Whether the upgrade is allowed on this route.
    pub enabled: bool,
    /// `connect_config` is present: the CONNECT request ends here and its payload goes to the upstream.
    pub terminate_connect: bool,
    /// `connect_config.allow_post`: POST requests are treated alike.
    pub allow_post: bool,
    /// `connect_config.proxy_protocol_config`: the header in front of the payload.
    pub proxy_protocol: Option<ProxyProtocol>,
}

/// `ProxyProtocolConfig.version`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// The line of text.
    V1,
    /// The binary header.
    V2,
}

/// A compiled `envoy.config.route.v3.RouteAction`. Its [`ForwardSettings`] are read as if they were its own.
#[derive(Clone, Debug)]
pub struct ForwardAction {
    /// Where to.
    pub cluster: ClusterChoice,
    /// How; shared by routes that are forwarded alike.
    pub settings: Arc<ForwardSettings>,
}

impl Deref for ForwardAction {
    type Target = ForwardSettings;

    fn deref(&self) -> &ForwardSettings {
        &self.settings
    }
}

/// Everything about forwarding but the cluster. A mesh has thousands of routes that differ in nothing else.
#[derive(Clone, Debug)]
pub struct ForwardSettings {
    /// Status when the cluster does not exist: 503, 404 or 500.
    pub cluster_not_found_status: u16,
    /// `envoy.lb` metadata that hosts must have.
    pub metadata_match: Option<MetadataCriteria>,
    /// Change of the path.
    pub path_rewrite: Option<PathRewrite>,
    /// Change of the host.
    pub host_rewrite: Option<HostRewrite>,
    /// Whether the former host is appended to `x-forwarded-host`.
    pub append_x_forwarded_host: bool,
    /// Time from the end of the request to the end of the response; `None`: not limited. 15 s when not configured.
    pub timeout: Option<Duration>,
    /// Time without data; `None`: the connection manager's; zero: not limited.
    pub idle_timeout: Option<Duration>,
    /// Time to flush what is left; `None`: the connection manager's; zero: not limited.
    pub flush_timeout: Option<Duration>,
    /// Life of the stream; `None`: the connection manager's; zero: not limited.
    pub max_stream_duration: Option<Duration>,
    /// Whether `max_stream_duration` is there at all: `timeout` does not count then.
    pub has_stream_duration: bool,
    /// Upper bound of a life that `grpc-timeout` asks for; `None`: the header is not used; zero: no bound.
    pub grpc_timeout_header_max: Option<Duration>,
    /// Taken off a life that `grpc-timeout` asks for.
    pub grpc_timeout_header_offset: Option<Duration>,
    /// `max_grpc_timeout`: upper bound of a `timeout` that `grpc-timeout` asks for; `None`: the header is not used; zero: no bound.
    pub max_grpc_timeout: Option<Duration>,
    /// `grpc_timeout_offset`: taken off such a `timeout` that is longer.
    pub grpc_timeout_offset: Option<Duration>,
    /// The route's retry policy, or its virtual host's.
    pub retry_policy: Option<Arc<RetryPolicy>>,
    /// The route's hedge policy, or its virtual host's.
    pub hedge_policy: Option<HedgePolicy>,
    /// Copies of the request; the route's, or its virtual host's, or the table's.
    pub mirror_policies: Arc<[MirrorPolicy]>,
    /// Circuit breaker thresholds.
    pub priority: Priority,
    /// What the hash for consistent hashing is made of.
    pub hash_policies: Box<[HashPolicy]>,
    /// Rate limit descriptors of the route.
    pub rate_limits: Box<[RateLimitRule]>,
    /// Whether the virtual host's descriptors apply too, whatever filters say (`include_vh_rate_limits`).
    pub include_virtual_host_rate_limits: bool,
    /// Upgrades that differ from the connection manager's.
    pub upgrades: Box<[UpgradeConfig]>,
    /// Redirects that are followed here.
    pub internal_redirect_policy: Option<Box<InternalRedirectPolicy>>,
}

impl ForwardSettings {
    /// Whether the host is to be set to the chosen upstream host's name.
    pub fn is_auto_host_rewrite(&self) -> bool {
        matches!(self.host_rewrite, Some(HostRewrite::Auto))
    }

    /// What the route says about an upgrade; `None`: the connection manager decides.
    pub fn upgrade(&self, kind: &str) -> Option<&UpgradeConfig> {
        self.upgrades.iter().find(|upgrade| upgrade.kind.eq_ignore_ascii_case(kind))
    }
}
