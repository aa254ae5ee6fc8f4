//! A downstream connection: which protocol it speaks, and its streams.

mod http1;
mod http2;

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;

use dhow_proxy_api::{Connection, ConnectionInfo};
use dhow_proxy_runtime::{LoadShedPoint, clock};

use crate::config::CodecType;
use crate::downstream::H1Downstream;
use crate::manager::Manager;
use crate::stats::ClientFamily;
use crate::traffic::Traffic;
use crate::wire::Wire;

/// What every HTTP/2 client sends first.
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves a connection to its end.
pub(crate) async fn serve(manager: Rc<Manager>, connection: Connection) {
    let Connection { transport, info } = connection;
    let mut active = ActiveConnection::new(&manager, &info);
    let alpn = info.tls.session().and_then(|tls| tls.alpn.as_deref());
    let codec = match (manager.config.codec, alpn) {
        (CodecType::Auto, Some(b"h2")) => CodecType::Http2,
        (CodecType::Auto, Some(_)) => CodecType::Http1,
        (codec, _) => codec,
    };
    let sheds = || {
        let sheds = manager.sheds(LoadShedPoint::CreatingCodec, &info);
        if sheds {
            manager.stats.manager.downstream_rq_overload_close().inc();
        }
        sheds
    };
    // It stays in this place: an idle connection has the room of one, and none for HTTP/2.
    let traffic = Traffic::of_clients(&manager.stats.manager);
    let wire = Wire::new(transport, manager.worker.buffers().clone(), info.buffer_limit, traffic);
    let mut down = H1Downstream::new(wire, manager.config.http1_keys, manager.config.http1_trailers);
    let sniffed = match codec {
        CodecType::Http1 => Sniffed::Http1,
        codec => sniff(&manager, &info, down.wire(), codec).await,
    };
    active.end = match sniffed {
        Sniffed::Closed(end) => end,
        Sniffed::Http2 | Sniffed::Malformed if codec == CodecType::Http2 && sheds() => End::LOCAL,
        Sniffed::Http1 | Sniffed::Http2 if codec != CodecType::Http2 && sheds() => {
            Box::pin(http1::close_gently(&manager, &mut down, false)).await
        }
        Sniffed::Http1 => http1::serve(&manager, &info, &mut down, &active.family).await,
        Sniffed::Http2 => {
            let (transport, read) = down.into_wire().into_parts();
            Box::pin(http2::serve(manager, info, transport, read, &active.family)).await
        }
        Sniffed::Malformed => {
            let counted = http2::Counted::new(&manager, &info);
            manager.stats.manager.downstream_cx_protocol_error().inc();
            let end = Box::pin(http1::close_gently(&manager, &mut down, false)).await;
            drop(counted);
            end
        }
    };
}

/// Which side ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Local,
    Remote,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct End {
    by: Side,
    /// Which side ended requests with it that were under way: ours may have done so before the client ended the connection.
    cut_off: Option<Side>,
}

impl End {
    const LOCAL: Self = Self { by: Side::Local, cut_off: None };
    const REMOTE: Self = Self { by: Side::Remote, cut_off: None };

    /// The same, with requests under way or not.
    const fn cutting_off(self, cut_off: bool) -> Self {
        Self { cut_off: if cut_off { Some(self.by) } else { None }, ..self }
    }
}

enum Sniffed {
    Http1,
    Http2,
    /// HTTP/2 was wanted and something else came.
    Malformed,
    Closed(End),
}

/// Waits for the first bytes and tells by them HTTP/2 from HTTP/1, or from anything else where nothing but HTTP/2 is
/// wanted: then the first of them decides, as the client has to be told what is spoken here once it began as it should.
async fn sniff(manager: &Manager, info: &ConnectionInfo, wire: &mut Wire, codec: CodecType) -> Sniffed {
    let only_http2 = codec == CodecType::Http2;
    let idle = manager.config.timeouts.idle.map(|idle| clock::now() + idle);
    let aged = manager.connection_end(info);
    let mut timer = dhow_proxy_runtime::DeadlineTimer::new();
    poll_fn(|cx| {
        loop {
            let seen = wire.read.filled();
            let compared = seen.len().min(H2_PREFACE.len());
            if seen[..compared] != H2_PREFACE[..compared] {
                let other = if only_http2 { Sniffed::Malformed } else { Sniffed::Http1 };
                return std::task::Poll::Ready(other);
            }
            if compared == H2_PREFACE.len() || only_http2 && compared > 0 {
                return std::task::Poll::Ready(Sniffed::Http2);
            }
            match wire.poll_fill(cx) {
                std::task::Poll::Ready(Ok(count)) if count > 0 => {}
                // A beginning that never became a preface is HTTP/1's to judge.
                std::task::Poll::Ready(_) if !wire.read.is_empty() => {
                    return std::task::Poll::Ready(Sniffed::Http1);
                }
                std::task::Poll::Ready(_) => return std::task::Poll::Ready(Sniffed::Closed(End::REMOTE)),
                std::task::Poll::Pending => {
                    std::task::ready!(timer.poll(cx, [idle, aged].into_iter().flatten().min()));
                    let now = clock::now();
                    if aged.is_some_and(|aged| aged <= now) {
                        manager.stats.manager.downstream_cx_max_duration_reached().inc();
                        return std::task::Poll::Ready(Sniffed::Closed(End::LOCAL));
                    }
                    if idle.is_some_and(|idle| idle <= now) {
                        manager.stats.manager.downstream_cx_idle_timeout().inc();
                        return std::task::Poll::Ready(Sniffed::Closed(End::LOCAL));
                    }
                }
            }
        }
    })
    .await
}

/// Counts a connection for as long as it is served.
struct ActiveConnection {
    manager: Rc<Manager>,
    info: Rc<ConnectionInfo>,
    end: End,
    family: Cell<ClientFamily>,
}

impl ActiveConnection {
    fn new(manager: &Rc<Manager>, info: &Rc<ConnectionInfo>) -> Self {
        let stats = &manager.stats.manager;
        stats.downstream_cx_total().inc();
        stats.downstream_cx_active().inc();
        if info.tls.is_expected() {
            stats.downstream_cx_ssl_total().inc();
            stats.downstream_cx_ssl_active().inc();
        }
        Self { manager: manager.clone(), info: info.clone(), end: End::LOCAL, family: Cell::default() }
    }
}

impl Drop for ActiveConnection {
    fn drop(&mut self) {
        let stats = &self.manager.stats.manager;
        stats.downstream_cx_destroy().inc();
        let End { by, cut_off } = self.end;
        let by_filter = self.info.record().is_some_and(|record| record.borrow().ended_by_filter);
        let by = if by_filter { Side::Local } else { by };
        match by {
            Side::Local => stats.downstream_cx_destroy_local().inc(),
            Side::Remote => stats.downstream_cx_destroy_remote().inc(),
        }
        let cut_off = cut_off.map(|side| if by_filter { Side::Local } else { side });
        // Envoy takes what it closes itself for something that the client did.
        let cut_off_here = self.info.record().is_some_and(|record| record.borrow().cut_off);
        let cut_off = cut_off.or(cut_off_here.then_some(Side::Remote));
        if let Some(side) = cut_off {
            stats.downstream_cx_destroy_active_rq().inc();
            match side {
                Side::Local => stats.downstream_cx_destroy_local_active_rq().inc(),
                Side::Remote => stats.downstream_cx_destroy_remote_active_rq().inc(),
            }
        }
        stats.downstream_cx_active().dec();
        if self.info.tls.is_expected() {
            stats.downstream_cx_ssl_active().dec();
        }
        let millis = self.info.start.elapsed().as_millis() as u64;
        stats.downstream_cx_length_ms().record(millis);
        if let Some(clients) = self.manager.stats.clients(self.family.get()) {
            clients.downstream_cx_length_ms().record(millis);
            if cut_off == Some(Side::Remote) {
                clients.downstream_cx_destroy_remote_active_rq().inc();
            }
        }
    }
}
