//! The page.

use std::fmt::Write as _;

use dhow_base::UNSUPPORTED;

use super::{Entry, FieldEntry, Status};

#[derive(Default)]
struct Count {
    honoured: usize,
    warned: usize,
    refused: usize,
}

fn count<'a>(fields: impl Iterator<Item = &'a FieldEntry>) -> Count {
    let mut count = Count::default();
    for field in fields {
        match field.status {
            Status::Honoured | Status::Checked(_) => count.honoured += 1,
            Status::Warned(_) => count.warned += 1,
            Status::Refused(_) => count.refused += 1,
        }
    }
    count
}

pub(super) fn summary(entries: &[Entry]) -> String {
    let Count { honoured, warned, refused } = count(entries.iter().flat_map(|entry| &entry.fields));
    format!(
        "{} messages, {honoured} fields honoured, {warned} warned about, {refused} refused",
        entries.len()
    )
}

pub(super) fn render(entries: &[Entry]) -> String {
    let mut page = String::from(
        "# Envoy's configuration, field by field\n\n\
         What `dhow-proxy` does with every field of every message that it takes, found out by setting the field in a bootstrap and asking\n\
         `dhow-proxy --mode validate`. Written by `cargo run -p dhow-compatibility -- ledger`; a test fails when it is not current.\n\n\
         - **honoured**: accepted, and read by the code (an unread field does not compile). Values of an enum that are refused are named.\n\
         - **warned**: accepted; the log says at start, with the field's path, what it does not do.\n\
         - **refused**: the configuration is refused with the field's path and this reason. A message inside a refused field is not listed.\n\n",
    );
    let _ = writeln!(page, "{}.\n", summary(entries));
    for entry in entries {
        let Count { honoured, warned, refused } = count(entry.fields.iter());
        let _ = writeln!(page, "## {}\n", entry.message);
        if warned + refused == 0 && entry.fields.iter().all(|field| field.refused_values.is_empty()) {
            let names: Vec<String> = entry.fields.iter().map(|field| format!("`{}`", field.name)).collect();
            let _ = writeln!(
                page,
                "All {honoured} honoured: {}.\n",
                if names.is_empty() { "none".into() } else { names.join(", ") }
            );
            continue;
        }
        let _ = writeln!(page, "{honoured} honoured, {warned} warned, {refused} refused.\n");
        page.push_str("| field | | remark |\n|---|---|---|\n");
        for field in &entry.fields {
            let deprecated = if field.deprecated { " †" } else { "" };
            let (status, mut remark) = match &field.status {
                Status::Honoured | Status::Checked(_) => ("honoured", String::new()),
                Status::Warned(text) => ("**warned**", text.clone()),
                Status::Refused(text) => {
                    let reason = text.strip_prefix(UNSUPPORTED).and_then(|rest| rest.strip_prefix(": "));
                    ("**refused**", reason.unwrap_or(text).to_owned())
                }
            };
            if !field.refused_values.is_empty() {
                remark = format!("refused: {}", field.refused_values.join(", "));
            }
            let remark = remark.replace('|', "\\|");
            let _ = writeln!(page, "| `{}`{deprecated} | {status} | {remark} |", field.name);
        }
        page.push('\n');
    }
    page.push_str("† deprecated by Envoy.\n");
    page
}
