//! The results as tables in Markdown and as JSON, with targets beside what was measured.

use serde_json::{Value, json};

use super::Options;
use super::job::{Figure, Job};
use super::peer::Peer;
use super::rounds::{Figures, Results, Turn};

/// What was measured for one row of the table.
pub struct Section {
    /// The row's name.
    pub name: &'static str,
    /// What it is about.
    pub about: String,
    /// Every proxy's figures, as a table in Markdown.
    pub table: String,
    /// Targets and whether they are met.
    pub verdicts: Vec<Verdict>,
    /// What a reader has to know.
    pub notes: Vec<String>,
    /// The figures as JSON.
    pub json: Value,
}

/// A target beside what was measured.
pub struct Verdict {
    row: &'static str,
    figure: &'static str,
    limit: f64,
    measured: Option<f64>,
    exact: bool,
}

impl Verdict {
    /// `exact` says that the load of the machine does not move the figure.
    pub fn of(
        row: &'static str,
        figure: &'static str,
        limit: f64,
        measured: Option<f64>,
        exact: bool,
    ) -> Self {
        Self { row, figure, limit, measured, exact }
    }

    /// Whether it is measured, not subject to noise, and missed.
    pub fn is_certain_miss(&self) -> bool {
        self.exact && self.measured.is_some_and(|measured| measured > self.limit)
    }

    /// One sentence.
    pub fn text(&self) -> String {
        let measured = self.measured.map_or_else(|| "not measured".to_owned(), number);
        format!("{}: {}: at most {}, measured {measured}", self.row, self.figure, number(self.limit))
    }

    fn line(&self) -> String {
        let (measured, verdict) = match self.measured {
            None => ("-".to_owned(), "not measured"),
            Some(measured) if measured <= self.limit => (number(measured), "met"),
            Some(measured) => (number(measured), "**missed**"),
        };
        format!("| {} | {} | {} | {measured} | {verdict} |\n", self.row, self.figure, number(self.limit))
    }

    fn json(&self) -> Value {
        json!({ "row": self.row, "figure": self.figure, "limit": self.limit, "measured": self.measured })
    }
}

/// Small numbers with two digits, large ones with none.
fn number(value: f64) -> String {
    if value.abs() < 100.0 { format!("{value:.2}") } else { format!("{value:.0}") }
}

/// Medians of one proxy.
struct Row {
    figures: Figures,
    cpu: [f64; 3],
    user_us: f64,
    rps: f64,
    p50_us: f64,
    p99_us: f64,
    errors: u64,
}

fn spread(turns: &[Turn], of: impl Fn(&Turn) -> f64) -> [f64; 3] {
    let mut values: Vec<f64> = turns.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
    [at(0), at(values.len() / 2), at(values.len().saturating_sub(1))]
}

/// Sums up a row that is measured in CPU time per request.
pub fn section(job: &Job, results: Results, notes: Vec<String>) -> Section {
    let rows: Vec<Row> = results.figures.into_iter().map(Row::new).collect();
    let mut notes = notes;
    notes.push(format!("the host took {:.1} % of CPU time away meanwhile", results.stolen * 100.0));
    let cpu = |peer: Peer| rows.iter().find(|row| row.figures.peer == peer).map(|row| row.cpu[1]);
    let (envoy, haproxy) = (cpu(Peer::Envoy), cpu(Peer::Haproxy));
    let mut table = String::from(
        "| proxy | CPU us/request, median [min-max] | of Envoy's | of HAProxy's | user us | requests/s | p50 us | p99 us \
         | system calls | user instructions | allocations |\n",
    );
    table.push_str(&format!("|{}\n", "---|".repeat(11)));
    for row in &rows {
        table.push_str(&row.line(envoy, haproxy));
    }
    Section {
        name: job.name,
        about: job.about.to_owned(),
        table,
        verdicts: job
            .targets
            .iter()
            .map(|(figure, limit)| verdict(job.name, *figure, *limit, &rows))
            .collect(),
        notes,
        json: rows.iter().map(|row| row.json(envoy, haproxy)).collect(),
    }
}

fn verdict(name: &'static str, figure: Figure, limit: f64, rows: &[Row]) -> Verdict {
    let of = |peer: Peer| rows.iter().find(|row| row.figures.peer == peer);
    let ours = of(Peer::Ours);
    let ratio = |peer: Peer, figure: fn(&Row) -> f64| ours.zip(of(peer)).map(|(a, b)| figure(a) / figure(b));
    let measured = match figure {
        Figure::CpuOfEnvoy => ratio(Peer::Envoy, |row| row.cpu[1]),
        Figure::CpuOfHaproxy => ratio(Peer::Haproxy, |row| row.cpu[1]),
        Figure::P99OfHaproxy => ratio(Peer::Haproxy, |row| row.p99_us),
        Figure::Instructions => ours.and_then(|row| row.figures.instructions),
        Figure::Syscalls => ours.and_then(|row| row.figures.syscalls),
    };
    Verdict::of(name, figure.text(), limit, measured, figure.is_exact())
}

fn shown(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
}

impl Row {
    fn new(figures: Figures) -> Self {
        let median = |of: fn(&Turn) -> f64| spread(&figures.turns, of)[1];
        Self {
            cpu: spread(&figures.turns, |t| t.cpu_us),
            user_us: median(|t| t.user_us),
            rps: median(|t| t.load.requests as f64 / t.load.seconds),
            p50_us: median(|t| t.load.p50_us),
            p99_us: median(|t| t.load.p99_us),
            errors: figures.turns.iter().map(|t| t.load.errors).sum(),
            figures,
        }
    }

    fn line(&self, envoy: Option<f64>, haproxy: Option<f64>) -> String {
        let errors = if self.errors > 0 { format!(" ({} errors)", self.errors) } else { String::new() };
        let [low, middle, high] = self.cpu;
        format!(
            "| {}{errors} | {middle:.1} [{low:.1}-{high:.1}] | {} | {} | {:.1} | {:.0} | {:.0} | {:.0} | {} | {} | {} |\n",
            self.figures.peer.name(),
            shown(envoy.map(|envoy| middle / envoy), 2),
            shown(haproxy.map(|haproxy| middle / haproxy), 2),
            self.user_us,
            self.rps,
            self.p50_us,
            self.p99_us,
            shown(self.figures.syscalls, 2),
            shown(self.figures.instructions, 0),
            shown(self.figures.allocations, 2),
        )
    }

    fn json(&self, envoy: Option<f64>, haproxy: Option<f64>) -> Value {
        let [low, middle, high] = self.cpu;
        json!({
            "proxy": self.figures.peer.name(),
            "cpu_us_per_request": { "median": middle, "min": low, "max": high },
            "cpu_of_envoys": envoy.map(|envoy| middle / envoy),
            "cpu_of_haproxys": haproxy.map(|haproxy| middle / haproxy),
            "user_us_per_request": self.user_us,
            "requests_per_second": self.rps,
            "p50_us": self.p50_us,
            "p99_us": self.p99_us,
            "errors": self.errors,
            "system_calls_per_request": self.figures.syscalls,
            "user_instructions_per_request": self.figures.instructions,
            "allocations_per_request": self.figures.allocations,
            "turns": self.figures.turns,
        })
    }
}

/// The whole report in Markdown.
pub fn markdown(options: &Options, sections: &[Section]) -> String {
    let mut text = format!("`{}`\n", options.command());
    for section in sections {
        text.push_str(&format!("\n### {}: {}\n\n{}", section.name, section.about, section.table));
        for note in &section.notes {
            text.push_str(&format!("\nNote: {note}.\n"));
        }
    }
    text.push_str("\n| row | figure | target, at most | measured | |\n|---|---|---|---|---|\n");
    for verdict in sections.iter().flat_map(|section| &section.verdicts) {
        text.push_str(&verdict.line());
    }
    text
}

/// The whole report as JSON.
pub fn json(options: &Options, sections: &[Section]) -> String {
    let value = json!({
        "command": options.command(),
        "rows": sections.iter().map(|section| json!({
            "name": section.name, "about": section.about, "notes": section.notes, "proxies": section.json,
            "targets": section.verdicts.iter().map(Verdict::json).collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
    });
    format!("{value:#}\n")
}
