//! Connecting to a host with several addresses: one after the other with a head start for each, the first that answers wins.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use tokio::net::TcpStream;

use crate::cluster_info::ClusterInfo;
use crate::connect::{ConnectFailure, connect_tcp};
use crate::host::Host;

/// How long an address has before the next is tried beside it.
const HEAD_START: Duration = Duration::from_millis(300);

/// The addresses in the order of trying: both families in turn, beginning with that of the first.
pub(crate) fn order(first: SocketAddr, additional: &[SocketAddr]) -> Vec<SocketAddr> {
    let all = || std::iter::once(first).chain(additional.iter().copied());
    let mut same = all().filter(|address| address.is_ipv4() == first.is_ipv4());
    let mut other = all().filter(|address| address.is_ipv4() != first.is_ipv4());
    let mut ordered = Vec::with_capacity(additional.len() + 1);
    loop {
        let pair = [same.next(), other.next()];
        if pair == [None, None] {
            return ordered;
        }
        ordered.extend(pair.into_iter().flatten());
    }
}

/// Connects to one of the addresses; the failure is that of the last one tried. Every attempt after the first counts as a
/// connection of cluster and host.
pub(crate) async fn race(
    info: &ClusterInfo,
    host: &Host,
    addresses: &[SocketAddr],
) -> Result<TcpStream, ConnectFailure> {
    type Attempt<'a> = Pin<Box<dyn Future<Output = Result<TcpStream, ConnectFailure>> + Send + 'a>>;
    let mut attempts: Vec<Attempt<'_>> = Vec::new();
    let mut waiting = addresses.iter();
    let mut head_start = std::pin::pin!(tokio::time::sleep(HEAD_START));
    let mut start_next = true;
    std::future::poll_fn(|cx| {
        loop {
            if std::mem::take(&mut start_next)
                && let Some(address) = waiting.next()
            {
                if waiting.len() + 1 < addresses.len() {
                    info.stats.upstream_cx_total().inc();
                    host.stats().cx_total.fetch_add(1, Ordering::Relaxed);
                }
                attempts.push(Box::pin(connect_tcp(info, *address)));
                head_start.as_mut().reset(tokio::time::Instant::now() + HEAD_START);
            }
            let mut failure = None;
            let mut at = 0;
            while at < attempts.len() {
                match attempts[at].as_mut().poll(cx) {
                    Poll::Ready(Ok(stream)) => return Poll::Ready(Ok(stream)),
                    Poll::Ready(Err(error)) => {
                        failure = Some(error);
                        drop(attempts.swap_remove(at));
                    }
                    Poll::Pending => at += 1,
                }
            }
            match failure {
                Some(failure) if attempts.is_empty() && waiting.len() == 0 => {
                    return Poll::Ready(Err(failure));
                }
                Some(_) => start_next = waiting.len() > 0,
                None if waiting.len() > 0 && head_start.as_mut().poll(cx).is_ready() => start_next = true,
                None => {}
            }
            if !start_next {
                return Poll::Pending;
            }
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::order;

    #[test]
    fn families_take_turns() {
        let parse = |text: &str| text.parse::<SocketAddr>().unwrap();
        let more: Vec<_> = ["10.0.0.2:1", "10.0.0.3:1", "[::1]:1", "[::2]:1"].map(parse).into();
        let ordered = order(parse("10.0.0.1:1"), &more);
        assert_eq!(ordered, ["10.0.0.1:1", "[::1]:1", "10.0.0.2:1", "[::2]:1", "10.0.0.3:1"].map(parse));
    }
}
