//! The admin interface as a listener of the main thread: the connection manager reads, counts and logs its requests as it does all
//! others, and the endpoints answer them in the place of filters and a router.

use std::rc::Rc;
use std::sync::Arc;

use dhow_base::{ConfigError, ConfigWarning, FieldPath, Rng};
use dhow_http::{HeaderMap, HeaderName, KnownHeader};
use dhow_net::StreamAddress;
use dhow_proto::envoy::config::core::v3 as core;
use dhow_proto::envoy::config::listener::v3 as pb;
use dhow_proto::envoy::config::route::v3::RouteConfiguration;
use dhow_proto::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use dhow_proto::google::protobuf::{BoolValue, Duration};
use dhow_proxy_access_log::LogWriter;
use dhow_proxy_admin::{Admin, AdminState, Reply};
use dhow_proxy_api::{ConnectionHandler, NetworkFilter, ReadFilterFactory};
use dhow_proxy_http::{ConnectionManagerConfig, HttpConnectionManager, Responder, Response};
use dhow_proxy_listener::{FilterContext, ListenerManager, NetworkFilters};
use dhow_proxy_runtime::Worker;
use dhow_proxy_upstream::{ClusterManager, WorkerClusters};
use dhow_stats::Store;
use dhow_tls::DownstreamTls;

use crate::bootstrap::AdminSettings;
use crate::network_filters::FilterBuilder;

/// In the names of statistics, and the listener's own.
const NAME: &str = "admin";

/// The connection manager of the admin interface, with Envoy's settings.
///
/// # Errors
/// An access log that is not acceptable.
pub(crate) fn lower(
    settings: &AdminSettings,
    filters: &FilterBuilder,
) -> Result<ConnectionManagerConfig, ConfigError> {
    let off = Some(Duration::default());
    let message = hcm::HttpConnectionManager {
        stat_prefix: NAME.to_owned(),
        access_log: settings.access_logs.clone(),
        use_remote_address: flag(true),
        generate_request_id: flag(false),
        normalize_path: flag(true),
        merge_slashes: true,
        http_protocol_options: Some(core::Http1ProtocolOptions {
            allow_absolute_url: flag(false),
            ..Default::default()
        }),
        common_http_protocol_options: Some(core::HttpProtocolOptions {
            idle_timeout: off,
            ..Default::default()
        }),
        stream_idle_timeout: off,
        delayed_close_timeout: off,
        route_specifier: Some(hcm::http_connection_manager::RouteSpecifier::RouteConfig(
            RouteConfiguration::default(),
        )),
        ..Default::default()
    };
    filters.lower_http(message, &FieldPath::root().field("admin"), &mut Vec::new())
}

/// Opens the interface, and gives its address.
///
/// # Errors
/// When its address cannot be bound.
pub(crate) fn open(
    settings: &AdminSettings,
    config: ConnectionManagerConfig,
    state: Rc<dyn AdminState>,
    clusters: &ClusterManager,
    listeners: &ListenerManager,
    filters: &FilterBuilder,
) -> Result<StreamAddress, ConfigError> {
    let thread = Worker::main(Rng::from_entropy());
    // Nothing is sent to clusters from here; who serves HTTP knows of them all the same.
    thread.extension(|_| WorkerClusters::new(clusters.published(), Rng::from_entropy()));
    let admin = Admin::new(state, settings.allow_paths.clone());
    thread.extension(|_| Rc::new(Endpoints(Rc::new(admin))));
    let message = pb::Listener {
        name: NAME.to_owned(),
        stat_prefix: NAME.to_owned(),
        address: settings.address.clone(),
        filter_chains: vec![pb::FilterChain { filters: vec![pb::Filter::default()], ..Default::default() }],
        enable_reuse_port: flag(false),
        ignore_global_conn_limit: settings.ignore_global_conn_limit,
        bypass_overload_manager: true,
        socket_options: settings.socket_options.clone(),
        ..Default::default()
    };
    let filter = AdminFilter(HttpConnectionManager::without_router(config, &filters.store, NAME));
    let only = OnlyFilter { filter: Arc::new(filter), log_writer: filters.log_writer.clone() };
    if !settings.access_logs.is_empty() {
        flush_regularly(filters.log_writer.clone());
    }
    listeners.open_apart(message, &thread, &only, &FieldPath::root().field("admin"))
}

fn flag(value: bool) -> Option<BoolValue> {
    Some(BoolValue { value })
}

/// Hands over what this thread holds of access logs, as workers do.
fn flush_regularly(writer: Arc<LogWriter>) {
    tokio::task::spawn_local(async move {
        let mut interval = tokio::time::interval(writer.flush_interval());
        loop {
            interval.tick().await;
            writer.flush_worker();
        }
    });
}

/// The endpoints as they answer requests.
struct Endpoints(Rc<Admin>);

impl Responder for Endpoints {
    fn respond(&self, request: &HeaderMap, body: &[u8]) -> Response {
        let method = String::from_utf8_lossy(request.method());
        let path = String::from_utf8_lossy(request.path());
        let form = request.get_known(KnownHeader::ContentType) == Some(b"application/x-www-form-urlencoded");
        let Reply { status, content_type, sniffing_forbidden_twice, body } =
            self.0.handle(&method, &path, form.then_some(body));
        let no_sniffing = || (HeaderName::new("x-content-type-options"), b"nosniff".to_vec());
        let mut headers = Vec::with_capacity(4);
        headers.extend(sniffing_forbidden_twice.then(no_sniffing));
        headers.extend([
            (KnownHeader::ContentType.into(), content_type.into()),
            (KnownHeader::CacheControl.into(), b"no-cache, max-age=0".into()),
            no_sniffing(),
        ]);
        let admin = self.0.clone();
        Response {
            status,
            details: "admin_filter_response",
            headers,
            body: Box::new(move || admin.render(body)),
        }
    }
}

/// The filter of the listener.
#[derive(Debug)]
struct AdminFilter(HttpConnectionManager);

impl NetworkFilter for AdminFilter {
    fn on_worker(&self, worker: &Rc<Worker>) -> Rc<dyn ConnectionHandler> {
        self.0.answered_by(worker.existing_extension::<Endpoints>(), worker)
    }
}

/// Builds listeners with one filter, whatever they ask for.
#[derive(Clone)]
struct OnlyFilter {
    filter: Arc<AdminFilter>,
    log_writer: Arc<LogWriter>,
}

impl NetworkFilters for OnlyFilter {
    fn build(
        &self,
        _filter: pb::Filter,
        _context: &FilterContext,
        _path: &FieldPath,
        _warnings: &mut Vec<ConfigWarning>,
    ) -> Result<Arc<dyn NetworkFilter>, ConfigError> {
        Ok(self.filter.clone())
    }

    fn build_read_filter(
        &self,
        _filter: pb::Filter,
        path: &FieldPath,
        _warnings: &mut Vec<ConfigWarning>,
    ) -> Result<Arc<dyn ReadFilterFactory>, ConfigError> {
        Err(ConfigError::unsupported(path.clone()))
    }

    fn counting_in(&self, _store: &Store) -> Box<dyn NetworkFilters> {
        Box::new(self.clone())
    }

    fn log_writer(&self) -> &Arc<LogWriter> {
        &self.log_writer
    }

    fn build_tls(
        &self,
        _socket: core::TransportSocket,
        path: &FieldPath,
        _warnings: &mut Vec<ConfigWarning>,
    ) -> Result<Option<Arc<DownstreamTls>>, ConfigError> {
        Err(ConfigError::unsupported(path.clone()))
    }
}
