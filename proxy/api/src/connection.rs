//! The facts of a downstream connection.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use dhow_net::{StreamAddress, Transport};
use dhow_proto::envoy::config::core::v3::Metadata;

use crate::connection_objects::ConnectionObjects;
use crate::connection_record::ConnectionRecord;
use crate::connection_tls::ConnectionTls;

/// What is known of a downstream connection once its filter chain is chosen.
#[derive(Debug)]
pub struct ConnectionInfo {
    /// `%CONNECTION_ID%`: unique in the process.
    pub id: u64,
    /// Address of the peer; that of the listener for clients of a Unix socket, which have none.
    pub remote_address: StreamAddress,
    /// Address that the peer connected to, after original-destination recovery.
    pub local_address: StreamAddress,
    /// The ends of the socket itself, where a listener filter put others in their place.
    pub direct: Option<Box<DirectEnds>>,
    /// Whether `local_address` is where the peer wanted to go before the connection was redirected here.
    pub local_address_restored: bool,
    /// `bypass_overload_manager` of the listener.
    pub bypass_overload_manager: bool,
    /// When the connection was accepted.
    pub start: Instant,
    /// TLS, where the filter chain terminates it.
    pub tls: ConnectionTls,
    /// Server name that the client asked for, from TLS or from inspection of its hello.
    pub requested_server_name: Option<Arc<str>>,
    /// Name of the filter chain that serves the connection.
    pub filter_chain_name: Arc<str>,
    /// Name of the listener.
    pub listener_name: Arc<str>,
    /// Metadata of the listener, when it has some.
    pub listener_metadata: Option<Arc<Metadata>>,
    /// Metadata of the filter chain, when it has some.
    pub filter_chain_metadata: Option<Arc<Metadata>>,
    /// Bytes of a message that may be held back on this connection (`per_connection_buffer_limit_bytes`); at least 1.
    pub buffer_limit: u32,
    /// What filters keep for as long as the connection lasts.
    pub objects: ConnectionObjects,
}

/// The ends of a socket, as the system knows them.
#[derive(Clone, Debug)]
pub struct DirectEnds {
    /// Address of the peer.
    pub remote: StreamAddress,
    /// Address that it is connected to.
    pub local: StreamAddress,
}

impl ConnectionInfo {
    /// Address of the peer of the socket, whatever a PROXY protocol header said of another one.
    pub fn direct_remote_address(&self) -> &StreamAddress {
        self.direct.as_ref().map_or(&self.remote_address, |direct| &direct.remote)
    }

    /// Address that the socket is connected to, whatever the peer was said to have connected to.
    pub fn direct_local_address(&self) -> &StreamAddress {
        self.direct.as_ref().map_or(&self.local_address, |direct| &direct.local)
    }

    /// Both ends, the peer's first, when they are of IP.
    pub fn ends(&self) -> Option<(SocketAddr, SocketAddr)> {
        Some((self.remote_address.as_ip()?, self.local_address.as_ip()?))
    }

    /// Where the peer wanted to go before the connection was redirected here.
    pub fn original_destination(&self) -> Option<SocketAddr> {
        self.local_address.as_ip().filter(|_| self.local_address_restored)
    }

    /// What is noted about the connection, where something is.
    pub fn record(&self) -> Option<Rc<RefCell<ConnectionRecord>>> {
        self.objects.get()
    }

    /// What is noted about the connection, from now on.
    pub fn record_mut(&self) -> Rc<RefCell<ConnectionRecord>> {
        self.objects.get_or_insert_with(RefCell::default)
    }
}

/// An accepted connection with its filter chain chosen and its TLS handshake done, unless its handler
/// [begins before](crate::ConnectionHandler::begins_before_handshake).
#[derive(Debug)]
pub struct Connection {
    /// The bytes.
    pub transport: Transport,
    /// The facts.
    pub info: Rc<ConnectionInfo>,
}
