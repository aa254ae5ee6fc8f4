//! The terminal: lines that scroll, and on a terminal a table below them that stays.

use std::io::{IsTerminal, Write};

use crate::table::{Row, render};

/// Standard output as this program uses it.
#[derive(Debug)]
pub(crate) struct Screen {
    terminal: bool,
    color: bool,
    /// Lines of the table that are on the terminal now.
    drawn: usize,
    last: Vec<String>,
}

impl Screen {
    pub(crate) fn new() -> Self {
        let terminal =
            std::io::stdout().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let color = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { terminal, color, drawn: 0, last: Vec::new() }
    }

    /// Whether there is a table that stays.
    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Writes a line that stays, above the table.
    pub(crate) fn line(&mut self, text: &str) {
        let mut out = self.erased();
        out.push_str(text);
        out.push('\n');
        self.last.clear();
        write(&out);
    }

    /// Shows the table, or brings it up to date, with `footer` below it. Does nothing where there is no terminal.
    pub(crate) fn table(&mut self, rows: &[Row], footer: &[String]) {
        if !self.terminal {
            return;
        }
        let (width, height) = size();
        let mut lines = render(rows, width, self.color);
        let room = height.saturating_sub(footer.len() + 3);
        if lines.len() > room {
            // What has scrolled off cannot be erased.
            let hidden = lines.split_off(room.saturating_sub(1)).len();
            lines.push(format!("... and {hidden} more"));
        }
        lines.push(String::new());
        lines.extend(footer.iter().map(|line| line.chars().take(width).collect()));
        if lines == self.last {
            return;
        }
        let mut out = self.erased();
        for line in &lines {
            out.push_str(line);
            out.push('\n');
        }
        self.drawn = lines.len();
        self.last = lines;
        write(&out);
    }

    /// Writes the table once, where there is no terminal to keep it on.
    pub(crate) fn plain_table(&mut self, rows: &[Row]) {
        for line in render(rows, usize::MAX, false) {
            self.line(&line);
        }
    }

    /// What makes the terminal forget the table that it shows.
    fn erased(&mut self) -> String {
        match std::mem::take(&mut self.drawn) {
            0 => String::new(),
            // The return is for what the user typed meanwhile.
            lines => format!("\r\x1b[{lines}A\x1b[J"),
        }
    }
}

/// Columns and lines of the terminal. One column stays free: some terminals wrap when the last one is used.
fn size() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(std::io::stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
            (usize::from(size.ws_col) - 1, usize::from(size.ws_row))
        }
        _ => (80, 24),
    }
}

fn write(text: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody to tell when the terminal is gone; the mesh goes on until it is stopped.
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}
