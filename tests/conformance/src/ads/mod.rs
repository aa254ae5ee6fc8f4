//! A management server for scenarios: ADS over gRPC, delta and state of the world, with resources written as JSON.

mod delta;
mod grpc;
mod resources;
mod sotw;

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use anyhow::Result;
use bytes::Bytes;
use h2::server::SendResponse;
use http::{Request, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{oneshot, watch};

pub use resources::Resources;

/// The resources that the server has at first.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdsSpec {
    /// The target asks for the state of the world instead of changes.
    pub sotw: bool,
    /// Resources, each with its `@type`.
    pub set: Vec<Value>,
}

/// A change of the resources.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdsChange {
    /// Resources added or replaced, each with its `@type`.
    pub set: Vec<Value>,
    /// Resources removed, as `Message name` with the message's short name, such as `Cluster one`.
    pub remove: Vec<String>,
    /// Break every stream, so that the target has to connect again.
    pub disconnect: bool,
}

/// What the target asked for and refused, for comparison.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct AdsFacts {
    /// For each type, by short name, what the latest stream is subscribed to; `*` for everything.
    pub subscribed: BTreeMap<String, Vec<String>>,
    /// The types of which a response was refused, in order.
    pub refused: Vec<String>,
}

/// State shared by the streams.
#[derive(Debug, Default)]
struct Shared {
    resources: Mutex<Resources>,
    facts: Mutex<AdsFacts>,
}

impl Shared {
    fn resources(&self) -> MutexGuard<'_, Resources> {
        self.resources.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn facts(&self) -> MutexGuard<'_, AdsFacts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What happens to every stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Signal {
    /// Counts changes of the resources.
    changes: u64,
    /// Counts disconnections.
    breaks: u64,
}

/// A running management server; it stops when dropped.
#[derive(Debug)]
pub struct AdsServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    signal: watch::Sender<Signal>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl AdsServer {
    /// Serves ADS on `listener`.
    pub fn start(listener: TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let shared = Arc::new(Shared::default());
        let (signal, watched) = watch::channel(Signal::default());
        let (stop, stopped) = oneshot::channel();
        let state = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("ads".to_owned()).spawn(move || {
            runtime.block_on(async move {
                tokio::select! {
                    _ = stopped => {}
                    () = accept(listener, state, watched) => {}
                }
            });
        })?;
        Ok(Self { address, shared, signal, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Applies a change, whose placeholders are resolved already, and tells every stream.
    pub fn apply(&self, change: &AdsChange) -> Result<()> {
        self.shared.resources().apply(change)?;
        self.signal.send_modify(|signal| {
            signal.changes += 1;
            signal.breaks += u64::from(change.disconnect);
        });
        Ok(())
    }

    /// What the target asked for and refused so far.
    pub fn facts(&self) -> AdsFacts {
        self.shared.facts().clone()
    }
}

impl Drop for AdsServer {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // The thread may have ended with an error already.
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, signal: watch::Receiver<Signal>) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(connection(stream, Arc::clone(&shared), signal.clone()));
    }
}

async fn connection(stream: tokio::net::TcpStream, shared: Arc<Shared>, mut signal: watch::Receiver<Signal>) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    let breaks = signal.borrow().breaks;
    let watched = signal.clone();
    let serve = async {
        while let Some(Ok((request, respond))) = connection.accept().await {
            tokio::spawn(stream_of(request, respond, Arc::clone(&shared), watched.clone()));
        }
    };
    tokio::select! {
        () = serve => {}
        _ = signal.wait_for(|signal| signal.breaks != breaks) => {}
    }
}

async fn stream_of(
    request: Request<h2::RecvStream>,
    mut respond: SendResponse<Bytes>,
    shared: Arc<Shared>,
    signal: watch::Receiver<Signal>,
) {
    let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
    let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap_or_default();
    let Ok(send) = respond.send_response(head, false) else { return };
    let channel = grpc::Channel::new(request.into_body(), send);
    // A stream ends when the target goes away; nothing is left to do then.
    let _ = match method.as_str() {
        "DeltaAggregatedResources" => delta::serve(channel, &shared, signal).await,
        "StreamAggregatedResources" => sotw::serve(channel, &shared, signal).await,
        _ => channel.refuse().await,
    };
}
