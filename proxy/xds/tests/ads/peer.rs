//! A management server for tests: tonic's generated service in front of a server session.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use dhow_proto::envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use dhow_proto::envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use dhow_proto::prost::encoding::string;
use dhow_xds::messages::Any;
use dhow_xds::{Request, Resource, Response, ServerConfig, ServerEvent, ServerSession, Variant};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tonic::codegen::tokio_stream::{Stream, StreamExt};
use tonic::transport::server::TcpIncoming;
use tonic::{Status, Streaming};

/// A resource with its name in field 1 and its content in field 2.
pub(crate) fn resource(type_url: &str, name: &str, content: &str) -> Resource {
    let mut value = Vec::new();
    string::encode(1, &name.to_owned(), &mut value);
    string::encode(2, &content.to_owned(), &mut value);
    let body = Any { type_url: type_url.to_owned(), value };
    Resource { name: name.into(), version: content.into(), body: Arc::new(body) }
}

/// What happened on the server's side.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Seen {
    Request(Box<Request>),
    Event(ServerEvent),
}

pub(crate) struct Shared {
    pub(crate) world: Mutex<Vec<Resource>>,
    pub(crate) seen: Mutex<Vec<Seen>>,
    /// Pushes, and the number of the stream generation: raising it ends all streams.
    published: watch::Sender<u64>,
    generation: watch::Sender<u64>,
}

pub(crate) struct Peer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) address: SocketAddr,
    task: JoinHandle<()>,
}

impl Peer {
    pub(crate) async fn start(world: Vec<Resource>) -> Self {
        let shared = Arc::new(Shared {
            world: Mutex::new(world),
            seen: Mutex::default(),
            published: watch::Sender::new(0),
            generation: watch::Sender::new(0),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let service = AggregatedDiscoveryServiceServer::new(Service(Arc::clone(&shared)));
        let task = tokio::spawn(async move {
            let server = tonic::transport::Server::builder();
            server.serve_with_incoming(service, TcpIncoming::from(listener)).await.expect("serves");
        });
        Self { shared, address, task }
    }

    pub(crate) fn publish(&self, world: Vec<Resource>) {
        *self.shared.world.lock() = world;
        self.shared.published.send_modify(|number| *number += 1);
    }

    pub(crate) fn end_streams(&self) {
        self.shared.generation.send_modify(|number| *number += 1);
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        let seen = self.shared.seen.lock();
        seen.iter()
            .filter_map(
                |seen| if let Seen::Request(request) = seen { Some((**request).clone()) } else { None },
            )
            .collect()
    }

    pub(crate) fn saw(&self, matches: impl Fn(&Seen) -> bool) -> bool {
        self.shared.seen.lock().iter().any(matches)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Service(Arc<Shared>);

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for Service {
    type StreamAggregatedResourcesStream = Responses<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: tonic::Request<Streaming<DiscoveryRequest>>,
    ) -> Result<tonic::Response<Self::StreamAggregatedResourcesStream>, Status> {
        let requests = request.into_inner().map(|request| request.map(Request::StateOfTheWorld));
        let responses = drive(&self.0, Variant::StateOfTheWorld, requests).map(|response| match response? {
            Response::StateOfTheWorld(response) => Ok(response),
            Response::Delta(_) => Err(Status::internal("of the other variant")),
        });
        Ok(tonic::Response::new(Box::pin(responses)))
    }

    async fn delta_aggregated_resources(
        &self,
        request: tonic::Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<tonic::Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let requests = request.into_inner().map(|request| request.map(Request::Delta));
        let responses = drive(&self.0, Variant::Delta, requests).map(|response| match response? {
            Response::Delta(response) => Ok(response),
            Response::StateOfTheWorld(_) => Err(Status::internal("of the other variant")),
        });
        Ok(tonic::Response::new(Box::pin(responses)))
    }
}

fn drive(
    shared: &Arc<Shared>,
    variant: Variant,
    mut requests: impl Stream<Item = Result<Request, Status>> + Send + Unpin + 'static,
) -> Outgoing {
    let shared = Arc::clone(shared);
    let (out, responses) = mpsc::unbounded_channel();
    let mut published = shared.published.subscribe();
    let mut generation = shared.generation.subscribe();
    let config = ServerConfig { control_plane: Some("peer".into()), ..ServerConfig::new(variant) };
    let mut session = ServerSession::new(config);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                request = requests.next() => {
                    let Some(Ok(request)) = request else { return };
                    shared.seen.lock().push(Seen::Request(Box::new(request.clone())));
                    session.handle_request(request).expect("the client follows the protocol");
                }
                _ = published.changed() => session.snapshot_published(),
                _ = generation.changed() => {
                    let _ = out.send(Err(Status::unavailable("going away")));
                    return;
                }
            }
            while let Some(event) = session.poll_event() {
                shared.seen.lock().push(Seen::Event(event));
            }
            while let Some(want) = session.poll_want(Instant::now()) {
                let world = shared.world.lock().clone();
                let wanted = |resource: &Resource| {
                    resource.body.type_url == *want.type_url
                        && (want.wildcard || want.names.contains(&*resource.name))
                };
                let resources: Vec<Resource> = world.into_iter().filter(wanted).collect();
                if let Some(push) = session.supply(&want.type_url, &resources, "snapshot", Instant::now())
                    && out.send(Ok(push.to_response())).is_err()
                {
                    return;
                }
            }
        }
    });
    Outgoing(responses)
}

struct Outgoing(mpsc::UnboundedReceiver<Result<Response, Status>>);

impl Stream for Outgoing {
    type Item = Result<Response, Status>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.0.poll_recv(context)
    }
}
