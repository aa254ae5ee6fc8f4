//! What a request asks of the connection that carries it: the names and protocols of TLS, and whose connection it is.

use std::sync::Arc;

use dhow_proxy_api::{FilterState, FilterStateValue};
use dhow_proxy_upstream::{ChosenSocket, Host, HttpOptions, ProxiedConnection, SecureOptions, WorkerCluster};

use super::Forwarding;
use crate::stream::Exchange;

/// The object with the SNI.
const SERVER_NAME: &str = "envoy.network.upstream_server_name";
/// The object with the names of which the certificate must have one.
const VERIFY_NAMES: &str = "envoy.network.upstream_subject_alt_names";
/// The object with the protocols to offer by ALPN.
const PROTOCOLS: &str = "envoy.network.application_protocols";

/// What a request says about TLS in place of the cluster: by objects of its filter state, and by its host where the cluster takes
/// the names from there.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct RequestedTls {
    server_name: Option<String>,
    verify_names: Vec<String>,
    protocols: Vec<Vec<u8>>,
}

impl RequestedTls {
    fn of_state(state: &FilterState) -> Self {
        let text = |key| state.text(key).map(|text| String::from_utf8_lossy(&text).into_owned());
        let protocols = match state.get(PROTOCOLS) {
            Some(FilterStateValue::List(list)) => list.iter().map(|name| name.as_bytes().to_vec()).collect(),
            _ => Vec::new(),
        };
        let verify_names = text(VERIFY_NAMES)
            .map(|names| names.split(',').map(|name| name.trim().to_owned()).collect())
            .unwrap_or_default();
        Self { server_name: text(SERVER_NAME), verify_names, protocols }
    }

    /// Takes what is not set yet from `host`, a host with or without port (`auto_sni`, `auto_san_validation`).
    fn complete(&mut self, http: &HttpOptions, host: &str) {
        let (host, is_address) = host_of(host);
        if http.auto_sni && !is_address {
            self.server_name.get_or_insert_with(|| host.to_owned());
        }
        if http.auto_san_validation && self.verify_names.is_empty() {
            self.verify_names.push(host.to_owned());
        }
    }
}

impl Exchange {
    /// What the request says about TLS, as the route rewrote it; nothing, mostly.
    pub(super) fn requested_tls(&self, cluster: &WorkerCluster) -> Option<Box<RequestedTls>> {
        let http = &cluster.info().http;
        let by_host = http.auto_sni || http.auto_san_validation;
        if !by_host && self.info.filter_state.is_empty() {
            return None;
        }
        let mut requested = RequestedTls::of_state(&self.info.filter_state);
        if by_host {
            let header = &http.override_auto_sni_header;
            let named =
                Some(header).filter(|name| !name.is_empty()).and_then(|name| self.request.get_str(name));
            let host = named.filter(|value| !value.is_empty()).unwrap_or(self.request.authority());
            requested.complete(http, &String::from_utf8_lossy(host));
        }
        (requested != RequestedTls::default()).then(|| Box::new(requested))
    }

    /// What this request asks of the connection that carries it; nothing, mostly.
    pub(super) fn secure_options(
        &self,
        forwarding: &Forwarding,
        cluster: &WorkerCluster,
        host: &Host,
    ) -> Option<Box<SecureOptions>> {
        let chosen = socket_by_state(cluster, host, &self.info.filter_state);
        let socket = chosen.as_ref().map_or(host.transport_socket(), |chosen| &chosen.socket);
        // Envoy keeps connections apart by these even where they are not encrypted.
        let tls = forwarding.tls.as_deref();
        let by_client = cluster.info().connections.pool_per_client;
        let names_client = socket.names_client();
        let shared = self.info.filter_state.shared_hashables();
        if tls.is_none() && !by_client && !names_client && chosen.is_none() && shared.is_empty() {
            return None;
        }
        let mut options = Box::<SecureOptions>::default();
        if let Some(RequestedTls { server_name, verify_names, protocols }) = tls {
            options.server_name.clone_from(server_name);
            options.verify_names.clone_from(verify_names);
            options.alpn_override.clone_from(protocols);
        }
        if by_client {
            options.client = Some(self.info.connection.id);
        }
        if names_client {
            let connection = &self.info.connection;
            let own = connection.record().and_then(|record| record.borrow().proxy_extensions.clone());
            let tlvs = own.unwrap_or_default();
            options.proxied = Some(Arc::new(ProxiedConnection { ends: connection.ends(), tlvs }));
        }
        options.shared = shared;
        options.socket = chosen;
        Some(options)
    }
}

/// The transport socket that the cluster's matcher chooses by what the stream shares with connections to hosts.
fn socket_by_state(cluster: &WorkerCluster, host: &Host, state: &FilterState) -> Option<ChosenSocket> {
    if !cluster.info().sockets_by_state() || !state.shares_any() {
        return None;
    }
    cluster.info().socket_by_state(host, &|key| state.shared_text(key))
}

/// A host without its port or brackets, and whether it is an IP address.
fn host_of(authority: &str) -> (&str, bool) {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !host.ends_with(':') => host,
        _ => authority,
    };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    (bare, bare.parse::<std::net::IpAddr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_lose_ports_and_brackets() {
        for (authority, host, is_address) in [
            ("a.test:80", "a.test", false),
            ("a.test", "a.test", false),
            ("127.0.0.1:80", "127.0.0.1", true),
            ("[::1]:80", "::1", true),
            ("[::1]", "::1", true),
        ] {
            assert_eq!(host_of(authority), (host, is_address), "{authority}");
        }
    }

    #[test]
    fn what_the_filter_state_says_stays() {
        let http = HttpOptions { auto_sni: true, auto_san_validation: true, ..HttpOptions::default() };
        let mut state = FilterState::default();
        let mut plain = RequestedTls::of_state(&state);
        plain.complete(&http, "a.test:80");
        assert_eq!(plain.server_name.as_deref(), Some("a.test"));
        assert_eq!(plain.verify_names, ["a.test"]);
        state.set(SERVER_NAME, FilterStateValue::Name("b.test".into()));
        state.set(VERIFY_NAMES, FilterStateValue::Name("c.test,d.test".into()));
        state.set(PROTOCOLS, FilterStateValue::List(["h2".into()].into()));
        let mut named = RequestedTls::of_state(&state);
        named.complete(&http, "a.test:80");
        assert_eq!(named.server_name.as_deref(), Some("b.test"));
        assert_eq!(named.verify_names, ["c.test", "d.test"]);
        assert_eq!(named.protocols, [b"h2"]);
    }

    #[test]
    fn addresses_are_verified_but_not_sent() {
        let http = HttpOptions { auto_sni: true, auto_san_validation: true, ..HttpOptions::default() };
        let mut requested = RequestedTls::default();
        requested.complete(&http, "[::1]:443");
        assert_eq!((requested.server_name, requested.verify_names), (None, vec!["::1".to_owned()]));
    }
}
