//! A stream to run filters on, with its route selected out of a route configuration in YAML.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use dhow_base::{ConfigError, FieldPath};
use dhow_http::HeaderMap;
use dhow_net::StreamAddress;
use dhow_proto::envoy::config::route::v3::RouteConfiguration;
use dhow_proto::google::protobuf::Any;
use dhow_proto::{LoadOptions, Name, load_yaml};
use dhow_proxy_api::{
    ConnectionInfo, ConnectionTls, FilterContext, FilterStream, HeadersVerdict, HttpFilter,
    HttpFilterDescriptor, HttpFilterFactory, NoClusters, Protocol, Resumption, RouteFilterContext,
    StreamControl, StreamInfo,
};
use dhow_routing::{CompileOptions, NoRuntime, RouteInput, RouteTable};
use dhow_stats::Store;

/// Loads a message as configuration does.
pub(crate) fn packed<M: Name + Default>(yaml: &str) -> Any {
    dhow_proto::any::pack(&load_yaml::<M>(yaml, &LoadOptions::default()).expect(yaml).message)
}

/// Configures a filter of the registry under the stat prefix `http.test.`.
pub(crate) fn configure<M: Name + Default>(
    yaml: &str,
    store: &Store,
) -> Result<Arc<dyn HttpFilterFactory>, ConfigError> {
    let config = packed::<M>(yaml);
    let descriptor = descriptor(&M::full_name());
    let mut context = FilterContext {
        stat_prefix: "http.test.",
        stats: store,
        name: "filter".into(),
        node_cluster: "the-node",
        local_cluster: "",
        check_dns_cache: |_, _, _| Ok(()),
        warnings: &mut Vec::new(),
    };
    (descriptor.configure)(&config, &mut context, &FieldPath::from("config"))
}

/// Reads a filter's configuration of a route, to see whether it is accepted.
pub(crate) fn configure_route<M: Name + Default>(
    descriptor: &HttpFilterDescriptor,
    yaml: &str,
) -> Result<(), ConfigError> {
    let context = RouteFilterContext { stats: &Store::new(), local_cluster: "" };
    (descriptor.configure_route)(&packed::<M>(yaml), &context, &FieldPath::from("config")).map(drop)
}

fn descriptor(type_name: &str) -> &'static HttpFilterDescriptor {
    crate::all().iter().find(|filter| filter.type_name == type_name).expect(type_name)
}

/// A request head.
pub(crate) fn request(path: &str, lines: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in [(":method", "GET"), (":scheme", "http"), (":authority", "a.test"), (":path", path)]
    {
        map.append(name.as_bytes(), value.as_bytes());
    }
    for (name, value) in lines {
        map.set(&dhow_http::HeaderName::new(name), value.as_bytes());
    }
    map
}

/// The lines of a head, pseudo headers included.
pub(crate) fn lines(map: &HeaderMap) -> Vec<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    map.iter().map(|(_, name, value)| format!("{}: {}", text(name), text(value))).collect()
}

/// The routes of one virtual host, whose filter configurations are under the names `filter`.
pub(crate) fn routes(yaml: &str) -> RouteTable {
    routes_in(yaml, &Store::new())
}

/// The same, of a proxy that counts in `store` and is a host of no cluster.
pub(crate) fn routes_in(yaml: &str, store: &Store) -> RouteTable {
    let loaded = load_yaml::<RouteConfiguration>(yaml, &LoadOptions::default()).expect(yaml);
    let context = RouteFilterContext { stats: store, local_cluster: "" };
    let options = CompileOptions {
        compile_filter_config: &|_, config, path| {
            let type_name = dhow_proto::any::type_name(&config.type_url);
            let filter = crate::all().iter().find(|filter| filter.route_type_name == Some(type_name));
            (filter.expect(type_name).configure_route)(config, &context, path).map(Some)
        },
        ..CompileOptions::lenient()
    };
    RouteTable::compile(&loaded.message, &FieldPath::root(), &options, &mut Vec::new()).expect(yaml)
}

/// One stream.
pub(crate) struct Stream {
    pub(crate) info: StreamInfo,
    pub(crate) random: u64,
    pub(crate) control: StreamControl,
}

impl Stream {
    /// A stream without a route.
    pub(crate) fn new(random: u64) -> Self {
        let local = "127.0.0.1:80".parse().expect("an address");
        let connection = ConnectionInfo {
            direct: None,
            local_address_restored: false,
            bypass_overload_manager: false,
            id: 1,
            remote_address: StreamAddress::Ip("127.0.0.2:1234".parse().expect("an address")),
            local_address: StreamAddress::Ip(local),
            start: Instant::now(),
            tls: ConnectionTls::default(),
            requested_server_name: None,
            filter_chain_name: "".into(),
            listener_name: "".into(),
            listener_metadata: None,
            filter_chain_metadata: None,
            buffer_limit: 1 << 20,
            objects: Default::default(),
        };
        let info = StreamInfo::new(Rc::new(connection), Some(Protocol::Http11), Instant::now(), random);
        let control = StreamControl {
            reselect_route: false,
            request_buffer_limit: 1 << 20,
            response_buffer_limit: 1 << 20,
        };
        Self { info, random, control }
    }

    /// The same stream with the route of a request.
    pub(crate) fn routed(mut self, routes: &RouteTable, request: &HeaderMap) -> Self {
        self.info.route = routes.select(request, &RouteInput::new(self.random)).selected();
        self
    }

    /// Makes the filter with what the route says under the name `filter`.
    pub(crate) fn create(&self, factory: &dyn HttpFilterFactory) -> Option<Box<dyn HttpFilter>> {
        let levels = self.info.route.as_ref().map(|route| route.filter_configs().levels("filter"));
        factory.create(levels.unwrap_or_default())
    }

    /// Runs the decoding half.
    pub(crate) fn decode(&mut self, filter: &mut dyn HttpFilter, request: &mut HeaderMap) -> HeadersVerdict {
        self.with(|stream| filter.decode_headers(request, true, stream))
    }

    /// Gives a callback what it sees of the stream.
    pub(crate) fn with<T>(&mut self, call: impl FnOnce(&mut FilterStream<'_>) -> T) -> T {
        let Self { info, random, control } = self;
        call(&mut FilterStream { info, random: *random, control, runtime: &NoRuntime, clusters: &NoClusters })
    }

    /// Runs the encoding half.
    pub(crate) fn encode(
        &mut self,
        filter: &mut dyn HttpFilter,
        request: &HeaderMap,
        response: &mut HeaderMap,
    ) {
        let verdict = self.with(|stream| filter.encode_headers(request, response, true, stream));
        assert_eq!(summary(&verdict), "continue");
    }
}

/// A verdict without waiting, as text: `continue`, `wait`, or status and details of the local reply.
pub(crate) fn summary(verdict: &HeadersVerdict) -> String {
    match verdict {
        HeadersVerdict::Continue => "continue".to_owned(),
        HeadersVerdict::LocalReply(reply) => format!("{} {}", reply.status, reply.details),
        HeadersVerdict::Wait(_) => "wait".to_owned(),
        HeadersVerdict::Hold => "hold".to_owned(),
    }
}

/// Lets the time of a delay pass.
pub(crate) fn resume(verdict: HeadersVerdict) -> Resumption {
    let HeadersVerdict::Wait(work) = verdict else { panic!("{} instead of a delay", summary(&verdict)) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(work)
}

/// The value of a counter or gauge by its full name.
pub(crate) fn stat(store: &Store, name: &str) -> Option<u64> {
    store.snapshot(&dhow_stats::Query::default()).stats.into_iter().find_map(|(found, value)| match value {
        dhow_stats::SnapshotValue::Counter(value) | dhow_stats::SnapshotValue::Gauge(value) => {
            (found == name).then_some(value)
        }
        _ => None,
    })
}
