//! How soon a proxy serves its first request.

use anyhow::Result;

use super::peers::Lab;
use super::rounds::Results;

/// Starts per proxy; the median counts.
const STARTS: usize = 7;

/// Starts every proxy several times, in turns.
pub fn measure(lab: &Lab, results: &mut Results) -> Result<()> {
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); lab.proxies().len()];
    for _ in 0..STARTS {
        for (proxy, times) in lab.proxies().iter().zip(&mut times) {
            let (child, took) = lab.launch_timed(proxy, &[])?;
            drop(child);
            times.push(took.as_secs_f64() * 1e3);
        }
    }
    for (figures, mut times) in results.figures.iter_mut().zip(times) {
        times.sort_by(f64::total_cmp);
        figures.startup_ms = times.get(times.len() / 2).copied();
    }
    Ok(())
}
