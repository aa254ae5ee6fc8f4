//! The gRPC server, and what all its streams share.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};

use dhow_xds::{Push, Request, ServerConfig, Variant, parse_method_path};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::tokio_stream::Stream;
use tonic::server::{Grpc, StreamingService};
use tonic::transport::server::{TcpConnectInfo, TcpIncoming};

use crate::codec::XdsCodec;
use crate::debounce::debounce;
use crate::proxies::Proxies;
use crate::stream::ProxyStream;
use crate::{Generation, Metrics, ProxyStatus, Settings, SyncStatus};

/// The ADS server. Clones share everything.
pub struct Discovery<G: Generation> {
    shared: Arc<Shared<G>>,
}

pub(crate) struct Shared<G> {
    pub(crate) generation: G,
    pub(crate) metrics: Metrics,
    pub(crate) proxies: Proxies,
    /// The number of the newest snapshot.
    pub(crate) changes: watch::Receiver<u64>,
    /// The number of the newest snapshot that was quiet for long enough.
    pub(crate) pushes: watch::Sender<u64>,
    pub(crate) shutdown: watch::Sender<bool>,
    settings: Settings,
    last_stream: AtomicU64,
}

impl<G: Generation> Clone for Discovery<G> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<G: Generation> Discovery<G> {
    /// A server that is not listening yet.
    pub fn new(generation: G, settings: Settings) -> Self {
        let changes = generation.changes();
        let pushes = watch::Sender::new(*changes.borrow());
        let shared = Shared {
            generation,
            metrics: Metrics::default(),
            proxies: Proxies::default(),
            changes,
            pushes,
            shutdown: watch::Sender::new(false),
            settings,
            last_stream: AtomicU64::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    /// What it counts.
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// Every open stream of a proxy that introduced itself.
    pub fn proxies(&self) -> Vec<ProxyStatus> {
        self.shared.proxies.list()
    }

    /// The body of `/debug/syncz`, to be serialised as JSON.
    pub fn syncz(&self) -> Vec<SyncStatus> {
        self.shared.proxies.list().iter().map(SyncStatus::from).collect()
    }

    /// The gRPC services of xDS, for a server that offers others beside them: the aggregated one and those of each type.
    /// Other paths are answered with `Unimplemented`. Pushes need [`debounce`](Self::debounce) to run.
    pub fn service(&self) -> DiscoveryService<G> {
        DiscoveryService { discovery: self.clone() }
    }

    /// Turns published snapshots into pushes for as long as there is a publisher.
    pub async fn debounce(&self) {
        let Settings { debounce_after, debounce_max, .. } = self.shared.settings;
        debounce(self.shared.changes.clone(), self.shared.pushes.clone(), debounce_after, debounce_max).await;
    }

    /// Serves until `shutdown` is ready. Then streams end with `Unavailable`, so that proxies go elsewhere, and
    /// connections have `shutdown_grace` to close. An error is one of accepting connections.
    pub async fn serve(
        &self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), tonic::transport::Error> {
        let settings = &self.shared.settings;
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let closing = self.shared.shutdown.subscribe();
        let serving = tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(settings.keepalive_interval))
            .http2_keepalive_timeout(Some(settings.keepalive_timeout))
            .max_concurrent_streams(settings.max_streams_per_connection)
            .serve_with_incoming_shutdown(self.service(), incoming, closed(closing));
        tokio::pin!(serving);
        let pushing = self.debounce();
        tokio::pin!(pushing, shutdown);
        let mut publisher_is_there = true;
        loop {
            tokio::select! {
                outcome = &mut serving => return outcome,
                () = &mut pushing, if publisher_is_there => publisher_is_there = false,
                () = &mut shutdown => break,
            }
        }
        self.shared.shutdown.send_replace(true);
        // Beyond the grace period connections are dropped.
        tokio::time::timeout(settings.shutdown_grace, serving).await.unwrap_or(Ok(()))
    }

    /// Opens a stream: what goes out on it.
    fn open(
        &self,
        variant: Variant,
        only_type: Option<&'static str>,
        request: tonic::Request<tonic::Streaming<Request>>,
    ) -> PushStream {
        let shared = Arc::clone(&self.shared);
        let peer = request.extensions().get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr);
        let config = ServerConfig {
            control_plane: Some(Arc::clone(&shared.settings.identifier)),
            only_type: only_type.map(Into::into),
            hold_limit: shared.settings.hold_limit,
            ..ServerConfig::new(variant)
        };
        // Few, as a proxy that is slow to read must not pile up pushes: what is not sent yet is still merged.
        let (out, pushes) = mpsc::channel(2);
        let number = shared.last_stream.fetch_add(1, Relaxed) + 1;
        let stream = ProxyStream::new(Arc::clone(&shared), number, peer, config, out.clone());
        tokio::spawn(async move {
            shared.metrics.connected.fetch_add(1, Relaxed);
            // In a task of its own, so that a panic ends this stream alone.
            let outcome = tokio::spawn(stream.run(request.into_inner())).await;
            shared.metrics.connected.fetch_sub(1, Relaxed);
            if outcome.is_err() {
                shared.metrics.internal_errors.fetch_add(1, Relaxed);
                let _ = out.send(Err(Status::internal("a fault in the control plane"))).await;
            }
        });
        PushStream(pushes)
    }
}

async fn closed(mut closing: watch::Receiver<bool>) {
    let _ = closing.wait_for(|closing| *closing).await;
}

/// What goes out on a stream.
struct PushStream(mpsc::Receiver<Result<Push, Status>>);

impl Stream for PushStream {
    type Item = Result<Push, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context)
    }
}

/// The gRPC services of xDS; see [`Discovery::service`].
pub struct DiscoveryService<G: Generation> {
    discovery: Discovery<G>,
}

impl<G: Generation> Clone for DiscoveryService<G> {
    fn clone(&self) -> Self {
        Self { discovery: self.discovery.clone() }
    }
}

impl<G: Generation> Service<http::Request<Body>> for DiscoveryService<G> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let discovery = self.discovery.clone();
        Box::pin(async move {
            let Some((variant, only_type)) = parse_method_path(request.uri().path()) else {
                return Ok(Status::unimplemented("no such method").into_http());
            };
            let limit = discovery.shared.settings.max_request_bytes;
            let mut grpc = Grpc::new(XdsCodec(variant)).max_decoding_message_size(limit);
            Ok(grpc.streaming(Method { discovery, variant, only_type }, request).await)
        })
    }
}

/// One method of one service.
struct Method<G: Generation> {
    discovery: Discovery<G>,
    variant: Variant,
    only_type: Option<&'static str>,
}

impl<G: Generation> StreamingService<Request> for Method<G> {
    type Response = Push;
    type ResponseStream = PushStream;
    type Future = std::future::Ready<Result<tonic::Response<PushStream>, Status>>;

    fn call(&mut self, request: tonic::Request<tonic::Streaming<Request>>) -> Self::Future {
        std::future::ready(Ok(tonic::Response::new(self.discovery.open(
            self.variant,
            self.only_type,
            request,
        ))))
    }
}
