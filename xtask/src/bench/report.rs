//! The results as a table and as JSON, with ratios to Envoy.

use serde_json::{Value, json};

use super::Http1;
use super::peers::Peer;
use super::rounds::{Figures, Results, Turn};

/// A finished measurement.
pub struct Report {
    rows: Vec<Row>,
    notes: Vec<String>,
    command: String,
    stolen: f64,
}

/// Medians of one proxy.
struct Row {
    figures: Figures,
    cpu: Spread,
    user_us: f64,
    rps: f64,
    p50_us: f64,
    p99_us: f64,
    errors: u64,
    ratio: Option<f64>,
}

#[derive(Clone, Copy)]
struct Spread {
    min: f64,
    median: f64,
    max: f64,
}

fn spread(turns: &[Turn], of: impl Fn(&Turn) -> f64) -> Spread {
    let mut values: Vec<f64> = turns.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
    Spread { min: at(0), median: at(values.len() / 2), max: at(values.len().saturating_sub(1)) }
}

impl Report {
    /// Sums up.
    pub fn new(options: &Http1, results: Results, notes: Vec<String>) -> Self {
        let mut rows: Vec<Row> = results.figures.into_iter().map(Row::new).collect();
        let envoy = rows.iter().find(|row| row.figures.peer == Peer::Envoy).map(|row| row.cpu.median);
        for row in &mut rows {
            row.ratio = envoy.map(|envoy| row.cpu.median / envoy);
        }
        let command = format!(
            "cargo xtask bench http1 --duration {} --rounds {} --connections {} --body {} --rate {}{}",
            options.duration,
            options.rounds,
            options.connections,
            options.body,
            options.rate,
            if options.instructions { " --instructions" } else { "" }
        );
        Self { rows, notes, command, stolen: results.stolen }
    }

    /// A table in Markdown.
    pub fn table(&self) -> String {
        let mut text = format!("`{}`\n\n", self.command);
        text.push_str(
            "| proxy | CPU us/request | ratio to Envoy | user us | requests/s | p50 us | p99 us | fixed rate: CPU us | p50 us \
             | p99 us | syscalls/request | user instructions/request | RSS idle KiB | RSS loaded KiB | first answer ms |\n",
        );
        text.push_str(&format!("|{}\n", "---|".repeat(15)));
        for row in &self.rows {
            text.push_str(&row.line());
        }
        text.push_str(&format!(
            "\nCPU time taken away by the host meanwhile: {:.1} %.\n",
            self.stolen * 100.0
        ));
        for note in &self.notes {
            text.push_str(&format!("Note: {note}.\n"));
        }
        text
    }

    /// The same as JSON.
    pub fn json(&self) -> String {
        let value = json!({
            "command": self.command,
            "stolen": self.stolen,
            "notes": self.notes,
            "proxies": self.rows.iter().map(Row::json).collect::<Vec<_>>(),
        });
        format!("{value:#}\n")
    }
}

impl Row {
    fn new(figures: Figures) -> Self {
        let median = |of: fn(&Turn) -> f64| spread(&figures.turns, of).median;
        Self {
            cpu: spread(&figures.turns, |t| t.cpu_us),
            user_us: median(|t| t.user_us),
            rps: median(|t| t.load.requests as f64 / t.load.seconds),
            p50_us: median(|t| t.load.p50_us),
            p99_us: median(|t| t.load.p99_us),
            errors: figures.turns.iter().chain(&figures.fixed_rate).map(|t| t.load.errors).sum(),
            ratio: None,
            figures,
        }
    }

    fn line(&self) -> String {
        let figures = &self.figures;
        let shown = |value: Option<f64>, digits: usize| match value {
            Some(value) => format!("{value:.digits$}"),
            None => "-".to_owned(),
        };
        let fixed = figures.fixed_rate;
        let errors = if self.errors > 0 { format!(" ({} errors)", self.errors) } else { String::new() };
        format!(
            "| {}{errors} | {:.1} [{:.1}-{:.1}] | {} | {:.1} | {:.0} | {:.0} | {:.0} | {} | {} | {} | {} | {} | {} | {} | {} |\n",
            figures.peer.name(),
            self.cpu.median,
            self.cpu.min,
            self.cpu.max,
            shown(self.ratio, 2),
            self.user_us,
            self.rps,
            self.p50_us,
            self.p99_us,
            shown(fixed.map(|t| t.cpu_us), 1),
            shown(fixed.map(|t| t.load.p50_us), 0),
            shown(fixed.map(|t| t.load.p99_us), 0),
            shown(figures.syscalls, 2),
            shown(figures.instructions, 0),
            figures.idle_kib,
            figures.loaded_kib,
            shown(figures.startup_ms, 0),
        )
    }

    fn json(&self) -> Value {
        let figures = &self.figures;
        json!({
            "proxy": figures.peer.name(),
            "cpu_us_per_request": { "median": self.cpu.median, "min": self.cpu.min, "max": self.cpu.max },
            "cpu_ratio_to_envoy": self.ratio,
            "user_us_per_request": self.user_us,
            "requests_per_second": self.rps,
            "p50_us": self.p50_us,
            "p99_us": self.p99_us,
            "errors": self.errors,
            "fixed_rate": figures.fixed_rate.map(|t| json!({
                "cpu_us_per_request": t.cpu_us, "p50_us": t.load.p50_us, "p99_us": t.load.p99_us,
                "p999_us": t.load.p999_us,
            })),
            "syscalls_per_request": figures.syscalls,
            "user_instructions_per_request": figures.instructions,
            "resident_idle_kib": figures.idle_kib,
            "resident_loaded_kib": figures.loaded_kib,
            "first_answer_ms": figures.startup_ms,
        })
    }
}
