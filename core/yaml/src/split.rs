//! Streams in which one broken document must not hide the others.

use crate::{Dialect, Document, Node, Value, YamlError, compose};

/// Reads the documents of a stream one by one, as Kubernetes tools do: the text is cut at lines that start with `---`, so
/// an error in one document leaves the others readable. Lines are counted over the whole text.
///
/// Parts without content are left out.
pub fn parse_separately(text: &str, dialect: Dialect) -> Vec<Result<Document, YamlError>> {
    let mut outcomes = Vec::new();
    for (lines_before, part) in parts(text) {
        match compose::compose(part, dialect) {
            Ok(documents) => {
                for mut document in documents {
                    if !document.root.is_null() {
                        move_down(&mut document.root, lines_before);
                        outcomes.push(Ok(document));
                    }
                }
            }
            Err(error) => outcomes.push(Err(YamlError { line: error.line + lines_before, ..error })),
        }
    }
    outcomes
}

/// The parts between separators, each with the number of lines in front of it.
fn parts(text: &str) -> Vec<(usize, &str)> {
    let mut parts = Vec::new();
    let (mut start, mut start_line, mut offset) = (0, 0, 0);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        if line.starts_with("---") && line[3..].chars().next().is_none_or(char::is_whitespace) {
            parts.push((start_line, &text[start..offset]));
            (start, start_line) = (offset, number);
        }
        offset += line.len();
    }
    parts.push((start_line, &text[start..]));
    parts
}

fn move_down(node: &mut Node, lines: usize) {
    if lines == 0 {
        return;
    }
    node.line += lines;
    match &mut node.value {
        Value::Sequence(items) => items.iter_mut().for_each(|item| move_down(item, lines)),
        Value::Mapping(entries) => {
            for entry in entries {
                entry.line += lines;
                move_down(&mut entry.value, lines);
            }
        }
        _ => {}
    }
}
