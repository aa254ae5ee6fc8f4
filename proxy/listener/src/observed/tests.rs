//! What filters in front of the terminal one do to bytes.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use dhow_proxy_api::ConnectionTls;

use super::*;

struct Bouncer {
    /// Calls that go through before one is refused.
    left: u32,
}

impl ReadFilter for Bouncer {
    fn watches_data(&self) -> bool {
        true
    }

    fn on_data(&mut self, _connection: &Rc<ConnectionInfo>) -> ReadVerdict {
        match self.left.checked_sub(1) {
            None => ReadVerdict::Close(Duration::from_millis(1)),
            Some(left) => {
                self.left = left;
                ReadVerdict::Continue
            }
        }
    }
}

fn connection() -> Rc<ConnectionInfo> {
    Rc::new(ConnectionInfo {
        id: 1,
        remote_address: SocketAddr::from(([127, 0, 0, 1], 1)).into(),
        local_address: SocketAddr::from(([127, 0, 0, 1], 2)).into(),
        direct: None,
        local_address_restored: false,
        bypass_overload_manager: false,
        start: Instant::now(),
        tls: ConnectionTls::default(),
        requested_server_name: None,
        filter_chain_name: "".into(),
        listener_name: "".into(),
        listener_metadata: None,
        filter_chain_metadata: None,
        buffer_limit: 1,
        objects: Default::default(),
    })
}

#[tokio::test(flavor = "local")]
async fn bytes_are_counted_and_kept_from_the_terminal_filter_once_one_refuses() {
    let (mut client, ours) = UnixStream::pair().unwrap();
    let info = connection();
    let record = info.record_mut();
    let filters: Vec<Box<dyn ReadFilter>> = vec![Box::new(Bouncer { left: 1 })];
    let inner = Transport::Unix(ours);
    let mut observed = Observed::new(inner, info, filters);
    client.write_all(b"first").await.unwrap();
    let mut buffer = [0; 16];
    assert_eq!(observed.read(&mut buffer).await.unwrap(), 5);
    observed.write_all(b"ok").await.unwrap();
    client.write_all(b"second").await.unwrap();
    let error = observed.read(&mut buffer).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    let record = record.borrow();
    assert_eq!((record.bytes_received.get(), record.bytes_sent.get()), (11, 2));
    assert!(record.ended_by_filter && record.bytes_refused == 6);
}
