//! From RE2's syntax to that of the `regex` crate, where the two differ, and what RE2 says about expressions that are none.

/// The largest number of repetitions, those of nested ones multiplied.
const MAX_REPEAT: u32 = 1000;

/// Where a character class is read: what a hyphen means depends on it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// At the start, or after something that cannot begin a range.
    Fresh,
    /// After a character that may begin a range.
    Item,
    /// After the hyphen of a range.
    Range,
}

/// What is known of the group that is read, the whole expression being one.
#[derive(Clone, Copy, Default)]
struct Group {
    /// Repetitions of what could be repeated next; none: there is nothing to repeat.
    operand: Option<u32>,
    /// The most repetitions of anything in the group.
    most: u32,
}

/// Reads an expression.
struct Translator<'a> {
    source: &'a str,
    at: usize,
    out: String,
    /// The groups around the current one, then the current one.
    outer: Vec<Group>,
    group: Group,
    /// Where the repetition operator directly before begins.
    repetition: Option<usize>,
}

/// Rewrites an RE2 expression so that it means the same: `\d`, `\w`, `\s`, `\b` are ASCII, `[` and doubled `&-~` inside a class are
/// themselves, `\Q...\E` quotes, and braces that are no repetition are themselves. Groups lose their names, which may come twice.
///
/// # Errors
/// Why it is no expression, in RE2's words.
pub(crate) fn translate(re2: &str) -> Result<String, String> {
    let mut translator = Translator {
        source: re2,
        at: 0,
        out: String::with_capacity(re2.len() + 8),
        outer: Vec::new(),
        group: Group::default(),
        repetition: None,
    };
    translator.run()?;
    Ok(translator.out)
}

impl<'a> Translator<'a> {
    fn rest(&self) -> &'a str {
        &self.source[self.at..]
    }

    fn run(&mut self) -> Result<(), String> {
        while let Some(next) = self.rest().chars().next() {
            let repetition = self.repetition.take();
            match next {
                '*' | '+' | '?' => self.repeat(repetition, 1, 1)?,
                '{' => match counts(self.rest()) {
                    Some((length, times)) => self.repeat(repetition, length, times)?,
                    None => self.literal("\\{", 1),
                },
                '(' => self.open()?,
                ')' => {
                    let inner = self.group.most;
                    self.group = self.outer.pop().ok_or_else(|| format!("unexpected ): {}", self.source))?;
                    self.literal(")", 1);
                    self.group.operand = Some(inner.max(1));
                    self.group.most = self.group.most.max(inner);
                }
                '|' => {
                    self.literal("|", 1);
                    self.group.operand = None;
                }
                '[' => self.class()?,
                '\\' => self.escape()?,
                _ => self.literal(&self.source[self.at..self.at + next.len_utf8()], next.len_utf8()),
            }
        }
        if self.outer.is_empty() { Ok(()) } else { Err(format!("missing ): {}", self.source)) }
    }

    /// Takes `length` bytes for one thing that is written as `text`.
    fn literal(&mut self, text: &str, length: usize) {
        self.out.push_str(text);
        self.at += length;
        self.group.operand = Some(1);
        self.group.most = self.group.most.max(1);
    }

    /// Takes an operator of `length` bytes that repeats what is before it `times` times, and the `?` that makes it a lazy one.
    fn repeat(&mut self, before: Option<usize>, length: usize, times: u32) -> Result<(), String> {
        let start = self.at;
        let lazy = usize::from(self.rest()[length..].starts_with('?'));
        self.at += length + lazy;
        let operator = &self.source[start..self.at];
        if let Some(before) = before {
            return Err(format!("bad repetition operator: {}", &self.source[before..self.at]));
        }
        let Some(repeated) = self.group.operand else {
            return Err(format!("no argument for repetition operator: {operator}"));
        };
        let times = repeated.saturating_mul(times);
        if times > MAX_REPEAT {
            return Err(format!("invalid repetition size: {operator}"));
        }
        self.out.push_str(operator);
        self.group.operand = Some(times.max(1));
        self.group.most = self.group.most.max(times);
        self.repetition = Some(start);
        Ok(())
    }

    /// Takes what opens a group, or the flags that stand alone.
    fn open(&mut self) -> Result<(), String> {
        let rest = self.rest();
        let Some(flags) = rest.strip_prefix("(?") else {
            self.enter("(", 1);
            return Ok(());
        };
        if let Some(name) = flags.strip_prefix("P<").or_else(|| flags.strip_prefix('<')) {
            let start = rest.len() - name.len();
            let end = name.find('>').ok_or_else(|| format!("invalid named capture group: {rest}"))?;
            let is_word = |c: char| c == '_' || c.is_alphanumeric();
            if end == 0 || !name[..end].chars().all(is_word) {
                return Err(format!("invalid named capture group: {}", &rest[..=start + end]));
            }
            self.enter("(", start + end + 1);
            return Ok(());
        }
        let (mut on, mut off, mut negated, mut any) = (String::new(), String::new(), false, false);
        for (at, c) in flags.char_indices() {
            let taken = 2 + at + c.len_utf8();
            match c {
                'i' | 'm' | 's' | 'U' => {
                    let (to, from) = if negated { (&mut off, &mut on) } else { (&mut on, &mut off) };
                    from.retain(|other| other != c);
                    if !to.contains(c) {
                        to.push(c);
                    }
                    any = true;
                }
                '-' if !negated => (negated, any) = (true, false),
                ':' | ')' if any || !negated => {
                    let off = if off.is_empty() { off } else { format!("-{off}") };
                    if c == ':' {
                        self.enter(&format!("(?{on}{off}:"), taken);
                    } else {
                        let empty = on.is_empty() && off.is_empty();
                        self.out.push_str(&if empty { "(?:)".to_owned() } else { format!("(?{on}{off})") });
                        self.at += taken;
                    }
                    return Ok(());
                }
                _ => return Err(format!("invalid perl operator: {}", &rest[..taken])),
            }
        }
        Err(format!("invalid perl operator: {rest}"))
    }

    fn enter(&mut self, text: &str, length: usize) {
        self.out.push_str(text);
        self.at += length;
        self.outer.push(std::mem::take(&mut self.group));
    }

    /// Takes a character class.
    fn class(&mut self) -> Result<(), String> {
        let start = self.at;
        let mut class = Class::Fresh;
        self.literal("[", 1);
        if self.rest().starts_with('^') {
            self.literal("^", 1);
        }
        // A closing bracket in the first place is one of the class's characters.
        if self.rest().starts_with(']') {
            self.literal("\\]", 1);
            class = Class::Item;
        }
        while let Some(next) = self.rest().chars().next() {
            let rest = self.rest();
            match next {
                '\\' => class = self.escape_in_class(class)?,
                '[' => match named_class(rest)? {
                    Some(length) => {
                        self.literal(&rest[..length], length);
                        class = Class::Fresh;
                    }
                    None => {
                        self.literal("\\[", 1);
                        class = class.after_character();
                    }
                },
                ']' => {
                    self.literal("]", 1);
                    return Ok(());
                }
                '-' if class == Class::Item && !rest[1..].starts_with(']') => {
                    self.literal("-", 1);
                    class = Class::Range;
                }
                '&' | '~' | '-' => {
                    self.literal(&format!("\\{next}"), 1);
                    class = class.after_character();
                }
                _ => {
                    self.literal(&rest[..next.len_utf8()], next.len_utf8());
                    class = class.after_character();
                }
            }
        }
        Err(format!("missing ]: {}", &self.source[start..]))
    }

    fn escape_in_class(&mut self, class: Class) -> Result<Class, String> {
        let rest = self.rest();
        let set = rest[1..].chars().next().and_then(|letter| set(letter).or_else(|| property(letter, rest)));
        match set {
            // A set cannot end a range.
            Some(_) if class == Class::Range => Err(format!("invalid escape sequence: {}", &rest[..2])),
            Some((text, length)) => {
                self.literal(text, length);
                Ok(Class::Fresh)
            }
            None => {
                self.character()?;
                Ok(class.after_character())
            }
        }
    }

    /// Takes an escape outside of classes.
    fn escape(&mut self) -> Result<(), String> {
        let rest = self.rest();
        let Some(letter) = rest[1..].chars().next() else { return Err("trailing \\".to_owned()) };
        match letter {
            'b' => self.literal("(?-u:\\b)", 2),
            'B' => self.literal("(?-u:\\B)", 2),
            'A' => self.literal("\\A", 2),
            'z' => self.literal("\\z", 2),
            // Any byte.
            'C' => self.literal("(?s-u:.)", 2),
            'Q' => {
                let quoted = &rest[2..];
                let end = quoted.find("\\E").unwrap_or(quoted.len());
                // What follows repeats the last character, not all of them.
                for c in quoted[..end].chars() {
                    self.literal(&regex::escape(c.encode_utf8(&mut [0; 4])), 0);
                }
                self.at += (2 + end + 2).min(rest.len());
            }
            _ => match set(letter).or_else(|| property(letter, rest)) {
                Some((text, length)) => self.literal(text, length),
                None => self.character()?,
            },
        }
        Ok(())
    }

    /// Takes an escape that stands for one character.
    fn character(&mut self) -> Result<(), String> {
        let rest = self.rest();
        let Some(letter) = rest[1..].chars().next() else { return Err("trailing \\".to_owned()) };
        let bad = |length: usize| Err(format!("invalid escape sequence: {}", &rest[..length]));
        let digits = |from: usize, most: usize, is_digit: fn(&u8) -> bool| {
            rest.bytes().skip(from).take(most).take_while(is_digit).count()
        };
        let is_octal = |byte: &u8| matches!(byte, b'0'..=b'7');
        match letter {
            'n' | 'r' | 't' | 'f' | 'v' | 'a' => self.literal(&rest[..2], 2),
            // One digit alone would refer to a group, but for zero.
            '0'..='7' => {
                let count = digits(1, 3, is_octal);
                if count == 1 && letter != '0' {
                    return bad(2);
                }
                let code = u32::from_str_radix(&rest[1..=count], 8).unwrap_or_default();
                self.literal(&format!("\\x{{{code:x}}}"), 1 + count);
            }
            'x' if rest[2..].starts_with('{') => {
                let end = 3 + digits(3, rest.len(), u8::is_ascii_hexdigit);
                let code = u32::from_str_radix(&rest[3..end], 16).ok().and_then(char::from_u32);
                if code.is_none() || !rest[end..].starts_with('}') {
                    return bad(end);
                }
                self.literal(&rest[..=end], end + 1);
            }
            'x' => match digits(2, 2, u8::is_ascii_hexdigit) {
                2 => self.literal(&rest[..4], 4),
                count => return bad(2 + count),
            },
            _ if letter.is_ascii() && !letter.is_ascii_alphanumeric() => {
                self.literal(&regex::escape(&rest[1..2]), 2);
            }
            _ => return bad(1 + letter.len_utf8()),
        }
        Ok(())
    }
}

impl Class {
    /// Where one is after a character.
    fn after_character(self) -> Self {
        if self == Self::Range { Self::Fresh } else { Self::Item }
    }
}

/// Length of a repetition with counts at the start of `rest`, and the larger count. Anything else in braces is no repetition.
fn counts(rest: &str) -> Option<(usize, u32)> {
    let inner = &rest[1..rest.find('}')?];
    let number = |text: &str| {
        let leads_with_zero = text.len() > 1 && text.starts_with('0');
        let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        (is_number && !leads_with_zero).then(|| text.parse().unwrap_or(u32::MAX))
    };
    let times = match inner.split_once(',') {
        None => number(inner)?,
        Some((least, "")) => number(least)?,
        Some((least, most)) => match (number(least)?, number(most)?) {
            (least, most) if least <= most => most,
            _ => u32::MAX,
        },
    };
    Some((inner.len() + 2, times))
}

/// The set of characters of an escape, and the escape's length.
fn set(letter: char) -> Option<(&'static str, usize)> {
    let text = match letter {
        'd' => "[0-9]",
        'D' => "[^0-9]",
        'w' => "[0-9A-Za-z_]",
        'W' => "[^0-9A-Za-z_]",
        's' => "[\\t\\n\\f\\r ]",
        'S' => "[^\\t\\n\\f\\r ]",
        _ => return None,
    };
    Some((text, 2))
}

/// A property of Unicode at the start of `rest` (`\pN`, `\p{Greek}`), and its length.
fn property(letter: char, rest: &str) -> Option<(&str, usize)> {
    if !matches!(letter, 'p' | 'P') {
        return None;
    }
    let length = match rest[2..].chars().next()? {
        '{' => rest.find('}')? + 1,
        name => 2 + name.len_utf8(),
    };
    Some((&rest[..length], length))
}

/// Length of `[:name:]` at the start of `rest`.
fn named_class(rest: &str) -> Result<Option<usize>, String> {
    let Some(inner) = rest.strip_prefix("[:") else { return Ok(None) };
    let Some(end) = inner.find(":]") else { return Ok(None) };
    let length = 2 + end + 2;
    match inner[..end].strip_prefix('^').unwrap_or(&inner[..end]) {
        "alnum" | "alpha" | "ascii" | "blank" | "cntrl" | "digit" | "graph" | "lower" | "print" | "punct"
        | "space" | "upper" | "word" | "xdigit" => Ok(Some(length)),
        _ => Err(format!("invalid character class range: {}", &rest[..length])),
    }
}

#[cfg(test)]
mod tests {
    use super::translate;

    fn matches(re2: &str, text: &str) -> bool {
        regex::bytes::Regex::new(&format!("^(?:{})$", translate(re2).unwrap()))
            .unwrap()
            .is_match(text.as_bytes())
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

    #[test]
    fn what_has_a_meaning_in_other_dialects_only_is_literal() {
        assert!(matches("/{x}/{x}", "/{x}/{x}"));
        assert!(matches("a{,3}", "a{,3}") && matches("a{2", "a{2") && matches("a{02}", "a{02}"));
        assert!(matches(r"\<a\>", "<a>"));
        assert!(matches(r"(?P<n>a)(?<n>b)", "ab"));
        assert!(matches(r"\012\x41\x{42}", "\nAB"));
        assert!(matches("(?)a(?i-s:B)(?ii)c", "abC"));
        assert!(matches(r"a{2}?\Qab\E+", "aaabbb"));
    }

    /// The words are those of Envoy 1.40.
    #[test]
    fn faults_are_named_with_what_is_at_fault() {
        let table = [
            ("/**/a", "bad repetition operator: **"),
            ("a*??", "bad repetition operator: *??"),
            ("a{2}{3}", "bad repetition operator: {2}{3}"),
            ("a{1001}", "invalid repetition size: {1001}"),
            ("(a{100}){100}", "invalid repetition size: {100}"),
            ("a{3,2}", "invalid repetition size: {3,2}"),
            ("(?x)a", "invalid perl operator: (?x"),
            ("(?P=n)", "invalid perl operator: (?P"),
            ("(?=x)", "invalid perl operator: (?="),
            ("(?i", "invalid perl operator: (?i"),
            ("(?-:a)", "invalid perl operator: (?-:"),
            ("a(?P<n", "invalid named capture group: (?P<n"),
            (r"\1", r"invalid escape sequence: \1"),
            (r"\u0041", r"invalid escape sequence: \u"),
            (r"\E", r"invalid escape sequence: \E"),
            (r"\x4", r"invalid escape sequence: \x4"),
            (r"[\Qa\E]", r"invalid escape sequence: \Q"),
            (r"[a-\d]", r"invalid escape sequence: \d"),
            ("[[:foo:]]", "invalid character class range: [:foo:]"),
            ("a(b", "missing ): a(b"),
            ("a)b", "unexpected ): a)b"),
            ("x[ab", "missing ]: [ab"),
            ("*a", "no argument for repetition operator: *"),
            ("a|+", "no argument for repetition operator: +"),
            ("({2})", "no argument for repetition operator: {2}"),
            ("a\\", "trailing \\"),
        ];
        for (expression, words) in table {
            assert_eq!(translate(expression).unwrap_err(), words);
        }
    }
}
