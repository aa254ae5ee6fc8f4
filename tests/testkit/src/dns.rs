//! A scripted name server on loopback, over UDP and TCP.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;

const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;
const CLASS_IN: u16 = 1;
/// How often a port is looked for that is free for UDP and for TCP.
const PORT_TRIES: usize = 32;

/// What the server knows of one name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DnsAnswer {
    /// Its IPv4 addresses, in this order.
    pub a: Vec<Ipv4Addr>,
    /// Its IPv6 addresses, in this order.
    pub aaaa: Vec<Ipv6Addr>,
    /// How long the records hold, in seconds; 300 unless given.
    pub ttl: u32,
    /// The response code; with any but `no_error` there are no records.
    pub code: DnsCode,
    /// Milliseconds to wait before the answer.
    pub delay_ms: u64,
    /// Do not answer at all.
    pub silent: bool,
    /// Answer over TCP alone.
    pub tcp_only: bool,
}

impl Default for DnsAnswer {
    fn default() -> Self {
        Self {
            a: Vec::new(),
            aaaa: Vec::new(),
            ttl: 300,
            code: DnsCode::NoError,
            delay_ms: 0,
            silent: false,
            tcp_only: false,
        }
    }
}

/// A response code (RFC 1035, section 4.1.1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DnsCode {
    /// The name is known; it may have no addresses all the same.
    #[default]
    NoError = 0,
    /// The server could not find out.
    ServFail = 2,
    /// There is no such name: what names that the script does not mention get.
    NxDomain = 3,
    /// The server does not answer this client.
    Refused = 5,
}

type Names = Arc<Mutex<HashMap<String, DnsAnswer>>>;

/// A name server with a thread and a runtime of its own. It stops when dropped.
#[derive(Debug)]
pub struct DnsServer {
    address: SocketAddr,
    names: Names,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl DnsServer {
    /// Starts a server that knows no names, on a port of 127.0.0.1 that the kernel chose.
    pub fn start() -> io::Result<Self> {
        let (udp, tcp) = sockets()?;
        let address = udp.local_addr()?;
        let names = Names::default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let shared = Arc::clone(&names);
        let thread =
            std::thread::Builder::new().name(format!("dns-{}", address.port())).spawn(move || {
                runtime.block_on(async move {
                    tokio::select! {
                        _ = stopped => {}
                        () = serve_udp(udp, Arc::clone(&shared)) => {}
                        () = serve_tcp(tcp, shared) => {}
                    }
                });
            })?;
        Ok(Self { address, names, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Makes `answer` what is known of `name` from now on.
    pub fn set(&self, name: &str, answer: DnsAnswer) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.insert(name.to_ascii_lowercase(), answer);
    }
}

impl Drop for DnsServer {
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

/// Both sockets of a port that is free for both.
fn sockets() -> io::Result<(UdpSocket, TcpListener)> {
    let mut last = io::Error::other("no port was tried");
    for _ in 0..PORT_TRIES {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        match TcpListener::bind(udp.local_addr()?) {
            Ok(tcp) => {
                udp.set_nonblocking(true)?;
                tcp.set_nonblocking(true)?;
                return Ok((udp, tcp));
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn serve_udp(socket: UdpSocket, names: Names) {
    let Ok(socket) = tokio::net::UdpSocket::from_std(socket).map(Arc::new) else { return };
    let mut query = [0; 1500];
    while let Ok((length, client)) = socket.recv_from(&mut query).await {
        let Some((reply, answer)) = reply(&query[..length], &names) else { continue };
        if answer.silent || answer.tcp_only {
            continue;
        }
        let socket = Arc::clone(&socket);
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(answer.delay_ms)).await;
            // A client that is gone has no use for an answer.
            let _ = socket.send_to(&reply, client).await;
        });
    }
}

async fn serve_tcp(listener: TcpListener, names: Names) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    while let Ok((mut stream, _)) = listener.accept().await {
        let names = Arc::clone(&names);
        tokio::spawn(async move {
            while let Ok(length) = stream.read_u16().await {
                let mut query = vec![0; length.into()];
                if stream.read_exact(&mut query).await.is_err() {
                    return;
                }
                let Some((reply, answer)) = reply(&query, &names) else { return };
                if answer.silent {
                    continue;
                }
                tokio::time::sleep(Duration::from_millis(answer.delay_ms)).await;
                let mut message = u16::try_from(reply.len()).unwrap_or(u16::MAX).to_be_bytes().to_vec();
                message.extend(reply);
                if stream.write_all(&message).await.is_err() {
                    return;
                }
            }
        });
    }
}

/// The answer to a query of one question, and what the script says of it. Nothing for what is no query.
fn reply(query: &[u8], names: &Names) -> Option<(Vec<u8>, DnsAnswer)> {
    let (name, question) = question(query)?;
    let unknown = DnsAnswer { code: DnsCode::NxDomain, ..DnsAnswer::default() };
    let known = names.lock().unwrap_or_else(PoisonError::into_inner).get(&name).cloned();
    let answer = known.unwrap_or(unknown);
    let records: Vec<Vec<u8>> = match (answer.code, u16::from_be_bytes([question[0], question[1]])) {
        (DnsCode::NoError, TYPE_A) => answer.a.iter().map(|ip| ip.octets().to_vec()).collect(),
        (DnsCode::NoError, TYPE_AAAA) => answer.aaaa.iter().map(|ip| ip.octets().to_vec()).collect(),
        _ => Vec::new(),
    };
    let after_name = query.len() - question.len();
    let mut reply = query[..2].to_vec();
    // A response, with authority, to a query that may have asked for recursion, which is available.
    reply.extend([0x84 | query[2] & 1, 0x80 | answer.code as u8]);
    for count in [1, records.len() as u16, 0, 0] {
        reply.extend(count.to_be_bytes());
    }
    reply.extend(&query[12..after_name]);
    reply.extend(&question[..4]);
    for data in records {
        // The name is the one at the beginning of the question.
        reply.extend([0xc0, 12]);
        reply.extend(&question[..2]);
        reply.extend(CLASS_IN.to_be_bytes());
        reply.extend(answer.ttl.to_be_bytes());
        reply.extend((data.len() as u16).to_be_bytes());
        reply.extend(data);
    }
    Some((reply, answer))
}

/// The name that a query asks for, in small letters and without its last dot, and the bytes behind it: type, class and whatever
/// follows.
fn question(query: &[u8]) -> Option<(String, &[u8])> {
    let header = query.get(..12)?;
    let is_query = header[2] & 0xf8 == 0;
    if !is_query || header[4..6] != [0, 1] {
        return None;
    }
    let mut rest = &query[12..];
    let mut labels = Vec::new();
    loop {
        let (&length, after) = rest.split_first()?;
        if length == 0 {
            return (after.len() >= 4).then(|| (labels.join("."), after));
        }
        let label = after.get(..length.into())?;
        labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
        rest = &after[length.into()..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(name: &str, kind: u16) -> Vec<u8> {
        let mut bytes = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            bytes.push(label.len() as u8);
            bytes.extend(label.as_bytes());
        }
        bytes.push(0);
        bytes.extend(kind.to_be_bytes());
        bytes.extend(CLASS_IN.to_be_bytes());
        bytes
    }

    fn ask(server: &DnsServer, query: &[u8]) -> Vec<u8> {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        socket.send_to(query, server.address()).unwrap();
        let mut reply = [0; 512];
        let length = socket.recv(&mut reply).unwrap();
        reply[..length].to_vec()
    }

    #[test]
    fn addresses_come_in_the_order_of_the_script() {
        let server = DnsServer::start().unwrap();
        let a = vec![Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::LOCALHOST];
        server.set("One.Test", DnsAnswer { a, ttl: 7, ..DnsAnswer::default() });
        let asked = query("one.TEST", TYPE_A);
        let reply = ask(&server, &asked);
        assert_eq!(reply[..12], [0xab, 0xcd, 0x85, 0x80, 0, 1, 0, 2, 0, 0, 0, 0]);
        assert_eq!(reply[12..asked.len()], asked[12..]);
        let records = &reply[asked.len()..];
        assert_eq!(records[..16], [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 7, 0, 4, 127, 0, 0, 2]);
        assert_eq!(records[28..], [127, 0, 0, 1]);
    }

    #[test]
    fn a_name_without_addresses_is_not_an_unknown_one() {
        let server = DnsServer::start().unwrap();
        server.set("one.test", DnsAnswer::default());
        assert_eq!(ask(&server, &query("one.test", TYPE_AAAA))[3], 0x80);
        assert_eq!(ask(&server, &query("two.test", TYPE_AAAA))[3], 0x83);
    }
}
