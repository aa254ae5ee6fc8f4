//! How soon a proxy with a large configuration serves its first request.

use std::path::PathBuf;

use anyhow::Result;
use serde_json::{Value, json};

use super::large::Large;
use super::peer::Peer;
use super::report::{Section, Verdict};
use super::{Options, Programs};

/// The largest share of Envoy's time that meets the target.
const OF_ENVOY: f64 = 0.25;

/// Starts every proxy several times, in turns.
pub fn measure(options: &Options, programs: &Programs) -> Result<Section> {
    let size = options.resources;
    let large = Large::new(size, programs)?;
    let mut notes = Vec::new();
    let mut rows: Vec<(Peer, PathBuf, Vec<f64>)> = Vec::new();
    for peer in [Peer::Ours, Peer::Envoy].into_iter().filter(|peer| options.peers.contains(peer)) {
        match peer.find(programs) {
            Ok(binary) => rows.push((peer, binary, Vec::new())),
            Err(error) => notes.push(format!("{} is left out: {error}", peer.name())),
        }
    }
    for round in 1..=options.rounds {
        for (peer, binary, times) in &mut rows {
            let (child, took) = large.launch(*peer, binary)?;
            drop(child);
            eprintln!(
                "start round {round}/{} {:<10} {:6.0} ms",
                options.rounds,
                peer.name(),
                took.as_secs_f64() * 1e3
            );
            times.push(took.as_secs_f64() * 1e3);
        }
    }
    for (_, _, times) in &mut rows {
        times.sort_by(f64::total_cmp);
    }
    let median = |peer: Peer| {
        let times = &rows.iter().find(|row| row.0 == peer)?.2;
        times.get(times.len() / 2).copied()
    };
    let ratio = median(Peer::Ours).zip(median(Peer::Envoy)).map(|(ours, envoy)| ours / envoy);
    let mut text = String::from("| proxy | ms until the first answer, median [min-max] |\n|---|---|\n");
    for (peer, _, times) in &rows {
        let at = |index: usize| times.get(index).copied().unwrap_or(f64::NAN);
        let (low, middle, high) = (at(0), at(times.len() / 2), at(times.len().saturating_sub(1)));
        text.push_str(&format!("| {} | {middle:.0} [{low:.0}-{high:.0}] |\n", peer.name()));
    }
    let json: Value =
        rows.iter().map(|(peer, _, times)| json!({ "proxy": peer.name(), "ms": times })).collect();
    Ok(Section {
        name: "start",
        about: format!("start with {size} clusters and {size} routes until the first answer"),
        table: text,
        verdicts: vec![Verdict::of("start", "time until ready, of Envoy's", OF_ENVOY, ratio, false)],
        notes,
        json,
    })
}
