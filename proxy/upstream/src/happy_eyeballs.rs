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

/// Which family of addresses is tried first, and how often before the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FamilyOrder {
    /// `first_address_family_version`: true for IPv4, false for IPv6; that of the first address unless given.
    pub first_ipv4: Option<bool>,
    /// `first_address_family_count`: addresses of that family before one of the other; 1 by default.
    pub count: usize,
}

impl Default for FamilyOrder {
    fn default() -> Self {
        Self { first_ipv4: None, count: 1 }
    }
}

/// The addresses in the order of trying: both families in turn.
pub(crate) fn order(first: SocketAddr, additional: &[SocketAddr], families: FamilyOrder) -> Vec<SocketAddr> {
    let ipv4 = families.first_ipv4.unwrap_or(first.is_ipv4());
    let all = || std::iter::once(first).chain(additional.iter().copied());
    let mut same = all().filter(|address| address.is_ipv4() == ipv4);
    let mut other = all().filter(|address| address.is_ipv4() != ipv4);
    let mut ordered = Vec::with_capacity(additional.len() + 1);
    while ordered.len() <= additional.len() {
        ordered.extend(same.by_ref().take(families.count));
        ordered.extend(other.next());
    }
    ordered
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

    use super::{FamilyOrder, order};

    #[test]
    fn families_take_turns() {
        let parse = |text: &str| text.parse::<SocketAddr>().unwrap();
        let more: Vec<_> = ["10.0.0.2:1", "10.0.0.3:1", "[::1]:1", "[::2]:1"].map(parse).into();
        let ordered = |families| order(parse("10.0.0.1:1"), &more, families);
        assert_eq!(
            ordered(FamilyOrder::default()),
            ["10.0.0.1:1", "[::1]:1", "10.0.0.2:1", "[::2]:1", "10.0.0.3:1"].map(parse)
        );
        assert_eq!(
            ordered(FamilyOrder { first_ipv4: Some(false), count: 2 }),
            ["[::1]:1", "[::2]:1", "10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"].map(parse)
        );
    }
}
