//! How the server behaves.

use std::sync::Arc;
use std::time::Duration;

/// Settings of the ADS server.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long configuration has to be quiet before a change is pushed (`PILOT_DEBOUNCE_AFTER`). Istio waits 100 ms; a
    /// change of a file should be felt at once, so the default is 20 ms.
    pub debounce_after: Duration,
    /// How long a change is put off at most while others keep coming (`PILOT_DEBOUNCE_MAX`). Istio's is 10 s; ours
    /// 250 ms, to reach proxies within a second whatever happens.
    pub debounce_max: Duration,
    /// How long pushes wait for each other so that no request is lost; see `dhow_xds::ServerConfig::hold_limit`.
    pub hold_limit: Duration,
    /// What the server calls itself in every response (`control_plane.identifier`).
    pub identifier: Arc<str>,
    /// After how long without a sign of life a connection is probed with an HTTP/2 PING; istiod: 30 s.
    pub keepalive_interval: Duration,
    /// How long the answer to the probe may take before the connection is closed; istiod: 10 s.
    pub keepalive_timeout: Duration,
    /// The longest request in bytes (`ISTIO_GPRC_MAXRECVMSGSIZE`); 4 MiB.
    pub max_request_bytes: usize,
    /// How many streams a connection may open (`ISTIO_GPRC_MAXSTREAMS`); 100 000.
    pub max_streams_per_connection: u32,
    /// How long a shutdown waits for proxies to hang up.
    pub shutdown_grace: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            debounce_after: Duration::from_millis(20),
            debounce_max: Duration::from_millis(250),
            hold_limit: Duration::from_millis(500),
            identifier: "dhowd".into(),
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(10),
            max_request_bytes: 4 << 20,
            max_streams_per_connection: 100_000,
            shutdown_grace: Duration::from_secs(2),
        }
    }
}
