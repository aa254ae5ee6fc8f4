//! Steps that work below requests: HTTP/2 frames, and the bytes that reached an upstream.

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use dhow_testkit::poll_until_async;
use dhow_testkit::raw_http2::{FrameClient, FrameScript, Observed};
use dhow_testkit::stream::End;
use dhow_testkit::upstream::SeenBytes;

use crate::environment::Environment;
use crate::normalise::Normaliser;
use crate::outcome::{FrameFacts, Seen};
use crate::steps::Step;

/// How long each wait inside of a step with frames may take unless the step says otherwise.
const WAIT_LIMIT: Duration = Duration::from_secs(3);

/// How long what an upstream has seen has to stay the same to count as final.
const QUIET: Duration = Duration::from_millis(60);

/// Carries out a `frames` step on a connection of its own.
pub async fn frames(environment: &Environment, step: &Step) -> Result<Seen> {
    let address = environment.port(step.to.as_deref().unwrap_or("http"))?;
    let tls = step.tls.as_ref().map(|tls| environment.client_tls(tls)).transpose()?;
    let limit = step.limit_ms.map_or(WAIT_LIMIT, Duration::from_millis);
    let mut scripts = Vec::new();
    if !step.bare {
        // Without a dynamic table the status of each response can be read off its header block.
        let settings = [("header_table_size".to_owned(), 0), ("enable_push".to_owned(), 0)];
        scripts.extend([FrameScript::Preface, FrameScript::Settings(settings.into())]);
    }
    scripts.extend(step.frames.iter().flatten().cloned());
    let client = FrameClient::connect(address, tls.as_ref(), limit).await.context("connection for frames")?;
    let observed = client.run(&scripts, !step.impolite).await.map_err(|e| anyhow!("frames: {e}"))?;
    let awaited: Vec<u32> = scripts
        .iter()
        .flat_map(|script| match script {
            FrameScript::Answered(streams) => streams.clone(),
            _ => Vec::new(),
        })
        .collect();
    Ok(Seen::Frames(facts(&observed, &awaited, &environment.normaliser())))
}

/// What is compared of the frames that came. Once the connection was given up, streams that nobody waited for are left out: how
/// far they got is a matter of the moment.
fn facts(observed: &Observed, awaited: &[u32], normaliser: &Normaliser) -> FrameFacts {
    let over = observed.is_over();
    let streams = observed.streams.iter().filter(|(id, _)| !over || awaited.contains(id));
    FrameFacts {
        goaway: observed.goaways.last().cloned(),
        streams: streams
            .map(|(id, stream)| {
                let mut words: Vec<String> = stream.status.iter().map(u16::to_string).collect();
                if !stream.body.is_empty() {
                    words.push(normaliser.body(&stream.body));
                }
                words.extend(stream.metadata.iter().cloned());
                match &stream.reset {
                    Some(code) => words.push(format!("reset {code}")),
                    None if !stream.ended => words.push("unfinished".to_owned()),
                    None => {}
                }
                (id.to_string(), words.join(" "))
            })
            .collect(),
        // Whether the end is orderly depends on what was still unread.
        ended: observed.end.is_some() && observed.goaways.is_empty(),
    }
}

/// Carries out an `observed` step: the frames that an upstream has seen on its last connection, once they stop changing.
pub async fn observed(environment: &Environment, name: &str) -> Result<Seen> {
    let record = environment.record(name)?;
    let seen = settled(|| record.frames()).await;
    let last =
        seen.last().with_context(|| format!("upstream {name} has no connection that records frames"))?;
    let all: Vec<u32> = last.streams.keys().copied().collect();
    Ok(Seen::Frames(facts(last, &all, &environment.normaliser())))
}

/// Carries out a `wire` step: the bytes that an upstream has received, connection by connection, once they stop changing.
pub async fn wire(environment: &Environment, name: &str) -> Result<Seen> {
    let record = environment.record(name)?;
    let seen = settled(|| record.tcp()).await;
    let normaliser = environment.normaliser();
    let used = seen.iter().filter(|connection| !connection.received.is_empty());
    let texts: Vec<String> = used.map(|connection| normaliser.wire(&connection.received)).collect();
    Ok(Seen::Bytes { text: texts.join("\n---\n"), end: "open".to_owned() })
}

/// Carries out a `connections` step: a line for each connection of an upstream, once they stop changing. They are sorted: which of
/// two that come at the same time is the first is a matter of the moment.
pub async fn connections(environment: &Environment, name: &str) -> Result<Seen> {
    let record = environment.record(name)?;
    let seen = settled(|| record.tcp()).await;
    let normaliser = environment.normaliser();
    let line = |connection: &SeenBytes| {
        let end = match connection.end {
            Some(End::Closed) => "closed",
            Some(End::Reset) => "reset",
            None => "open",
        };
        format!("{} {:?}", end, normaliser.proxied(&connection.received))
    };
    let mut lines: Vec<String> = seen.iter().map(line).collect();
    lines.sort();
    Ok(Seen::Bytes { text: lines.join("\n"), end: "open".to_owned() })
}

async fn settled<T: PartialEq + Clone>(look: impl Fn() -> T) -> T {
    let mut last = look();
    let mut since = tokio::time::Instant::now();
    // The limit only ends a wait for an upstream that never rests.
    let _ = poll_until_async(WAIT_LIMIT, || {
        let now = look();
        if now != last {
            last = now;
            since = tokio::time::Instant::now();
        }
        let quiet = since.elapsed() >= QUIET;
        async move { quiet.then_some(()) }
    })
    .await;
    last
}
