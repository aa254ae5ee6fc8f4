//! HTTP filters: synchronous callbacks with Envoy's verdicts.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use dhow_base::{ConfigError, ConfigWarning, FieldPath};
use dhow_http::HeaderMap;
use dhow_proto::envoy::config::core::v3::Metadata;
use dhow_proto::envoy::extensions::common::dynamic_forward_proxy::v3::DnsCacheConfig;
use dhow_proto::google::protobuf::Any as ProtoAny;
use dhow_routing::{FilterConfigObject, FilterOverride, RuntimeValues, SelectedRoute};

use crate::connection::ConnectionInfo;
use crate::local_reply::LocalReply;
use crate::network::LocalFuture;
use crate::stream_info::StreamInfo;

/// What a filter decides about a head.
pub enum HeadersVerdict {
    /// Go on with the next filter.
    Continue,
    /// Answer now; later filters do not see the request. For a response: answer this instead.
    LocalReply(LocalReply),
    /// Stop the chain until the future ends (a delay, a call to another service). The future is dropped, and so the work
    /// cancelled, when the stream ends first.
    Wait(LocalFuture<Resumption>),
    /// Keep the head back until a body callback of this filter lets something of the body go on, or the message ends. Only
    /// for a filter that watches the body, and only when there is one.
    Hold,
}

/// What a filter decides about a part of a body.
pub enum DataVerdict {
    /// What the filter held back and what arrived goes on to the next filter.
    Continue,
    /// What arrived is held back too. Above the stream's limit (`StreamControl`) a request is answered 413 and a response
    /// replaced by 500.
    StopAndBuffer,
    /// What arrived is held back too, and the sender is stopped until the future ends.
    Wait(LocalFuture<Resumption>),
    /// What is in `data` goes on, what is in `held` stays, and the sender is stopped until the future ends; then the filter is
    /// called again, with nothing new.
    Pace(LocalFuture<()>),
    /// Answer now. Once the response head is on its way the response breaks off instead.
    LocalReply(LocalReply),
}

/// What a filter decides about trailers.
pub enum TrailersVerdict {
    /// What the filter held back of the body goes on, and then the trailers.
    Continue,
    /// Answer now. Once the response head is on its way the response breaks off instead.
    LocalReply(LocalReply),
}

/// How the chain goes on after [`HeadersVerdict::Wait`].
pub enum Resumption {
    /// Go on with the next filter, after [`HttpFilter::decode_resumed`].
    Continue,
    /// Answer now.
    LocalReply(LocalReply),
}

/// A part of a body as a filter sees it.
#[derive(Debug)]
pub struct BodyPart<'a> {
    /// What arrived; the filter may change it.
    pub data: &'a mut BytesMut,
    /// What the filter held back before; it comes in front of `data`.
    pub held: &'a mut BytesMut,
    /// Whether this is the end of the message. With trailers the end is [`HttpFilter::decode_trailers`].
    pub end_stream: bool,
}

/// Which parts of the messages besides the heads a filter wants to see. Bodies of streams on which no filter watches any are
/// passed on without being looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watches(u8);

impl Watches {
    /// Heads only.
    pub const NOTHING: Self = Self(0);
    /// The body of the request, and its trailers.
    pub const REQUEST: Self = Self(0b0011);
    /// Only the trailers of the request.
    pub const REQUEST_TRAILERS: Self = Self(0b0010);
    /// The body of the response, and its trailers.
    pub const RESPONSE: Self = Self(0b1100);
    /// Only the trailers of the response.
    pub const RESPONSE_TRAILERS: Self = Self(0b1000);

    /// What both want.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether any of `other` is watched.
    pub const fn any_of(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether the body itself of the request is watched.
    pub const fn request_data(self) -> bool {
        self.0 & 0b0001 != 0
    }

    /// Whether the body itself of the response is watched.
    pub const fn response_data(self) -> bool {
        self.0 & 0b0100 != 0
    }
}

/// What a filter callback sees of its stream besides the headers.
pub struct FilterStream<'a> {
    /// Facts of the stream; filters may add to them.
    pub info: &'a mut StreamInfo,
    /// Random number of this stream, stable over all its decisions.
    pub random: u64,
    /// What filters decide about the stream as a whole.
    pub control: &'a mut StreamControl,
    /// Runtime values.
    pub runtime: &'a dyn RuntimeValues,
    /// The clusters.
    pub clusters: &'a dyn Clusters,
}

impl FilterStream<'_> {
    /// Facts of the connection.
    pub fn connection(&self) -> &ConnectionInfo {
        &self.info.connection
    }

    /// The selected route, if there is one.
    pub fn route(&self) -> Option<&SelectedRoute> {
        self.info.route.as_ref()
    }

    /// Has the route selected anew, by what the request is after this callback. Without effect once the request is under
    /// way to a host.
    pub fn clear_route_cache(&mut self) {
        self.control.reselect_route = true;
    }
}

/// What filters decide about their stream as a whole.
#[derive(Clone, Copy, Debug)]
pub struct StreamControl {
    /// The route is to be selected anew before the next filter sees the request.
    pub reselect_route: bool,
    /// Bytes of the request body that may be held back; above it the request is answered 413.
    pub request_buffer_limit: usize,
    /// Bytes of the response body that may be held back; above it the response is replaced by 500.
    pub response_buffer_limit: usize,
}

/// What filters may know of clusters, and of the health of this proxy.
pub trait Clusters {
    /// Whether this proxy is to fail the health checks of others (`/healthcheck/fail`).
    fn is_failing_health_checks(&self) -> bool;

    /// How many hosts of a cluster are there and usable; none when there is no such cluster.
    fn membership(&self, cluster: &str) -> Option<Membership>;

    /// The scope of a cluster's statistics, `cluster.<name>`; it lives as long as the cluster does. None when there is no
    /// such cluster.
    fn stats(&self, cluster: &str) -> Option<dhow_stats::Scope>;

    /// The metadata of a cluster, if there is such a cluster and it has some.
    fn metadata(&self, cluster: &str) -> Option<Arc<Metadata>>;

    /// What a cluster whose hosts are those that requests name knows of the host `authority`, with this port unless it says
    /// otherwise; it looks for it if need be.
    fn resolve_host(&self, _cluster: &str, _authority: &str, _port: Option<u16>) -> HostResolution {
        HostResolution::NotDynamic
    }
}

/// The answer to [`Clusters::resolve_host`].
pub enum HostResolution {
    /// There is no such cluster, or its hosts are none of the request's business.
    NotDynamic,
    /// The host is known, with this address if it is one of IP.
    Ready(Option<SocketAddr>),
    /// There is no such host; why.
    Failed(Arc<str>),
    /// It is being looked for. The future ends with an error as in [`HostResolution::Failed`].
    Wait(LocalFuture<Result<(), Arc<str>>>),
    /// The request names no host.
    Unnamed,
    /// A cluster is being made for it. The future ends when that is there.
    ClusterWarms(LocalFuture<()>),
    /// As many clusters were made for hosts as there may be, and none is for this one.
    TooManyClusters,
    /// As many hosts are known as there may be, and this is not one of them.
    CacheFull,
    /// As many requests wait as may.
    TooManyPending,
}

/// The hosts of a cluster, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// All hosts.
    pub total: u64,
    /// Healthy hosts.
    pub healthy: u64,
    /// Hosts that are usable and not at their best.
    pub degraded: u64,
}

/// No clusters at all, for streams that have none to ask for.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoClusters;

impl Clusters for NoClusters {
    fn is_failing_health_checks(&self) -> bool {
        false
    }

    fn membership(&self, _cluster: &str) -> Option<Membership> {
        None
    }

    fn stats(&self, _cluster: &str) -> Option<dhow_stats::Scope> {
        None
    }

    fn metadata(&self, _cluster: &str) -> Option<Arc<Metadata>> {
        None
    }
}

/// One filter of one stream.
pub trait HttpFilter {
    /// The request head arrived; `end_stream` when there is no body. Filters run in configuration order.
    fn decode_headers(
        &mut self,
        request: &mut HeaderMap,
        end_stream: bool,
        stream: &mut FilterStream<'_>,
    ) -> HeadersVerdict;

    /// The future of [`HeadersVerdict::Wait`] ended with [`Resumption::Continue`].
    fn decode_resumed(&mut self, _request: &mut HeaderMap, _stream: &mut FilterStream<'_>) {}

    /// What the filter wants to see besides heads. Asked after each of its callbacks for heads, since what matters is often known
    /// only then.
    fn watches(&self) -> Watches {
        Watches::NOTHING
    }

    /// A part of the request body arrived. What is done to `request` reaches filters and hosts that have not seen it yet: those
    /// behind a filter that holds the head back.
    fn decode_data(
        &mut self,
        _request: &mut HeaderMap,
        _part: BodyPart<'_>,
        _stream: &mut FilterStream<'_>,
    ) -> DataVerdict {
        DataVerdict::Continue
    }

    /// The trailers of the request arrived.
    fn decode_trailers(
        &mut self,
        _request: &mut HeaderMap,
        _trailers: &mut HeaderMap,
        _stream: &mut FilterStream<'_>,
    ) -> TrailersVerdict {
        TrailersVerdict::Continue
    }

    /// The response head arrived (from upstream or as a local reply). Filters run in reverse order.
    fn encode_headers(
        &mut self,
        _request: &HeaderMap,
        _response: &mut HeaderMap,
        _end_stream: bool,
        _stream: &mut FilterStream<'_>,
    ) -> HeadersVerdict {
        HeadersVerdict::Continue
    }

    /// A part of the response body arrived. What is done to `response` reaches filters and clients that have not seen it yet.
    fn encode_data(
        &mut self,
        _response: &mut HeaderMap,
        _part: BodyPart<'_>,
        _stream: &mut FilterStream<'_>,
    ) -> DataVerdict {
        DataVerdict::Continue
    }

    /// The trailers of the response arrived.
    fn encode_trailers(
        &mut self,
        _request: &HeaderMap,
        _response: &mut HeaderMap,
        _trailers: &mut HeaderMap,
        _stream: &mut FilterStream<'_>,
    ) -> TrailersVerdict {
        TrailersVerdict::Continue
    }

    /// The stream ended, however it did.
    fn on_stream_complete(&mut self, _info: &StreamInfo) {}

    /// Forgets the stream, so that the filter serves another one as if it had just been made for it by the same factory without
    /// overrides of routes; a chain of such filters is kept instead of made for each request. False, unless said otherwise:
    /// the filter is dropped.
    fn renew(&mut self) -> bool {
        false
    }
}

/// A configured filter: shared by all workers, immutable; makes one filter per stream.
pub trait HttpFilterFactory: fmt::Debug + Send + Sync {
    /// Makes the filter of a stream, or none when it has nothing to do on it. `levels` is what the route, its virtual host and
    /// its table say under the filter's configured name, the most specific first; empty when they say nothing. Whether there is a
    /// filter depends on nothing but them.
    fn create(&self, levels: &[FilterOverride]) -> Option<Box<dyn HttpFilter>>;

    /// Another name under which routes speak to the filter: what they say there counts where they say nothing under the
    /// configured one.
    fn other_name(&self) -> Option<&'static str> {
        None
    }
}

/// What a filter is configured in.
pub struct FilterContext<'a> {
    /// In front of the names of its stats, with a dot at the end: `http.<stat_prefix>.`.
    pub stat_prefix: &'a str,
    /// Where its stats live.
    pub stats: &'a dhow_stats::Store,
    /// Configured name of the filter.
    pub name: Arc<str>,
    /// `node.cluster`.
    pub node_cluster: &'a str,
    /// `cluster_manager.local_cluster_name`: the cluster that this proxy is a host of; empty when none is named.
    pub local_cluster: &'a str,
    /// Whether clusters would take the settings of a DNS cache.
    pub check_dns_cache: CheckDnsCache,
    /// Takes what is worth saying and no reason to refuse the configuration.
    pub warnings: &'a mut Vec<ConfigWarning>,
}

/// Checks the settings of a DNS cache as they are checked where a cluster has them.
pub type CheckDnsCache = fn(DnsCacheConfig, &FieldPath, &mut Vec<ConfigWarning>) -> Result<(), ConfigError>;

impl FilterContext<'_> {
    /// The scope `<stat_prefix><name>`.
    pub fn scope(&self, name: &str) -> dhow_stats::Scope {
        self.stats.scope(&format!("{}{name}", self.stat_prefix))
    }

    /// Says something about a field.
    pub fn warn(&mut self, path: FieldPath, why: impl Into<String>) {
        self.warnings.push(ConfigWarning::new(path, why.into()));
    }
}

/// What the configuration of a route or virtual host is read in.
#[derive(Clone, Copy, Debug)]
pub struct RouteFilterContext<'a> {
    /// Where stats of the route's own live.
    pub stats: &'a dhow_stats::Store,
    /// `cluster_manager.local_cluster_name`; empty when none is named.
    pub local_cluster: &'a str,
}

/// Parses what a route or virtual host says to a filter.
pub type ConfigureRoute = fn(
    config: &ProtoAny,
    context: &RouteFilterContext<'_>,
    path: &FieldPath,
) -> Result<FilterConfigObject, ConfigError>;

/// Builds a factory from the configuration of a filter.
pub type ConfigureFilter = fn(
    config: &ProtoAny,
    context: &mut FilterContext<'_>,
    path: &FieldPath,
) -> Result<Arc<dyn HttpFilterFactory>, ConfigError>;

/// What a filter folder registers.
#[derive(Clone, Copy)]
pub struct HttpFilterDescriptor {
    /// Envoy's canonical name, such as `envoy.filters.http.fault`.
    pub name: &'static str,
    /// Type of the configuration message, without the `type.googleapis.com/` prefix.
    pub type_name: &'static str,
    /// Type of the per-route configuration message, when the filter has one.
    pub route_type_name: Option<&'static str>,
    /// Builds the factory from the configuration. Warnings are appended; an unsupported field that is set is an error
    /// that names its path.
    pub configure: ConfigureFilter,
    /// Parses the per-route configuration.
    pub configure_route: ConfigureRoute,
}

impl fmt::Debug for HttpFilterDescriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpFilterDescriptor").field("name", &self.name).finish_non_exhaustive()
    }
}
