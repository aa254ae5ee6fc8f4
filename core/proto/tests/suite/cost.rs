//! What loading a bootstrap costs, printed for the record; only a gross regression fails.

use std::time::{Duration, Instant};

use dhow_proto::envoy::config::bootstrap::v3::Bootstrap;
use dhow_proto::{LoadOptions, load_yaml, table_size};

#[test]
fn a_bootstrap_loads_in_a_moment() {
    let before = anonymous_kib();
    let started = Instant::now();
    let loaded = load_yaml::<Bootstrap>(super::bootstrap::TUTORIAL, &LoadOptions::default()).expect("valid");
    let first = started.elapsed();
    let grown = anonymous_kib().zip(before).map(|(after, before)| after.saturating_sub(before));
    let started = Instant::now();
    for _ in 0..100 {
        load_yaml::<Bootstrap>(super::bootstrap::TUTORIAL, &LoadOptions::default()).expect("valid");
    }
    let warm = started.elapsed() / 100;
    println!(
        "tables {} bytes; first load {first:?}, warm {warm:?}; memory of its own +{grown:?} KiB",
        table_size()
    );
    assert!(loaded.warnings.is_empty());
    assert!(table_size() < 1 << 20);
    assert!(warm < Duration::from_millis(250), "{warm:?}, even without optimisation");
}

/// Memory of this process that is not a page of a file; `None` where the kernel does not tell.
fn anonymous_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("RssAnon:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
