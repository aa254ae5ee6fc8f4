//! Connections that something looks at beside the terminal filter: network filters in front of it, or the listener's access logs.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use dhow_net::{SecureStream, Transport};
use dhow_proxy_access_log::{AccessLog, Logged};
use dhow_proxy_api::{
    AfterLog, Connection, ConnectionHandler, ConnectionInfo, ConnectionRecord, DrainState, LogMoment,
    ReadFilter, ReadVerdict, StreamFormat, StreamInfo,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// Logs a connection, by the access logs of its listener, when it is over.
pub(crate) struct ConnectionLog<'a> {
    logs: &'a [AccessLog],
    /// Knows why the connection is closed, as long as it did not end by itself.
    closing: Option<&'a DrainState>,
    pub(crate) info: Rc<ConnectionInfo>,
}

impl<'a> ConnectionLog<'a> {
    /// What is noted about the connection from now on is logged when this is dropped.
    pub(crate) fn new(logs: &'a [AccessLog], info: ConnectionInfo) -> Self {
        if !logs.is_empty() {
            info.record_mut().borrow_mut().after_log = Some(AfterLog::default());
        }
        Self { logs, closing: None, info: Rc::new(info) }
    }

    /// The same for a connection that has a filter chain, and does not end by itself unless that is [said](Self::finish).
    pub(crate) fn of_chain(logs: &'a [AccessLog], info: ConnectionInfo, closing: &'a DrainState) -> Self {
        let mut log = Self::new(logs, info);
        log.closing = Some(closing);
        log
    }

    /// The connection ended by itself.
    pub(crate) fn finish(&mut self) {
        self.closing = None;
    }
}

impl Drop for ConnectionLog<'_> {
    fn drop(&mut self) {
        if self.logs.is_empty() {
            return;
        }
        if let Some(closing) = self.closing {
            let record = self.info.record_mut();
            record.borrow_mut().local_close_reason.get_or_insert_with(|| closing.close_reason().into());
        }
        let mut info = StreamInfo::of_connection(self.info.clone(), self.info.id);
        info.log_moment = LogMoment::ConnectionEnd;
        info.end = Some(Instant::now());
        let context = StreamFormat::new(&info);
        for log in self.logs {
            log.log(&context, &Logged { info: &info, request: None });
        }
        let after = self.info.record().and_then(|record| record.borrow_mut().after_log.take());
        if let Some(after) = after {
            after.run();
        }
    }
}

/// Asks the filters about a new connection; `false` when one of them does not want it, after the time that it takes.
pub(crate) async fn admit(filters: &mut [Box<dyn ReadFilter>], info: &Rc<ConnectionInfo>) -> bool {
    for filter in filters {
        if let ReadVerdict::Close(after) = filter.on_new_connection(info) {
            if !after.is_zero() {
                tokio::time::sleep(after).await;
            }
            return false;
        }
    }
    true
}

/// Serves a connection that its filters admitted, and lets them see what comes.
pub(crate) async fn serve(
    handler: Rc<dyn ConnectionHandler>,
    transport: Transport,
    info: Rc<ConnectionInfo>,
    mut filters: Vec<Box<dyn ReadFilter>>,
    logged: bool,
) {
    // Who is served from before the handshake learns later that it is done.
    let awaits_handshake = info.tls.is_expected() && info.tls.session().is_none();
    if !awaits_handshake && info.tls.is_expected() {
        filters.iter_mut().for_each(|filter| filter.on_handshake(&info));
    }
    if !logged && !awaits_handshake && !filters.iter().any(|filter| filter.watches_data()) {
        handler.serve(Connection { transport, info }).await;
        // They count the connection for as long as it lasts.
        drop(filters);
        return;
    }
    let observed = Observed { awaits_handshake, ..Observed::new(transport, info.clone(), filters) };
    handler.serve(Connection { transport: Transport::Secure(Box::new(observed)), info }).await;
}

/// A transport whose bytes are counted, and seen by network filters before they go on.
struct Observed {
    inner: Transport,
    info: Rc<ConnectionInfo>,
    record: Rc<RefCell<ConnectionRecord>>,
    filters: Vec<Box<dyn ReadFilter>>,
    /// The handshake was not done yet when somebody looked last.
    awaits_handshake: bool,
    closing: Option<Closing>,
}

/// A filter decided to end the connection.
enum Closing {
    After(Pin<Box<Sleep>>),
    Now,
}

impl Observed {
    fn new(inner: Transport, info: Rc<ConnectionInfo>, filters: Vec<Box<dyn ReadFilter>>) -> Self {
        let record = info.record_mut();
        Self { inner, info, record, filters, awaits_handshake: false, closing: None }
    }

    /// Tells the filters about the handshake once the connection below has made it.
    fn note_handshake(&mut self) {
        if self.awaits_handshake && self.info.tls.session().is_some() {
            self.awaits_handshake = false;
            self.filters.iter_mut().for_each(|filter| filter.on_handshake(&self.info));
        }
    }

    /// Ready when a filter ended the connection.
    fn poll_closing(&mut self, cx: &mut Context<'_>) -> Option<Poll<()>> {
        match self.closing.as_mut()? {
            Closing::Now => Some(Poll::Ready(())),
            Closing::After(sleep) => Some(sleep.as_mut().poll(cx)),
        }
    }

    /// Asks the filters about bytes that came, or about the end; the time after which they want the connection closed.
    fn ask(&mut self) -> Option<Duration> {
        for filter in self.filters.iter_mut().filter(|filter| filter.watches_data()) {
            if let ReadVerdict::Close(after) = filter.on_data(&self.info) {
                return Some(after);
            }
        }
        None
    }
}

impl AsyncRead for Observed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Some(over) = this.poll_closing(cx) {
            ready!(over);
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.inner).poll_read(cx, buffer);
        this.note_handshake();
        ready!(read)?;
        let count = (buffer.filled().len() - before) as u64;
        {
            let record = this.record.borrow();
            record.bytes_received.set(record.bytes_received.get() + count);
        }
        let Some(after) = this.ask() else { return Poll::Ready(Ok(())) };
        buffer.set_filled(before);
        {
            let mut record = this.record.borrow_mut();
            record.bytes_refused += count;
            record.ended_by_filter = true;
        }
        this.closing = Some(match after {
            Duration::ZERO => Closing::Now,
            after => Closing::After(Box::pin(tokio::time::sleep(after))),
        });
        self.poll_read(cx, buffer)
    }
}

impl AsyncWrite for Observed {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = self.inner.poll_write_vectored(cx, slices);
        self.note_handshake();
        let count = ready!(written)?;
        let sent = &self.record.borrow().bytes_sent;
        sent.set(sent.get() + count as u64);
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

impl SecureStream for Observed {
    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.poll_closing(cx) {
            Some(over) => over.map(Ok),
            None => {
                let readable = self.inner.poll_read_ready(cx);
                self.note_handshake();
                readable
            }
        }
    }

    fn local_address(&self) -> Option<SocketAddr> {
        self.inner.local_address()
    }

    fn reset_on_close(&self) {
        self.inner.reset_on_close();
    }
}

#[cfg(test)]
mod tests;
