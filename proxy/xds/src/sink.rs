//! What the xDS client asks of the rest of the proxy: somewhere to apply updates, a way to connect, someone to count.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use dhow_xds::{Interest, Update};

/// A refused update: which resource, and why. The name is empty when the update as a whole is at fault.
pub type Refusal = (String, String);

/// Applies configuration. Called on the main thread only, in the order of the protocol.
pub trait ConfigSink {
    /// Applies an update of one type and returns when it is in force. On an error the server is told (NACK) with every
    /// listed name and text; whether the good resources of the update are kept is the sink's decision: Envoy keeps
    /// them for CDS and LDS, and refuses EDS, RDS and SDS updates as a unit.
    fn apply(&mut self, type_url: &str, update: Update) -> Result<(), Vec<Refusal>>;

    /// What is wanted of `type_url` now. Asked after each `apply`, and when the runner is told that interest changed.
    fn subscriptions(&self, type_url: &str) -> Interest;

    /// Names of `type_url` that are to be requested again although already subscribed to, each reported once: the
    /// endpoints of a cluster that CDS changed and that warms anew. A delta server must answer such a request; a
    /// state-of-the-world server may take it for an acknowledgement, so keep the last assignment for that case.
    fn take_refreshes(&mut self, type_url: &str) -> Vec<String> {
        let _ = type_url;
        Vec::new()
    }

    /// `initial_fetch_timeout` of the type's configuration source; `None` waits for ever (0 in the configuration).
    fn initial_fetch_timeout(&self, type_url: &str) -> Option<Duration> {
        let _ = type_url;
        Some(Duration::from_secs(15))
    }

    /// Nothing usable arrived in time (or at all: the first answer was malformed): `name` of a type fetched by name, or
    /// the whole type. Initialisation goes on without it.
    fn fetch_failed(&mut self, type_url: &str, name: Option<&str>) {
        let _ = (type_url, name);
    }
}

/// A bidirectional byte stream to a management server.
pub trait ByteStream: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> ByteStream for T {}

/// The future of a [`Connector`].
pub type Connecting<'a> = Pin<Box<dyn Future<Output = io::Result<Box<dyn ByteStream>>> + 'a>>;

/// Opens connections through the cluster manager, so that xDS uses a cluster's addresses, transport socket and limits.
pub trait Connector {
    /// Connects to some host of `cluster`. The bytes that go over the connection are HTTP/2 with prior knowledge.
    fn connect<'a>(&'a self, cluster: &'a str) -> Connecting<'a>;
}

/// Counts what happens to subscriptions; Envoy's `<prefix>.update_attempt` and so on, and `control_plane.*`. `type_url`
/// leads to the prefix: `cluster_manager.cds.`, `listener_manager.lds.`, and for types fetched by name `name` says
/// whose subscription it was.
pub trait SubscriptionObserver {
    /// A subscription started, or an answer of any kind was processed (`update_attempt`).
    fn update_attempt(&mut self, type_url: &str, name: Option<&str>) {
        let _ = (type_url, name);
    }

    /// An update was applied (`update_success`, `version_text`, `version` as xxHash64 of the text).
    fn update_success(&mut self, type_url: &str, name: Option<&str>, version: &str) {
        let _ = (type_url, name, version);
    }

    /// The connection failed or ended (`update_failure`).
    fn update_failure(&mut self, type_url: &str, name: Option<&str>) {
        let _ = (type_url, name);
    }

    /// An update was refused (`update_rejected`), with the text sent to the server.
    fn update_rejected(&mut self, type_url: &str, name: Option<&str>, message: &str) {
        let _ = (type_url, name, message);
    }

    /// Nothing arrived in time (`init_fetch_timeout`).
    fn init_fetch_timeout(&mut self, type_url: &str, name: Option<&str>) {
        let _ = (type_url, name);
    }

    /// The stream opened or ended (`control_plane.connected_state`).
    fn connected(&mut self, connected: bool) {
        let _ = connected;
    }

    /// The server named itself (`control_plane.identifier`).
    fn control_plane(&mut self, identifier: &str) {
        let _ = identifier;
    }

    /// Something an operator should read in the log.
    fn warning(&mut self, message: &str) {
        let _ = message;
    }
}
