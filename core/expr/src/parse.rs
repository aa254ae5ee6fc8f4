//! From a format string to literal text and commands.

use crate::cel::CelOptions;
use crate::command::Command;
use crate::format::Part;
use crate::table;

/// Splits a format string, of which expressions may do what `cel` says.
pub(crate) fn parts(text: &str, cel: CelOptions) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut literal = Vec::new();
    let mut at = 0;
    let bytes = text.as_bytes();
    while at < bytes.len() {
        if bytes[at] != b'%' {
            literal.push(bytes[at]);
            at += 1;
            continue;
        }
        if bytes.get(at + 1) == Some(&b'%') {
            literal.push(b'%');
            at += 2;
            continue;
        }
        let Some(found) = Spelled::read(&text[at..]) else {
            return Err(format!(
                "Incorrect configuration: {text}. Couldn't find valid command at position {at}"
            ));
        };
        if !literal.is_empty() {
            parts.push(Part::Literal(std::mem::take(&mut literal).into()));
        }
        at += found.length;
        parts.push(Part::Command(found.compile(cel)?));
    }
    if !literal.is_empty() {
        parts.push(Part::Literal(literal.into()));
    }
    Ok(parts)
}

/// A command as it is written: `%NAME(args):limit%`.
struct Spelled<'a> {
    name: &'a str,
    args: Option<&'a str>,
    limit: Option<usize>,
    length: usize,
}

impl<'a> Spelled<'a> {
    /// Reads a command at the start of `text`, which begins with `%`.
    fn read(text: &'a str) -> Option<Self> {
        let rest = &text[1..];
        let name_end = rest.bytes().position(|b| !matches!(b, b'A'..=b'Z' | b'0'..=b'9' | b'_'))?;
        if name_end == 0 {
            return None;
        }
        let (name, rest) = rest.split_at(name_end);
        let Some(inside) = rest.strip_prefix('(') else {
            let (limit, end) = ending(rest)?;
            return Some(Self { name, args: None, limit, length: 1 + name_end + end });
        };
        // Arguments may hold anything, closing brackets too: they end at the first one after which the command ends.
        // They stay on one line.
        let line = inside.split('\n').next().unwrap_or_default();
        line.match_indices(')').find_map(|(close, _)| {
            let (limit, end) = ending(&inside[close + 1..])?;
            let length = 1 + name_end + 1 + close + 1 + end;
            Some(Self { name, args: Some(&inside[..close]), limit, length })
        })
    }

    fn compile(&self, cel: CelOptions) -> Result<Command, String> {
        table::command(self.name, self.args.unwrap_or_default(), self.limit, cel)
    }
}

/// Reads `:limit%` or `%`; gives the limit and the bytes read.
fn ending(rest: &str) -> Option<(Option<usize>, usize)> {
    if rest.starts_with('%') {
        return Some((None, 1));
    }
    let digits = rest.strip_prefix(':')?;
    let end = digits.bytes().position(|b| !b.is_ascii_digit())?;
    if end == 0 || digits.as_bytes()[end] != b'%' {
        return None;
    }
    Some((Some(digits[..end].parse().ok()?), end + 2))
}
