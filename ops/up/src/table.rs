//! The table of workloads, as text.

/// One line of the table.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Row {
    pub name: String,
    /// Processes that are ready, and all.
    pub ready: (usize, usize),
    pub status: Status,
    pub restarts: u32,
    pub address: String,
}

/// How a pod is, in the words of `kubectl get pods`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Status {
    /// Processes run and are not all ready yet.
    Starting,
    /// All is ready.
    Running,
    /// A process ended and will be started again.
    CrashLoopBackOff,
}

impl Status {
    fn name(self) -> &'static str {
        match self {
            Self::Starting => "Starting",
            Self::Running => "Running",
            Self::CrashLoopBackOff => "CrashLoopBackOff",
        }
    }

    /// ANSI colour number.
    fn color(self) -> u8 {
        match self {
            Self::Starting => 33,
            Self::Running => 32,
            Self::CrashLoopBackOff => 31,
        }
    }
}

const HEADINGS: [&str; 5] = ["NAME", "READY", "STATUS", "RESTARTS", "ADDRESS"];

/// The column of the status, which is coloured.
const STATUS: usize = 2;

/// Space between columns.
const GAP: usize = 2;

/// The lines of the table, cut off at `width` characters; coloured when `color` is set.
pub(crate) fn render(rows: &[Row], width: usize, color: bool) -> Vec<String> {
    let cells: Vec<[String; 5]> = rows
        .iter()
        .map(|row| {
            [
                row.name.clone(),
                format!("{}/{}", row.ready.0, row.ready.1),
                row.status.name().to_owned(),
                row.restarts.to_string(),
                row.address.clone(),
            ]
        })
        .collect();
    let mut widths = HEADINGS.map(str::len);
    for row in &cells {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let headings = line(&HEADINGS, &widths, width, None);
    let lines = cells.iter().zip(rows).map(|(cells, row)| {
        line(&cells.each_ref().map(String::as_str), &widths, width, color.then(|| row.status.color()))
    });
    std::iter::once(headings).chain(lines).collect()
}

fn line(cells: &[&str; 5], widths: &[usize; 5], room: usize, color: Option<u8>) -> String {
    let mut out = String::new();
    let mut used = 0;
    for (column, (cell, width)) in cells.iter().zip(widths).enumerate() {
        let cut: String = cell.chars().take(room.saturating_sub(used)).collect();
        let length = cut.chars().count();
        match color.filter(|_| column == STATUS && length > 0) {
            Some(number) => out.push_str(&format!("\x1b[{number}m{cut}\x1b[0m")),
            None => out.push_str(&cut),
        }
        let padding = if column + 1 == cells.len() { 0 } else { width + GAP - length };
        let padding = padding.min(room.saturating_sub(used + length));
        out.push_str(&" ".repeat(padding));
        used += length + padding;
    }
    out.truncate(out.trim_end().len());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, status: Status) -> Row {
        Row { name: name.to_owned(), ready: (1, 2), status, restarts: 3, address: "127.64.0.2".to_owned() }
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [row("a", Status::Running), row("longer-name", Status::CrashLoopBackOff)];
        assert_eq!(
            render(&rows, 80, false),
            [
                "NAME         READY  STATUS            RESTARTS  ADDRESS",
                "a            1/2    Running           3         127.64.0.2",
                "longer-name  1/2    CrashLoopBackOff  3         127.64.0.2",
            ]
        );
    }

    #[test]
    fn nothing_is_wider_than_the_terminal() {
        let rows = [row("longer-name", Status::CrashLoopBackOff)];
        for width in 0..70 {
            for line in render(&rows, width, false) {
                assert!(line.chars().count() <= width, "{width} {line:?}");
            }
        }
        let colored = render(&rows, 25, true);
        assert_eq!(colored[1], "longer-name  1/2    \x1b[31mCrash\x1b[0m");
    }
}
