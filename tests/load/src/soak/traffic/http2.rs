//! HTTP/2 clients: many streams on a connection, complete or cancelled.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use dhow_base::Rng;
use dhow_testkit::client::{Http2Client, Http2Error, Http2Request};
use futures_util::future::join_all;

use super::{ANSWER_LIMIT, Door, Field, Target, add};

/// Several rounds of overlapping requests on one connection; with `impatient`, most are given up after a moment.
pub async fn streams(field: &Field, door: &Door, rng: &mut Rng, impatient: bool) -> io::Result<()> {
    let client = Rc::new(Http2Client::connect(door.address, door.tls2.as_ref()).await?);
    add(&door.counts.connections, 1);
    for round in 0..1 + rng.below(6) {
        let requests: Vec<_> = (0..1 + rng.below(12))
            .map(|_| {
                let patience = match impatient && rng.chance(2, 3) {
                    true => Duration::from_millis(rng.below(50)),
                    false => ANSWER_LIMIT,
                };
                (Target::any(rng), body(rng), patience)
            })
            .collect();
        let exchanges = requests.into_iter().map(|(target, body, patience)| {
            exchange(field, door, &client, target, body, patience, round > 0)
        });
        let stays = join_all(exchanges).await.into_iter().collect::<io::Result<Vec<bool>>>()?;
        if stays.contains(&false) {
            break;
        }
    }
    Ok(())
}

fn body(rng: &mut Rng) -> Vec<Vec<u8>> {
    match rng.chance(1, 3) {
        true => (0..1 + rng.below(4)).map(|_| vec![b'b'; rng.index(20_000)]).collect(),
        false => Vec::new(),
    }
}

/// One request; `Ok(false)` when the connection is going away.
async fn exchange(
    field: &Field,
    door: &Door,
    client: &Http2Client,
    target: Target,
    body: Vec<Vec<u8>>,
    patience: Duration,
    reused: bool,
) -> io::Result<bool> {
    let request = Http2Request {
        method: if body.is_empty() { "GET" } else { "POST" }.to_owned(),
        scheme: if door.tls2.is_some() { "https" } else { "http" }.to_owned(),
        authority: "soak.test".to_owned(),
        path: target.path.to_owned(),
        body,
        ..Http2Request::default()
    };
    add(&door.counts.requests, 1);
    match client.request(request, patience).await {
        Ok(response) if response.reset.is_none() => {
            field.judge(door, &target, response.status, &response.body);
            Ok(true)
        }
        Ok(response) => {
            add(&door.counts.answers, 1);
            if !target.may_be_cut() {
                field.tally.wrong(|| format!("{}{} was reset: {:?}", door.name, target.path, response.reset));
            }
            Ok(true)
        }
        Err(Http2Error::TimedOut) if patience < ANSWER_LIMIT => Ok(true),
        // A connection may be told to go, at its age or when it has served enough, while requests are on their way.
        Err(Http2Error::GoAway(_) | Http2Error::Connection(_)) => Ok(false),
        Err(Http2Error::Reset(code)) if code == "REFUSED_STREAM" && reused => Ok(false),
        // A reset may overtake the head of the response.
        Err(Http2Error::Reset(_)) if target.may_be_cut() => Ok(true),
        Err(error) => Err(io::Error::other(format!("{}: {error}", target.path))),
    }
}
