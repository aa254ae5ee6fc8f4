//! Gateway.

use super::{Checker, names};
use crate::Protocol;
use crate::istio::{Gateway, GatewayPort, Server, ServerTls, ServerTlsMode, TlsProtocol};

pub(super) fn check(checker: &mut Checker, spec: &Gateway) {
    let Gateway { selector, servers } = spec;
    names::labels(checker, "selector", selector);
    if selector.is_empty() {
        checker.warn_at("selector", "is empty and selects every gateway workload");
    }
    if servers.is_empty() {
        checker.refuse_at("servers", "at least one server is required");
    }
    checker.each("servers", servers, check_server);
    for (index, server) in servers.iter().enumerate() {
        if !server.name.is_empty() && servers[..index].iter().any(|earlier| earlier.name == server.name) {
            checker.refuse_at("servers", format!("server name {:?} is there twice", server.name));
        }
        if !server.port.name.is_empty()
            && servers[..index].iter().any(|earlier| earlier.port.name == server.port.name)
        {
            checker.refuse_at("servers", format!("port name {:?} is there twice", server.port.name));
        }
    }
}

fn check_server(checker: &mut Checker, server: &Server) {
    let Server { port, bind, hosts, tls, default_endpoint, name: _ } = server;
    let GatewayPort { number, protocol, name, target_port } = port;
    checker.field("port", |checker| {
        checker.port("number", *number);
        if name.is_empty() {
            checker.refuse_at("name", "is required");
        }
        let known = matches!(
            Protocol::parse(protocol),
            Protocol::Http
                | Protocol::Https
                | Protocol::Http2
                | Protocol::Grpc
                | Protocol::GrpcWeb
                | Protocol::Tls
                | Protocol::Tcp
                | Protocol::Mongo
                | Protocol::Mysql
                | Protocol::Redis
        );
        if !known {
            checker.refuse_at("protocol", format!("{protocol:?} is not a protocol of gateways"));
        }
        checker.not_honoured("targetPort", target_port.is_some());
    });
    if !bind.is_empty() && !bind.starts_with("unix://") && bind.parse::<std::net::IpAddr>().is_err() {
        checker.refuse_at("bind", format!("{bind:?} is not an address"));
    }
    checker.not_honoured("defaultEndpoint", !default_endpoint.is_empty());
    if hosts.is_empty() {
        checker.refuse_at("hosts", "at least one host is required");
    }
    checker.each("hosts", hosts, |checker, host| check_host(checker, host));
    let protocol = Protocol::parse(protocol);
    match tls {
        Some(tls) => checker.field("tls", |checker| check_tls(checker, tls, protocol)),
        None if protocol.is_tls() => checker.refuse_at("tls", "is required for HTTPS and TLS"),
        None => {}
    }
}

fn check_host(checker: &mut Checker, host: &str) {
    let (namespace, name) = match host.split_once('/') {
        Some((namespace, name)) => (Some(namespace), name),
        None => (None, host),
    };
    if let Some(namespace) = namespace
        && !matches!(namespace, "*" | ".")
        && !names::is_label(namespace)
    {
        checker.refuse(format!("{namespace:?} is not a namespace"));
    }
    if !names::is_host_or_wildcard(name) {
        checker.refuse(format!("{name:?} is not a host name"));
    }
}

fn check_tls(checker: &mut Checker, tls: &ServerTls, protocol: Protocol) {
    if tls.https_redirect {
        if protocol.is_tls() {
            checker.refuse_at("httpsRedirect", "is for plaintext HTTP servers");
        }
        return;
    }
    if !protocol.is_tls() {
        return;
    }
    if protocol == Protocol::Https && tls.mode == ServerTlsMode::AutoPassthrough {
        checker.refuse_at("mode", "AUTO_PASSTHROUGH needs protocol TLS");
    }
    let terminates =
        matches!(tls.mode, ServerTlsMode::Simple | ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual);
    let by_secret = !tls.credential_name.is_empty() || !tls.credential_names.is_empty();
    let by_list = !tls.tls_certificates.is_empty();
    if terminates && !by_secret && !by_list {
        for (name, file) in [("serverCertificate", &tls.server_certificate), ("privateKey", &tls.private_key)]
        {
            if file.is_empty() {
                checker.refuse_at(name, "is required, or credentialName");
            }
        }
        if tls.mode != ServerTlsMode::Simple
            && tls.ca_certificates.is_empty()
            && tls.ca_cert_credential_name.is_empty()
        {
            checker.refuse_at("caCertificates", "is required for mutual TLS");
        }
    }
    if !terminates
        && (!tls.server_certificate.is_empty() || !tls.private_key.is_empty() || by_secret || by_list)
    {
        checker.warn_at("mode", format!("{:?} uses no certificates of its own", tls.mode));
    }
    if terminates && by_secret {
        checker.warn_at("credentialName", "secrets are not served yet: handshakes wait for the certificate");
    }
    if matches!(tls.mode, ServerTlsMode::IstioMutual | ServerTlsMode::AutoPassthrough) {
        checker.warn_at("mode", "is not honoured yet: the server is left out");
    }
    let versions = (tls.min_protocol_version, tls.max_protocol_version);
    if versions.1 != TlsProtocol::Auto && versions.0 > versions.1 {
        checker.refuse_at("minProtocolVersion", "is above maxProtocolVersion");
    }
}
