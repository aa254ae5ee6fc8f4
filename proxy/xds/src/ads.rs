//! The gRPC stream to a management server, kept open.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use dhow_base::Rng;
use dhow_http::grpc::{GrpcCode, GrpcStatus, GrpcStream, call_head};
use dhow_http::h2;
use dhow_xds::{ClientConfig, ClientSession, Response, method_path};
use tokio::sync::Notify;
use tokio::time::{Sleep, sleep_until};

use crate::subscriptions::Subscriptions;
use crate::{ByteStream, ConfigSink, Connector, SubscriptionObserver};

/// Where a stream goes and what it is about: an `ApiConfigSource` with one `envoy_grpc` service.
#[derive(Clone, Debug)]
pub struct AdsConfig {
    /// `envoy_grpc.cluster_name`.
    pub cluster: String,
    /// `envoy_grpc.authority`; the cluster's name when empty, as in Envoy.
    pub authority: String,
    /// `grpc_service.initial_metadata`, in order.
    pub initial_metadata: Vec<(String, String)>,
    /// `envoy_grpc.max_receive_message_length` in bytes.
    pub max_receive_message_length: usize,
    /// The one type of a single-type service (`CDS`, `SDS`, ... off ADS); `None` for the aggregated service.
    pub only_type: Option<String>,
    /// The types that the sink may be interested in. On the aggregated service usually CDS, EDS, LDS, RDS and SDS.
    pub types: Vec<String>,
    /// The protocol, the node, and the back-off between connections.
    pub session: ClientConfig,
}

impl AdsConfig {
    /// An aggregated stream through `cluster` about `types`, with Envoy's defaults.
    pub fn new(cluster: impl Into<String>, types: Vec<String>, session: ClientConfig) -> Self {
        Self {
            cluster: cluster.into(),
            authority: String::new(),
            initial_metadata: Vec::new(),
            max_receive_message_length: usize::try_from(u32::MAX).unwrap_or(usize::MAX),
            only_type: None,
            types,
            session,
        }
    }
}

/// Tells a running client that the sink's interest changed other than by applying an update of that client: clusters
/// became ready and listeners may be asked for, another source named new routes.
#[derive(Clone, Debug, Default)]
pub struct InterestChanged(Arc<Notify>);

impl InterestChanged {
    /// Has the client ask the sink what it wants. Several calls before it gets to it count as one.
    pub fn notify(&self) {
        self.0.notify_one();
    }

    /// Waits until it is told.
    pub(crate) async fn notified(&self) {
        self.0.notified().await;
    }
}

/// Why a client cannot start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdsError {
    /// There is no xDS service for the type in this protocol.
    #[error("there is no discovery service for {0} in this protocol")]
    NoMethod(String),
}

/// A client of a management server.
pub struct AdsClient<S, C, O> {
    config: AdsConfig,
    path: &'static str,
    connector: C,
    subscriptions: Subscriptions<S, O>,
    interest_changed: InterestChanged,
}

impl<S: ConfigSink, C: Connector, O: SubscriptionObserver> AdsClient<S, C, O> {
    /// A client that is not connected yet. `rng` jitters its reconnections.
    ///
    /// # Errors
    /// When no xDS service fits the configuration.
    pub fn new(config: AdsConfig, connector: C, sink: S, observer: O, rng: Rng) -> Result<Self, AdsError> {
        let only_type = config.only_type.as_deref();
        let path = method_path(config.session.variant, only_type)
            .ok_or_else(|| AdsError::NoMethod(only_type.unwrap_or("aggregated resources").to_owned()))?;
        let session = ClientSession::new(config.session.clone(), rng);
        let subscriptions = Subscriptions::new(session, config.types.clone(), sink, observer);
        Ok(Self { config, path, connector, subscriptions, interest_changed: InterestChanged::default() })
    }

    /// To be used when the sink's interest changes while the client runs.
    pub fn interest_changed(&self) -> InterestChanged {
        self.interest_changed.clone()
    }

    /// Connects, and reconnects whenever the stream ends. Never returns: drop it to end it. Run it on the main thread;
    /// sink and observer are called from within.
    pub async fn run(mut self) -> std::convert::Infallible {
        self.subscriptions.sync_interest();
        loop {
            self.wait_to_connect().await;
            self.subscriptions.session.connecting();
            let status = match self.connect().await {
                Ok(mut call) => {
                    self.subscriptions.session.stream_opened();
                    self.subscriptions.observer.connected(true);
                    let status = self.converse(&mut call).await;
                    self.subscriptions.observer.connected(false);
                    status
                }
                Err(status) => status,
            };
            self.subscriptions.session.stream_closed(Instant::now());
            let method = self.path.rsplit('/').next().unwrap_or(self.path);
            let text = format!(
                "{method} gRPC config stream to {} closed: {}, {}",
                self.config.cluster, status.code as u32, status.message
            );
            self.subscriptions.observer.warning(&text);
            self.subscriptions.connection_failed();
        }
    }

    async fn wait_to_connect(&mut self) {
        while !self.subscriptions.session.wants_connection(Instant::now()) {
            idle(&mut self.subscriptions, &self.interest_changed).await;
        }
    }

    /// Connects and opens the call, and meanwhile keeps an eye on deadlines.
    async fn connect(&mut self) -> Result<Call, GrpcStatus> {
        let mut opening = pin!(open(&self.connector, &self.config, self.path));
        loop {
            tokio::select! {
                outcome = &mut opening => return outcome,
                () = idle(&mut self.subscriptions, &self.interest_changed) => {}
            }
        }
    }

    /// Exchanges messages until the stream ends, and returns how it did.
    async fn converse(&mut self, call: &mut Call) -> GrpcStatus {
        let interest_changed = self.interest_changed.clone();
        loop {
            let mut notified = pin!(interest_changed.0.notified());
            let mut deadline = pin!(Deadline::of(&self.subscriptions.session));
            let session = &mut self.subscriptions.session;
            let step = poll_fn(|cx| {
                if let Poll::Ready(step) = call.poll(cx, session) {
                    return Poll::Ready(step);
                }
                if notified.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Step::InterestChanged);
                }
                deadline.as_mut().poll(cx).map(|()| Step::Deadline)
            });
            match step.await {
                Step::Received(message) => match Response::decode(self.config.session.variant, message) {
                    Ok(response) => {
                        let delivery = self.subscriptions.session.handle_response(response);
                        self.subscriptions.drain_events();
                        if let Some(delivery) = delivery {
                            self.subscriptions.deliver(delivery);
                        }
                    }
                    Err(error) => {
                        call.stream.cancel();
                        return GrpcStatus::new(
                            GrpcCode::Internal,
                            format!("malformed discovery response: {error}"),
                        );
                    }
                },
                Step::Ended(status) => return status,
                Step::InterestChanged => self.subscriptions.sync_interest(),
                Step::Deadline => self.pass_deadline(),
            }
        }
    }

    fn pass_deadline(&mut self) {
        self.subscriptions.session.handle_deadline(Instant::now());
        self.subscriptions.drain_events();
    }
}

/// Waits for something to happen while there is no stream, and deals with it.
async fn idle<S: ConfigSink, O: SubscriptionObserver>(
    subscriptions: &mut Subscriptions<S, O>,
    interest_changed: &InterestChanged,
) {
    let deadline = Deadline::of(&subscriptions.session);
    tokio::select! {
        () = interest_changed.0.notified() => subscriptions.sync_interest(),
        () = deadline => {
            subscriptions.session.handle_deadline(Instant::now());
            subscriptions.drain_events();
        }
    }
}

/// The session's next deadline; never, when it has none.
struct Deadline(Option<Pin<Box<Sleep>>>);

impl Deadline {
    fn of(session: &ClientSession) -> Self {
        Self(session.next_deadline().map(|at| Box::pin(sleep_until(at.into()))))
    }
}

impl Future for Deadline {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().map_or(Poll::Pending, |sleep| sleep.as_mut().poll(cx))
    }
}

/// What happens on an open stream.
enum Step {
    Received(Bytes),
    Ended(GrpcStatus),
    InterestChanged,
    Deadline,
}

/// A call and the connection that carries it.
struct Call {
    stream: GrpcStream,
    connection: Pin<Box<h2::ClientConnection<Box<dyn ByteStream>>>>,
}

impl Call {
    /// Receives, sends what the session has to send, and moves the connection's frames.
    fn poll(&mut self, cx: &mut Context<'_>, session: &mut ClientSession) -> Poll<Step> {
        match self.stream.poll_recv(cx) {
            Poll::Ready(Some(Ok(message))) => return Poll::Ready(Step::Received(message)),
            Poll::Ready(Some(Err(status))) => return Poll::Ready(Step::Ended(status)),
            Poll::Ready(None) => return Poll::Ready(Step::Ended(GrpcStatus::new(GrpcCode::Ok, ""))),
            Poll::Pending => {}
        }
        loop {
            match self.stream.poll_send_ready(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(status)) => return Poll::Ready(Step::Ended(status)),
                Poll::Pending => break,
            }
            // Asked for only now, so that what changed while the window was full goes out as one.
            let Some(request) = session.poll_request() else { break };
            self.stream.start_send(&request.encode_to_vec());
        }
        self.connection.as_mut().poll(cx).map(|outcome| Step::Ended(connection_status(outcome)))
    }
}

async fn open<C: Connector>(connector: &C, config: &AdsConfig, path: &str) -> Result<Call, GrpcStatus> {
    let unavailable =
        |error: &dyn std::fmt::Display| GrpcStatus::new(GrpcCode::Unavailable, error.to_string());
    let io = connector.connect(&config.cluster).await.map_err(|error| unavailable(&error))?;
    let settings = h2::Settings::default();
    let (sender, connection) = h2::connect(io, &settings).await.map_err(|error| unavailable(&error))?;
    let mut connection = Box::pin(connection);
    let authority = if config.authority.is_empty() { &config.cluster } else { &config.authority };
    let mut head = call_head(authority, path);
    for (name, value) in &config.initial_metadata {
        head.append(name.as_bytes(), value.as_bytes());
    }
    let stream = tokio::select! {
        stream = GrpcStream::open(sender, &head, config.max_receive_message_length) => stream?,
        outcome = &mut connection => return Err(connection_status(outcome)),
    };
    Ok(Call { stream, connection })
}

fn connection_status(outcome: Result<(), h2::ConnectionError>) -> GrpcStatus {
    let text = outcome.err().map_or_else(|| "connection termination".to_owned(), |error| error.to_string());
    GrpcStatus::new(GrpcCode::Unavailable, text)
}
