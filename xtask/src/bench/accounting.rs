//! What the kernel knows about a process: CPU time, memory, threads.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// CPU time of a process at one moment.
#[derive(Debug, Clone, Copy, Default)]
pub struct CpuTime {
    /// Time on a core, summed over its threads, from the scheduler.
    pub total: Duration,
    /// The part in user mode, in ticks of the clock (10 ms), so only good over seconds.
    pub user: Duration,
}

impl CpuTime {
    /// Reads it for the process and its children that are alive (nginx and HAProxy may work in a child).
    pub fn of(pids: &[u32]) -> Result<Self> {
        let mut sum = Self::default();
        for pid in pids {
            for task in fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("process {pid}"))? {
                // A thread may end between listing and reading.
                let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
                let nanos = text.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0);
                sum.total += Duration::from_nanos(nanos);
            }
            let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
            let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
            let ticks = |index: usize| fields.get(index).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
            // Fields 14 of proc_pid_stat(5); the first two are before the closing bracket.
            sum.user += Duration::from_millis(ticks(11) * 10);
        }
        Ok(sum)
    }

    /// What was used since `earlier`.
    pub fn since(self, earlier: Self) -> Self {
        Self { total: self.total.saturating_sub(earlier.total), user: self.user.saturating_sub(earlier.user) }
    }
}

/// Resident memory in KiB, summed.
pub fn resident_kib(pids: &[u32]) -> u64 {
    let of = |pid: &u32| -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    pids.iter().filter_map(of).sum()
}

/// A process and its living children.
pub fn family(pid: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let mut pids = vec![pid];
    pids.extend(children.split_whitespace().filter_map(|p| p.parse::<u32>().ok()));
    pids
}

/// The share of a machine's CPU time that its host took away since `earlier`, and a reading to compare with later.
pub fn stolen(earlier: Option<(u64, u64)>) -> (f64, (u64, u64)) {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    let fields: Vec<u64> = line.split_whitespace().skip(1).filter_map(|f| f.parse().ok()).collect();
    let now: (u64, u64) = (fields.get(7).copied().unwrap_or(0), fields.iter().take(8).sum());
    let share = earlier.map_or(0.0, |(steal, all)| (now.0 - steal) as f64 / ((now.1 - all).max(1)) as f64);
    (share, now)
}
