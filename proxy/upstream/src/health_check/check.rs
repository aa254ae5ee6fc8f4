//! Making one check of one host.

use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use dhow_http::grpc::{FrameDecoder, encode_frame};
use dhow_http::{HeaderMap, KnownHeader};
use dhow_net::Transport;
use dhow_net::proxy_protocol::{ProxyVersion, append_v1, append_v2_local};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::context::CheckContext;
use super::exchange::{Answer, HttpConnection};
use super::session::{Failure, FailureKind, Outcome};
use super::stats::HealthCheckStats;
use super::{Check, GrpcCheck, HealthCheckConfig, HttpCheck, TcpCheck, find_in_order};
use crate::cluster_info::ClusterInfo;
use crate::connect::establish;
use crate::host::{HealthFlag, Host};
use crate::transport_socket::{SecureOptions, TransportSocket};

/// `SERVING` of `grpc.health.v1.HealthCheckResponse.ServingStatus`.
const SERVING: u64 = 1;
/// Bytes of the answer to a gRPC check that are read.
const MAX_GRPC_ANSWER: usize = 64 * 1024;

/// What the checks of all hosts of a cluster have in common.
pub(super) struct Setup {
    pub(super) config: Arc<HealthCheckConfig>,
    pub(super) info: Arc<ClusterInfo>,
    pub(super) stats: HealthCheckStats,
    /// Instead of the host's, when `transport_socket_match_criteria` chose one.
    pub(super) socket: Option<TransportSocket>,
}

/// Checks one host, over one connection where it may be used again.
pub(super) struct Prober {
    setup: Arc<Setup>,
    http: Option<HttpConnection>,
    tcp: Option<Transport>,
}

impl Prober {
    pub(super) fn new(setup: Arc<Setup>) -> Self {
        Self { setup, http: None, tcp: None }
    }

    /// Makes a check, waiting as long as it may take.
    pub(super) async fn check(&mut self, host: &Host) -> Outcome {
        let config = self.setup.config.clone();
        let made = tokio::time::timeout(config.timeout, async {
            match &config.check {
                Check::Http(check) => self.check_http(host, check).await,
                Check::Grpc(check) => self.check_grpc(host, check).await,
                Check::Tcp(check) => self.check_tcp(host, check).await,
            }
        });
        let kind = match made.await {
            Ok(Ok(outcome)) => {
                if !config.reuse_connection {
                    self.close();
                }
                return outcome;
            }
            Ok(Err(_)) => FailureKind::Network,
            Err(_) => FailureKind::NetworkTimeout,
        };
        self.close();
        Outcome::Failure(Failure::of(kind))
    }

    fn close(&mut self) {
        self.http = None;
        self.tcp = None;
    }

    async fn http_connection(&mut self, host: &Host, http2: bool) -> io::Result<HttpConnection> {
        if let Some(mut connection) = self.http.take()
            && connection.is_usable().await
        {
            return Ok(connection);
        }
        HttpConnection::start(self.setup.connect(host).await?, http2).await
    }

    async fn check_http(&mut self, host: &Host, check: &HttpCheck) -> io::Result<Outcome> {
        let setup = self.setup.clone();
        let mut connection = self.http_connection(host, check.http2).await?;
        let mut head = setup.head(host, check.method, &check.path, &check.host);
        head.append_known(KnownHeader::UserAgent, b"Envoy/HC");
        if !check.send.is_empty() {
            head.set_known_number(KnownHeader::ContentLength, check.send.len() as u64);
        }
        check.headers.apply_to_request(&mut head, &setup.context(host, check.http2));
        let wanted = match (check.receive.is_empty(), check.response_buffer) {
            (true, _) => 0,
            (false, limit) => limit.unwrap_or(usize::MAX),
        };
        let answer = connection.exchange(&head, &check.send, wanted).await?;
        self.http = Some(connection);
        Ok(setup.judge_http(host, check, &answer))
    }

    async fn check_grpc(&mut self, host: &Host, check: &GrpcCheck) -> io::Result<Outcome> {
        let setup = self.setup.clone();
        let mut connection = self.http_connection(host, true).await?;
        let mut head = setup.head(host, "POST", "/grpc.health.v1.Health/Check", &check.authority);
        head.append_known(KnownHeader::Te, b"trailers");
        head.append_known(KnownHeader::ContentType, b"application/grpc");
        head.append_known(KnownHeader::UserAgent, b"Envoy/HC");
        let timeout = grpc_timeout(setup.config.timeout);
        head.append_known(KnownHeader::GrpcTimeout, timeout.as_bytes());
        check.metadata.apply_to_request(&mut head, &setup.context(host, true));
        let request = encode_frame(&health_request(&check.service));
        let answer = connection.exchange(&head, &request, MAX_GRPC_ANSWER).await?;
        self.http = Some(connection);
        let failed = Outcome::Failure(Failure::of(FailureKind::Active));
        Ok(if is_serving(&answer) { Outcome::Success { degraded: false } } else { failed })
    }

    async fn check_tcp(&mut self, host: &Host, check: &TcpCheck) -> io::Result<Outcome> {
        let mut transport = match self.tcp.take() {
            Some(transport) => transport,
            None => {
                let mut transport = self.setup.connect(host).await?;
                if let Some(version) = check.proxy_header {
                    transport.write_all(&proxy_header(version, &transport, host)).await?;
                }
                transport
            }
        };
        if !check.send.is_empty() {
            transport.write_all(&check.send).await?;
            transport.flush().await?;
        }
        if !check.receive.is_empty() {
            let mut received = Vec::new();
            while !find_in_order(&check.receive, &received) {
                if transport.read_buf(&mut received).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            self.tcp = Some(transport);
        }
        Ok(Outcome::Success { degraded: false })
    }
}

impl Setup {
    async fn connect(&self, host: &Host) -> io::Result<Transport> {
        let socket = self.socket.as_ref().unwrap_or_else(|| host.transport_socket());
        let options = SecureOptions { alpn_override: self.config.alpn.clone(), ..SecureOptions::default() };
        let to = (host.health_check_address(), socket);
        let connected = establish(&self.info, host, to, &options, None).await;
        connected.map(|(transport, _)| transport).map_err(|failure| io::Error::other(failure.text))
    }

    fn is_secure(&self, host: &Host) -> bool {
        self.socket.as_ref().unwrap_or_else(|| host.transport_socket()).is_secure()
    }

    /// The head of a request, before configured headers.
    fn head(&self, host: &Host, method: &str, path: &str, authority: &str) -> HeaderMap {
        let mut head = HeaderMap::new();
        head.append_known(KnownHeader::Method, method.as_bytes());
        head.append_known(KnownHeader::Path, path.as_bytes());
        let name = [host.health_check_hostname(), authority, &self.info.name];
        let name = name.into_iter().find(|name| !name.is_empty()).unwrap_or_default();
        head.append_known(KnownHeader::Authority, name.as_bytes());
        let scheme: &[u8] = if self.is_secure(host) { b"https" } else { b"http" };
        head.append_known(KnownHeader::Scheme, scheme);
        head
    }

    fn context<'a>(&self, host: &'a Host, http2: bool) -> CheckContext<'a> {
        CheckContext { host, http2, now: SystemTime::now() }
    }

    fn judge_http(&self, host: &Host, check: &HttpCheck, answer: &Answer) -> Outcome {
        let status = answer.head.status().unwrap_or(0);
        let within = |ranges: &[std::ops::Range<u16>]| ranges.iter().any(|range| range.contains(&status));
        let failed = |retriable| Outcome::Failure(Failure { kind: FailureKind::Active, retriable, status });
        if !within(&check.expected) {
            if answer.head.contains_known(KnownHeader::XEnvoyImmediateHealthCheckFail) {
                host.set_health_flag(HealthFlag::ExcludedViaImmediateHcFail, true);
            }
            return failed(within(&check.retriable));
        }
        if !find_in_order(&check.receive, &answer.body) {
            return failed(false);
        }
        if let Some(matcher) = &check.service_name {
            self.stats.verify_cluster().inc();
            let named =
                answer.head.get_known(KnownHeader::XEnvoyUpstreamHealthcheckedCluster).unwrap_or_default();
            if !matcher.matches(named) {
                return failed(false);
            }
        }
        Outcome::Success { degraded: answer.head.contains_known(KnownHeader::XEnvoyDegraded) }
    }
}

fn proxy_header(version: ProxyVersion, transport: &Transport, host: &Host) -> Vec<u8> {
    let mut header = Vec::new();
    match (version, transport.local_address(), host.health_check_address().as_ip()) {
        (ProxyVersion::V1, Some(local), Some(remote)) => append_v1(&mut header, local, remote),
        _ => append_v2_local(&mut header),
    }
    header
}

/// The time as `grpc-timeout` tells it: at most eight digits and a unit.
fn grpc_timeout(timeout: std::time::Duration) -> String {
    let millis = timeout.as_millis();
    if millis < 100_000_000 { format!("{millis}m") } else { format!("{}S", millis / 1000) }
}

/// `grpc.health.v1.HealthCheckRequest`.
fn health_request(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        // Field 1, a string.
        message.push(0x0a);
        push_varint(&mut message, service.len() as u64);
        message.extend_from_slice(service.as_bytes());
    }
    message
}

fn push_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn is_serving(answer: &Answer) -> bool {
    let ok = |head: &HeaderMap| head.get_known(KnownHeader::GrpcStatus).map(|status| status == b"0");
    let status = ok(&answer.trailers).or_else(|| ok(&answer.head)).unwrap_or(false);
    if answer.head.status() != Some(200) || !status {
        return false;
    }
    let mut decoder = FrameDecoder::new(MAX_GRPC_ANSWER);
    decoder.push(&answer.body);
    match decoder.next_message() {
        Ok(Some(message)) => serving_status(&message) == Some(SERVING),
        _ => false,
    }
}

/// Field 1 of `grpc.health.v1.HealthCheckResponse`; 0 when it is not there.
fn serving_status(message: &[u8]) -> Option<u64> {
    let mut rest = message;
    let mut status = 0;
    while !rest.is_empty() {
        let key = take_varint(&mut rest)?;
        let value = match key & 7 {
            0 => take_varint(&mut rest)?,
            2 => {
                let length = usize::try_from(take_varint(&mut rest)?).ok()?;
                rest = rest.get(length..)?;
                continue;
            }
            _ => return None,
        };
        if key >> 3 == 1 {
            status = value;
        }
    }
    Some(status)
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn grpc_messages_are_those_of_the_health_service() {
        assert_eq!(health_request("svc"), b"\x0a\x03svc");
        assert_eq!(health_request(""), b"");
        assert_eq!(serving_status(b"\x08\x01"), Some(1));
        assert_eq!(serving_status(b"\x12\x01x\x08\x02"), Some(2));
        assert_eq!(serving_status(b""), Some(0));
        assert_eq!(serving_status(b"\x08"), None);
    }

    #[test]
    fn a_serving_answer_has_a_good_status_everywhere() {
        let answer = |http: u16, grpc: &str, body: &[u8]| {
            let mut answer = Answer { body: body.to_vec(), ..Answer::default() };
            answer.head.set_status(http);
            answer.trailers.append_known(KnownHeader::GrpcStatus, grpc.as_bytes());
            answer
        };
        let serving = b"\0\0\0\0\x02\x08\x01";
        assert!(is_serving(&answer(200, "0", serving)));
        assert!(!is_serving(&answer(200, "0", b"\0\0\0\0\x02\x08\x02")));
        assert!(!is_serving(&answer(200, "12", serving)));
        assert!(!is_serving(&answer(503, "0", serving)));
        assert!(!is_serving(&answer(200, "0", b"")));
    }

    #[test]
    fn times_fit_the_header() {
        assert_eq!(grpc_timeout(Duration::from_millis(300)), "300m");
        assert_eq!(grpc_timeout(Duration::from_secs(1_000_000)), "1000000S");
    }
}
