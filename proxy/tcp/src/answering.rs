//! `envoy.filters.network.echo` and `envoy.filters.network.direct_response`: filters that answer by themselves.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use dhow_base::{ConfigError, FieldPath};
use dhow_net::Transport;
use dhow_proto::SourceData;
use dhow_proto::envoy::extensions::filters::network::direct_response::v3::Config;
use dhow_proxy_api::{Connection, ConnectionHandler, DrainEvent, LocalFuture, NetworkFilter};
use dhow_proxy_runtime::{ReadBuffer, Worker};

/// `envoy.filters.network.echo`: sends back what it receives.
#[derive(Clone, Copy, Debug)]
pub struct Echo;

/// `envoy.filters.network.direct_response`: sends the same bytes to every client and closes.
#[derive(Clone, Debug)]
pub struct DirectResponse {
    response: Arc<[u8]>,
}

impl DirectResponse {
    /// Lowers the message and reads the file that it may name.
    ///
    /// # Errors
    /// A response that cannot be read.
    pub fn from_message(message: Config, path: &FieldPath) -> Result<Self, ConfigError> {
        let Config { response } = message;
        let path = path.field("response");
        let Some(source) = response else { return Ok(Self { response: Vec::new().into() }) };
        ConfigError::refuse_if(source.watched_directory.is_some(), &path, "watched_directory")?;
        Ok(Self { response: SourceData::read(&source, &path)?.bytes.into() })
    }
}

impl NetworkFilter for Echo {
    fn on_worker(&self, worker: &Rc<Worker>) -> Rc<dyn ConnectionHandler> {
        Rc::new(Echoing { worker: worker.clone() })
    }
}

impl NetworkFilter for DirectResponse {
    fn on_worker(&self, _worker: &Rc<Worker>) -> Rc<dyn ConnectionHandler> {
        Rc::new(self.clone())
    }
}

struct Echoing {
    worker: Rc<Worker>,
}

impl ConnectionHandler for Echoing {
    fn serve(self: Rc<Self>, connection: Connection) -> LocalFuture<()> {
        Box::pin(async move {
            let mut transport = connection.transport;
            let mut buffer = ReadBuffer::new(self.worker.buffers().clone());
            // A failure is the end of the connection, which nobody is told of.
            let _ = poll_fn(|cx| poll_echo(cx, &mut transport, &mut buffer)).await;
        })
    }

    fn on_drain(&self, _event: DrainEvent) {
        // Bytes have no point at which to end gracefully: the connection is closed when the drain time is over.
    }
}

/// Moves bytes back until the client ends; the buffer is given back whenever there is nothing in it.
fn poll_echo(
    cx: &mut Context<'_>,
    transport: &mut Transport,
    buffer: &mut ReadBuffer,
) -> Poll<io::Result<()>> {
    loop {
        while !buffer.is_empty() {
            let count = ready!(transport.poll_write_vectored(cx, &[IoSlice::new(buffer.filled())]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            buffer.consume(count);
        }
        buffer.release_if_empty();
        // What TLS holds back leaves before we wait.
        ready!(transport.poll_flush(cx))?;
        ready!(transport.poll_read_ready(cx))?;
        let count = ready!(transport.poll_read(cx, buffer.room()))?;
        if count == 0 {
            return transport.poll_shutdown(cx);
        }
        buffer.advance(count);
    }
}

impl ConnectionHandler for DirectResponse {
    fn serve(self: Rc<Self>, connection: Connection) -> LocalFuture<()> {
        Box::pin(async move {
            if let Some(record) = connection.info.record() {
                record.borrow_mut().details = Some("direct_response".into());
            }
            let mut transport = connection.transport;
            let mut left = &*self.response;
            // A client that goes away does without the rest.
            let _ = poll_fn(|cx| {
                while !left.is_empty() {
                    let count = ready!(transport.poll_write_vectored(cx, &[IoSlice::new(left)]))?;
                    if count == 0 {
                        return Poll::Ready(Err(io::Error::from(io::ErrorKind::WriteZero)));
                    }
                    left = &left[count..];
                }
                ready!(transport.poll_flush(cx))?;
                transport.poll_shutdown(cx)
            })
            .await;
        })
    }

    fn on_drain(&self, _event: DrainEvent) {
        // Its connections end by themselves.
    }
}

#[cfg(test)]
mod tests {
    use dhow_proto::envoy::config::core::v3::{DataSource, data_source::Specifier};

    use super::*;

    #[test]
    fn a_response_is_read_from_where_it_is() {
        let with = |specifier| Config { response: Some(DataSource { watched_directory: None, specifier }) };
        let read = |config| DirectResponse::from_message(config, &FieldPath::root());
        let inline = read(with(Some(Specifier::InlineString("bye".into())))).unwrap();
        assert_eq!(&*inline.response, b"bye");
        assert!(read(Config { response: None }).unwrap().response.is_empty());
        let missing = read(with(Some(Specifier::Filename("/does/not/exist".into())))).unwrap_err();
        assert!(missing.to_string().contains("response.filename"), "{missing}");
        assert!(read(with(None)).is_err());
    }
}
