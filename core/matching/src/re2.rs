//! From RE2's syntax to that of the `regex` crate, where the two differ.

/// Rewrites an RE2 expression so that it means the same: `\d`, `\w`, `\s`, `\b` are ASCII, `[` and doubled `&-~` inside a class are
/// themselves, and `\Q...\E` quotes.
pub(crate) fn translate(re2: &str) -> String {
    let mut out = String::with_capacity(re2.len() + 8);
    let mut rest = re2;
    let mut in_class = false;
    while let Some(next) = rest.chars().next() {
        let mut taken = next.len_utf8();
        match next {
            '\\' => taken = escape(rest, in_class, &mut out),
            '[' if in_class => {
                if let Some(length) = named_class(rest) {
                    out.push_str(&rest[..length]);
                    taken = length;
                } else {
                    out.push_str("\\[");
                }
            }
            '[' => {
                in_class = true;
                out.push('[');
                let after = &rest[1..];
                let negated = after.strip_prefix('^');
                out.push_str(if negated.is_some() { "^" } else { "" });
                taken += usize::from(negated.is_some());
                // A closing bracket in the first place is one of the class's characters.
                if negated.unwrap_or(after).starts_with(']') {
                    out.push_str("\\]");
                    taken += 1;
                }
            }
            ']' if in_class => {
                in_class = false;
                out.push(']');
            }
            '&' | '~' if in_class => {
                out.push('\\');
                out.push(next);
            }
            '-' if in_class && rest[1..].starts_with('-') => out.push_str("\\-"),
            _ => out.push(next),
        }
        rest = &rest[taken..];
    }
    out
}

/// Translates an escape at the start of `rest`; gives the bytes read.
fn escape(rest: &str, in_class: bool, out: &mut String) -> usize {
    let Some(letter) = rest[1..].chars().next() else {
        out.push('\\');
        return 1;
    };
    match letter {
        'd' => out.push_str("[0-9]"),
        'D' => out.push_str("[^0-9]"),
        'w' => out.push_str("[0-9A-Za-z_]"),
        'W' => out.push_str("[^0-9A-Za-z_]"),
        's' => out.push_str("[\\t\\n\\f\\r ]"),
        'S' => out.push_str("[^\\t\\n\\f\\r ]"),
        'b' if !in_class => out.push_str("(?-u:\\b)"),
        'B' if !in_class => out.push_str("(?-u:\\B)"),
        'Q' if !in_class => {
            let quoted = &rest[2..];
            let end = quoted.find("\\E").unwrap_or(quoted.len());
            out.push_str(&regex::escape(&quoted[..end]));
            return (2 + end + 2).min(rest.len());
        }
        // The `regex` crate refuses to escape letters without a meaning; so does RE2. All others are the character itself.
        _ if letter.is_ascii_alphanumeric() || letter.is_ascii_punctuation() => {
            out.push('\\');
            out.push(letter);
        }
        _ => out.push(letter),
    }
    1 + letter.len_utf8()
}

/// Length of `[:name:]` at the start of `rest`.
fn named_class(rest: &str) -> Option<usize> {
    let inner = rest.strip_prefix("[:")?;
    let end = inner.find(":]")?;
    let name = inner[..end].strip_prefix('^').unwrap_or(&inner[..end]);
    (!name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase())).then_some(2 + end + 2)
}

#[cfg(test)]
mod tests {
    use super::translate;

    fn matches(re2: &str, text: &str) -> bool {
        regex::bytes::Regex::new(&format!("^(?:{})$", translate(re2))).unwrap().is_match(text.as_bytes())
    }

    #[test]
    fn digits_and_words_are_ascii() {
        assert!(matches(r"\d+", "123"));
        assert!(!matches(r"\d+", "١٢٣"));
        assert!(matches(r"[\d.]+", "1.2"));
        assert!(matches(r"[^\d]", "x"));
        assert!(!matches(r"\w", "é"));
        assert!(matches(r"a\b.*", "a b"));
        assert!(matches(r"\W", "é"));
    }

    #[test]
    fn class_syntax_of_other_dialects_is_literal() {
        assert!(matches(r"[a[b]+", "a[b"));
        assert!(matches(r"[[:alpha:]]+", "abc"));
        assert!(!matches(r"[[:alpha:]]+", "a1"));
        assert!(matches(r"[a&&b]+", "a&b"));
        assert!(matches(r"[]a]+", "]a"));
        assert!(matches(r"[^]a]", "b"));
        assert!(matches(r"[+--]+", "+,-"));
    }

    #[test]
    fn quoting_takes_everything_literally() {
        assert!(matches(r"\Qa.b\E.", "a.bc"));
        assert!(!matches(r"\Qa.b\E", "axb"));
        assert!(matches(r"\Qa.b", "a.b"));
        assert!(matches(r"a\.b\/c", "a.b/c"));
    }
}
