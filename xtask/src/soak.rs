//! `cargo xtask soak`: mixed traffic through dhow-proxy while its upstreams fail and come back.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;
use dhow_load::soak;

use crate::build::build;

/// Options of `soak`.
#[derive(Args)]
pub struct Options {
    /// How long traffic is sent, such as `90s` or `10m`.
    #[arg(long, default_value = "10m", value_parser = duration)]
    duration: Duration,
    /// Seed of everything random.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Clients at a time.
    #[arg(long, default_value_t = 24)]
    clients: usize,
    /// Run this proxy instead of building ours: another build, or the real Envoy to see that the rules are true.
    #[arg(long)]
    ours: Option<PathBuf>,
    /// Build ours with optimisations.
    #[arg(long)]
    release: bool,
}

/// Runs it; fails with what must not be.
pub fn run(options: Options) -> Result<()> {
    let proxy = match options.ours {
        Some(path) => path.canonicalize()?,
        None => build("dhow-proxy-bin", "dhow-proxy", options.release)?,
    };
    let summary = soak::run(&soak::Options {
        proxy,
        duration: options.duration,
        seed: options.seed,
        clients: options.clients,
        ..soak::Options::default()
    })?;
    print!("{}", summary.text);
    ensure!(
        summary.violations.is_empty(),
        "the soak run does not hold:\n  {}",
        summary.violations.join("\n  ")
    );
    println!("  holds");
    Ok(())
}

fn duration(text: &str) -> Result<Duration, String> {
    let (digits, seconds) = match text.strip_suffix(['s', 'm', 'h']) {
        Some(digits) => (digits, [1, 60, 3600]["smh".find(&text[digits.len()..]).unwrap_or(0)]),
        None => (text, 1),
    };
    let number: u64 =
        digits.parse().map_err(|_| format!("`{text}` is not a duration such as `90s` or `10m`"))?;
    Ok(Duration::from_secs(number * seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("10m").unwrap(), Duration::from_secs(600));
        assert_eq!(duration("90s").unwrap(), Duration::from_secs(90));
        assert_eq!(duration("5").unwrap(), Duration::from_secs(5));
        assert!(duration("soon").is_err());
    }
}
