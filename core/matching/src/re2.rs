//! From RE2's syntax to that of the `regex` crate, where the two differ.

/// Where a character class is read: what a hyphen means depends on it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Outside,
    /// At the start, or after something that cannot begin a range.
    Fresh,
    /// After a character that may begin a range.
    Item,
    /// After the hyphen of a range.
    Range,
}

/// Rewrites an RE2 expression so that it means the same: `\d`, `\w`, `\s`, `\b` are ASCII, `[` and doubled `&-~` inside a class are
/// themselves, and `\Q...\E` quotes.
pub(crate) fn translate(re2: &str) -> String {
    let mut out = String::with_capacity(re2.len() + 8);
    let mut rest = re2;
    let mut class = Class::Outside;
    while let Some(next) = rest.chars().next() {
        let in_class = class != Class::Outside;
        let mut taken = next.len_utf8();
        match next {
            '\\' => {
                taken = escape(rest, in_class, &mut out);
                let is_set = rest[1..].starts_with(['d', 'D', 'w', 'W', 's', 'S']);
                class = after(class, is_set);
            }
            '[' if in_class => match named_class(rest) {
                Some(length) => {
                    out.push_str(&rest[..length]);
                    taken = length;
                    class = Class::Fresh;
                }
                None => {
                    out.push_str("\\[");
                    class = after(class, false);
                }
            },
            '[' => {
                taken = open_class(rest, &mut out);
                class = if rest[..taken].ends_with(']') { Class::Item } else { Class::Fresh };
            }
            ']' if in_class => {
                class = Class::Outside;
                out.push(']');
            }
            '-' if class == Class::Item && !rest[1..].starts_with(']') => {
                class = Class::Range;
                out.push('-');
            }
            '&' | '~' | '-' if in_class => {
                out.push('\\');
                out.push(next);
                class = after(class, false);
            }
            _ => {
                out.push(next);
                class = after(class, false);
            }
        }
        rest = &rest[taken..];
    }
    out
}

/// Where one is after a character, or after a set of characters.
fn after(class: Class, is_set: bool) -> Class {
    match class {
        Class::Outside => Class::Outside,
        Class::Range => Class::Fresh,
        Class::Fresh | Class::Item if is_set => Class::Fresh,
        Class::Fresh | Class::Item => Class::Item,
    }
}

/// Translates the beginning of a class; gives the bytes read. A closing bracket in the first place is one of the class's characters.
fn open_class(rest: &str, out: &mut String) -> usize {
    out.push('[');
    let mut taken = 1;
    if rest[taken..].starts_with('^') {
        out.push('^');
        taken += 1;
    }
    if rest[taken..].starts_with(']') {
        out.push_str("\\]");
        taken += 1;
    }
    taken
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
        assert!(matches(r"[--/]+", "-./"));
        assert!(matches(r"[\d-x]+", "1-x") && !matches(r"[\d-x]+", "a"));
        assert!(matches(r"[a-c-]+", "b-"));
    }

    #[test]
    fn quoting_takes_everything_literally() {
        assert!(matches(r"\Qa.b\E.", "a.bc"));
        assert!(!matches(r"\Qa.b\E", "axb"));
        assert!(matches(r"\Qa.b", "a.b"));
        assert!(matches(r"a\.b\/c", "a.b/c"));
    }
}
