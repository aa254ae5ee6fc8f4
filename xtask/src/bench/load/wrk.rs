//! `wrk`: a closed loop of HTTP/1.1 for a given time.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use dhow_load::{Pass, Spec};

use super::pinned;

/// Runs it on core 1.
pub fn run(wrk: &Path, spec: &Spec) -> Result<Pass> {
    let (program, mut line) = pinned(1, wrk);
    let seconds = spec.millis.div_ceil(1000);
    line.extend([
        "-t1".into(),
        format!("-c{}", spec.connections),
        format!("-d{seconds}s"),
        "--latency".into(),
    ]);
    line.push(format!("http://127.0.0.1:{}/bench", spec.port));
    let output = Command::new(program).args(line).output().context("wrk")?;
    let text = String::from_utf8_lossy(&output.stdout);
    parse(&text).with_context(|| format!("unexpected output of wrk:\n{text}"))
}

fn parse(text: &str) -> Result<Pass> {
    let mut pass = Pass::default();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["50%", latency] => pass.p50_us = micros(latency)?,
            ["99%", latency] => pass.p99_us = micros(latency)?,
            [count, "requests", "in", time, ..] => {
                pass.requests = count.parse()?;
                pass.seconds = micros(time.trim_end_matches(','))? / 1e6;
            }
            ["Non-2xx", .., count] => pass.errors += count.parse::<u64>()?,
            ["Socket", "errors:", rest @ ..] => {
                let numbers = rest.iter().filter_map(|w| w.trim_end_matches(',').parse::<u64>().ok());
                pass.errors += numbers.sum::<u64>();
            }
            _ => {}
        }
    }
    ensure!(pass.requests > 0 && pass.seconds > 0.0, "no requests");
    pass.requests -= pass.errors.min(pass.requests);
    Ok(pass)
}

/// A time as wrk and h2load write it: `12.34us`, `1.20ms`, `3.00s`, `1.00m`.
pub fn micros(text: &str) -> Result<f64> {
    for (unit, factor) in [("us", 1.0), ("ms", 1e3), ("m", 60e6), ("s", 1e6)] {
        if let Some(number) = text.strip_suffix(unit)
            && let Ok(number) = number.parse::<f64>()
        {
            return Ok(number * factor);
        }
    }
    bail!("`{text}` is not a time")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_of_wrk_is_read() {
        let text = "Running 2s test\n  Latency Distribution\n     50%  617.00us\n     75%    0.70ms\n     99%    1.02ms\n  \
                    204134 requests in 2.00s, 250.00MB read\n  Socket errors: connect 0, read 1, write 0, timeout 0\n\
                    Requests/sec: 101000.0\n";
        let pass = parse(text).unwrap();
        assert_eq!((pass.requests, pass.errors), (204_133, 1));
        assert_eq!((pass.p50_us, pass.p99_us, pass.seconds), (617.0, 1020.0, 2.0));
        assert!(parse("unable to connect").is_err());
    }
}
