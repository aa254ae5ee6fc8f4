//! The network filters and transport sockets that exist, as listeners build them.

use std::cell::RefCell;
use std::net::IpAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use dhow_base::{ConfigError, ConfigWarning, FieldPath};
use dhow_proto::envoy::config::core::v3::{TransportSocket, transport_socket};
use dhow_proto::envoy::config::listener::v3::{Filter, filter};
use dhow_proto::envoy::extensions::filters::network::direct_response::v3::Config as DirectResponseMessage;
use dhow_proto::envoy::extensions::filters::network::echo::v3::Echo as EchoMessage;
use dhow_proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager as HcmMessage;
use dhow_proto::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use dhow_proto::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy as TcpMessage;
use dhow_proto::envoy::extensions::transport_sockets::tls::v3::DownstreamTlsContext;
use dhow_proto::{Excerpts, Message};
use dhow_proxy_access_log::LogWriter;
use dhow_proxy_api::{NetworkFilter, ReadFilterFactory};
use dhow_proxy_filters::NETWORK_FILTERS;
use dhow_proxy_http::{
    ConnectionManagerConfig, FilterRegistry, HttpConnectionManager, LowerContext, RouteSource, http_tunnels,
};
use dhow_proxy_listener::{FilterContext, NetworkFilters};
use dhow_proxy_tcp::{DirectResponse, Echo, TcpProxy};
use dhow_proxy_upstream::ClusterManager;
use dhow_proxy_xds::PathSource;
use dhow_stats::Store;
use dhow_tls::{DownstreamTls, Secrets};

use crate::route_tables::RouteTables;

/// The filters that serve connections: nothing can come behind one.
const TERMINAL: [&str; 4] = [
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
    "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
    "envoy.extensions.filters.network.echo.v3.Echo",
    "envoy.extensions.filters.network.direct_response.v3.Config",
];

/// Builds network filters with what they share.
#[derive(Clone)]
pub(crate) struct FilterBuilder {
    pub(crate) store: Arc<Store>,
    /// Where virtual hosts are counted, whichever listener's they are.
    pub(crate) route_stats: Arc<Store>,
    pub(crate) log_writer: Arc<LogWriter>,
    pub(crate) clusters: ClusterManager,
    pub(crate) routes: Rc<RefCell<RouteTables>>,
    pub(crate) node_cluster: Arc<str>,
    pub(crate) local_cluster: Arc<str>,
    pub(crate) node_id: Arc<str>,
    pub(crate) node_address: IpAddr,
    /// `static_resources.secrets`.
    pub(crate) secrets: Arc<Secrets>,
}

impl NetworkFilters for FilterBuilder {
    fn build(
        &self,
        filter: Filter,
        context: &FilterContext,
        path: &FieldPath,
        warnings: &mut Vec<ConfigWarning>,
    ) -> Result<Arc<dyn NetworkFilter>, ConfigError> {
        let Filter { name, config_type } = filter;
        let config = match config_type {
            Some(filter::ConfigType::TypedConfig(config)) => config,
            Some(filter::ConfigType::ConfigDiscovery(_)) => {
                return Err(ConfigError::unsupported(path.field("config_discovery")));
            }
            None => return Err(unknown(&name, "", path)),
        };
        let path = path.field("typed_config");
        match dhow_proto::any::resolve(&config).map_err(|error| error.under(&path))?.type_name.as_str() {
            "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager" => {
                let message: HcmMessage =
                    dhow_proto::any::unpack(&config).map_err(|error| error.under(&path))?;
                self.build_http(message, context, &path, warnings)
            }
            "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy" => {
                let message: TcpMessage =
                    dhow_proto::any::unpack(&config).map_err(|error| error.under(&path))?;
                let config = dhow_proxy_tcp::lower(message, &self.log_writer, &path, warnings)?;
                Ok(Arc::new(TcpProxy::new(config, &self.store, http_tunnels)))
            }
            "envoy.extensions.filters.network.echo.v3.Echo" => {
                let EchoMessage {} = dhow_proto::any::unpack(&config).map_err(|error| error.under(&path))?;
                Ok(Arc::new(Echo))
            }
            "envoy.extensions.filters.network.direct_response.v3.Config" => {
                let message: DirectResponseMessage =
                    dhow_proto::any::unpack(&config).map_err(|error| error.under(&path))?;
                Ok(Arc::new(DirectResponse::from_message(message, &path)?))
            }
            other => Err(unknown(&name, other, &path)),
        }
    }

    fn build_read_filter(
        &self,
        filter: Filter,
        path: &FieldPath,
        warnings: &mut Vec<ConfigWarning>,
    ) -> Result<Arc<dyn ReadFilterFactory>, ConfigError> {
        let Filter { name, config_type } = filter;
        let config = match config_type {
            Some(filter::ConfigType::TypedConfig(config)) => config,
            Some(filter::ConfigType::ConfigDiscovery(_)) => {
                return Err(ConfigError::unsupported(path.field("config_discovery")));
            }
            None => return Err(unknown(&name, "", path)),
        };
        let path = path.field("typed_config");
        let resolved = dhow_proto::any::resolve(&config).map_err(|error| error.under(&path))?;
        let type_name = resolved.type_name.as_str();
        if let Some(known) = NETWORK_FILTERS.iter().find(|known| known.type_name == type_name) {
            return (known.configure)(&config, &self.store, &path, warnings);
        }
        if TERMINAL.contains(&type_name) {
            let reason = format!(
                "Error: terminal filter named {name} of type {} must be the last filter in \
                 a network filter chain.",
                factory_name(type_name)
            );
            return Err(ConfigError::new(path, reason));
        }
        Err(unknown(&name, type_name, &path))
    }

    fn counting_in(&self, store: &Store) -> Box<dyn NetworkFilters> {
        Box::new(Self { store: Arc::new(store.clone()), ..self.clone() })
    }

    fn log_writer(&self) -> &Arc<LogWriter> {
        &self.log_writer
    }

    fn build_tls(
        &self,
        socket: TransportSocket,
        path: &FieldPath,
        warnings: &mut Vec<ConfigWarning>,
    ) -> Result<Option<Arc<DownstreamTls>>, ConfigError> {
        let TransportSocket { name, config_type } = socket;
        let config = config_type.map(|transport_socket::ConfigType::TypedConfig(config)| config);
        let type_name = config.as_ref().map_or("", |config| dhow_proto::any::type_name(&config.type_url));
        match (type_name, name.as_str()) {
            ("envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer", _)
            | ("", "envoy.transport_sockets.raw_buffer") => Ok(None),
            ("envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext", _) => {
                let path = path.field("typed_config");
                let config = config.unwrap_or_default();
                let message: DownstreamTlsContext =
                    dhow_proto::any::unpack(&config).map_err(|error| error.under(&path))?;
                DownstreamTls::from_message(&message, &self.secrets, &path, warnings)
                    .map(|tls| Some(Arc::new(tls)))
            }
            (other, _) => Err(unknown(&name, other, path)),
        }
    }
}

impl FilterBuilder {
    /// Lowers a connection manager.
    ///
    /// # Errors
    /// The first field that is not acceptable.
    pub(crate) fn lower_http(
        &self,
        message: HcmMessage,
        path: &FieldPath,
        warnings: &mut Vec<ConfigWarning>,
    ) -> Result<ConnectionManagerConfig, ConfigError> {
        let context = LowerContext {
            registry: FilterRegistry { filters: dhow_proxy_filters::all() },
            store: &self.store,
            log_writer: &self.log_writer,
            cluster_exists: &|name| self.clusters.contains(name),
            node_cluster: &self.node_cluster,
            local_cluster: &self.local_cluster,
            node_id: &self.node_id,
            node_address: self.node_address,
        };
        dhow_proxy_http::lower(message, &context, path, warnings)
    }

    fn build_http(
        &self,
        message: HcmMessage,
        context: &FilterContext,
        path: &FieldPath,
        warnings: &mut Vec<ConfigWarning>,
    ) -> Result<Arc<dyn NetworkFilter>, ConfigError> {
        let inline = match &message.route_specifier {
            Some(RouteSpecifier::RouteConfig(routes)) => {
                Excerpts::of(context.encoded.clone()).share(routes.encode_to_vec())
            }
            _ => Bytes::new(),
        };
        let config = self.lower_http(message, path, warnings)?;
        let subscription = match &config.routes {
            RouteSource::Static(_) | RouteSource::Scoped(_) => None,
            RouteSource::Rds { name, file, initial_fetch_timeout } => {
                let file = file.as_ref().map(|file| PathSource {
                    path: PathBuf::from(&*file.path),
                    watched_directory: file.watched_directory.as_deref().map(PathBuf::from),
                });
                Some((name.clone(), file, *initial_fetch_timeout))
            }
        };
        let prefix = &context.listener_stat_prefix;
        let manager = Arc::new(HttpConnectionManager::new(config, &self.store, &self.route_stats, prefix));
        let mut routes = self.routes.borrow_mut();
        match subscription {
            None => routes.add_static(&manager, inline),
            Some((name, file, timeout)) => routes.subscribe(name, file, timeout, &manager),
        }
        Ok(manager)
    }
}

/// Envoy's name for the filter whose configuration is of this type.
fn factory_name(type_name: &str) -> String {
    let kind = type_name.rsplit('.').nth(2).unwrap_or(type_name);
    format!("envoy.filters.network.{kind}")
}

fn unknown(name: &str, type_name: &str, path: &FieldPath) -> ConfigError {
    let reason = format!("Didn't find a registered implementation for '{name}' with type URL: '{type_name}'");
    ConfigError::new(path.clone(), reason)
}
