//! A closed loop of HTTP/2.

use std::rc::Rc;
use std::time::{Duration, Instant};

use dhow_testkit::client::{Http2Client, Http2Request};

use crate::http1::Shared;

/// How long one response may take.
const LIMIT: Duration = Duration::from_secs(30);

/// The requests of one connection, `streams` under way: errors and latencies in nanoseconds.
pub async fn connection(shared: Rc<Shared>, streams: usize) -> (u64, Vec<u64>) {
    let Ok(client) = Http2Client::connect(shared.address(), shared.tls()).await else {
        return (1, Vec::new());
    };
    let client = Rc::new(client);
    let tasks: Vec<_> = (0..streams)
        .map(|_| tokio::task::spawn_local(stream(Rc::clone(&shared), Rc::clone(&client))))
        .collect();
    let mut all = (0, Vec::new());
    for task in tasks {
        match task.await {
            Ok((errors, latencies)) => {
                all.0 += errors;
                all.1.extend(latencies);
            }
            Err(_) => all.0 += 1,
        }
    }
    all
}

async fn stream(shared: Rc<Shared>, client: Rc<Http2Client>) -> (u64, Vec<u64>) {
    let request = Http2Request {
        method: "GET".to_owned(),
        scheme: "http".to_owned(),
        authority: "bench.test".to_owned(),
        path: "/bench".to_owned(),
        ..Http2Request::default()
    };
    let mut latencies = Vec::new();
    while shared.take() {
        let sent = Instant::now();
        match client.request(request.clone(), LIMIT).await {
            Ok(response) if response.status == 200 => {
                latencies.push(u64::try_from(sent.elapsed().as_nanos()).unwrap_or(u64::MAX));
            }
            _ => return (1, latencies),
        }
    }
    (0, latencies)
}
