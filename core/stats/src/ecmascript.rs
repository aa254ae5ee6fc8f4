//! The expressions that Envoy takes for tags: those of ECMAScript as the C++ library reads them, which refuses some that
//! `fancy_regex` takes, and says so in its own words.

/// Checks an expression.
///
/// # Errors
/// What the C++ library says of it.
pub(crate) fn check(expression: &str) -> Result<(), &'static str> {
    let mut parser = Parser { text: expression.as_bytes(), at: 0, groups: 0 };
    parser.alternatives()?;
    if parser.at < parser.text.len() {
        Err("The parser did not consume the entire regular expression.")
    } else {
        Ok(())
    }
}

const BACK_REFERENCE: &str = "The expression contained an invalid back reference.";
const BAD_RANGE_OF_COUNTS: &str = "The expression contained an invalid range in a {} expression.";
const CHARACTER_CLASS: &str = "The expression contained an invalid character class name.";
const CHARACTER_RANGE: &str =
    "The expression contained an invalid character range, such as [b-a] in most encodings.";
const COLLATING: &str = "The expression contained an invalid collating element name.";
const ESCAPE: &str = "The expression contained an invalid escaped character, or a trailing escape.";
const MISMATCHED_BRACES: &str = "The expression contained mismatched { and }.";
const MISMATCHED_BRACKETS: &str = "The expression contained mismatched [ and ].";
const MISMATCHED_PARENTHESES: &str = "The expression contained mismatched ( and ).";
const NOTHING_TO_REPEAT: &str = "One of *?+{ was not preceded by a valid regular expression.";

const CLASSES: [&[u8]; 15] = [
    b"alnum", b"alpha", b"blank", b"cntrl", b"d", b"digit", b"graph", b"lower", b"print", b"punct", b"s",
    b"space", b"upper", b"w", b"xdigit",
];

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
    /// Groups that were opened so far.
    groups: u32,
}

type Outcome<T = ()> = Result<T, &'static str>;

impl Parser<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn eat(&mut self, wanted: &[u8]) -> bool {
        let found = self.text[self.at..].starts_with(wanted);
        if found {
            self.at += wanted.len();
        }
        found
    }

    fn alternatives(&mut self) -> Outcome {
        while self.term()? {}
        while self.eat(b"|") {
            while self.term()? {}
        }
        Ok(())
    }

    /// Reads a term with what repeats it; false where none begins.
    fn term(&mut self) -> Outcome<bool> {
        for assertion in [&b"^"[..], b"$", b"\\b", b"\\B"] {
            if self.eat(assertion) {
                return Ok(true);
            }
        }
        if self.eat(b"(?=") || self.eat(b"(?!") {
            self.group()?;
            return Ok(true);
        }
        if !self.atom()? {
            return Ok(false);
        }
        self.quantifier()?;
        Ok(true)
    }

    /// Reads on behind what opens a group.
    fn group(&mut self) -> Outcome {
        self.alternatives()?;
        if self.eat(b")") { Ok(()) } else { Err(MISMATCHED_PARENTHESES) }
    }

    fn atom(&mut self) -> Outcome<bool> {
        let Some(first) = self.peek() else { return Ok(false) };
        match first {
            b'\\' => {
                self.at += 1;
                self.escape(false)?;
            }
            b'[' => self.brackets()?,
            b'(' => {
                if !self.eat(b"(?:") {
                    self.at += 1;
                    self.groups += 1;
                }
                self.group()?;
            }
            b'*' | b'+' | b'?' | b'{' => return Err(NOTHING_TO_REPEAT),
            b'^' | b'$' | b')' | b']' | b'}' | b'|' => return Ok(false),
            _ => self.at += 1,
        }
        Ok(true)
    }

    fn quantifier(&mut self) -> Outcome {
        match self.peek() {
            Some(b'*' | b'+' | b'?') => self.at += 1,
            Some(b'{') => {
                self.at += 1;
                self.counts()?;
            }
            _ => return Ok(()),
        }
        self.eat(b"?");
        Ok(())
    }

    fn counts(&mut self) -> Outcome {
        let min = self.number().ok_or(BAD_RANGE_OF_COUNTS)?;
        match self.peek() {
            None => return Err(MISMATCHED_BRACES),
            Some(b'}') => {}
            Some(b',') => {
                self.at += 1;
                if self.peek().is_none() {
                    return Err(BAD_RANGE_OF_COUNTS);
                }
                if self.peek() != Some(b'}') {
                    let max = self.number().ok_or(BAD_RANGE_OF_COUNTS)?;
                    if self.peek() != Some(b'}') {
                        return Err(MISMATCHED_BRACES);
                    }
                    if max < min {
                        return Err(BAD_RANGE_OF_COUNTS);
                    }
                }
            }
            Some(_) => return Err(BAD_RANGE_OF_COUNTS),
        }
        self.at += 1;
        Ok(())
    }

    fn number(&mut self) -> Option<u32> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        std::str::from_utf8(&self.text[start..self.at]).ok()?.parse().ok()
    }

    /// Reads on behind a backslash; the character that it stands for, if it is one.
    fn escape(&mut self, in_brackets: bool) -> Outcome<Option<u32>> {
        let first = self.peek().ok_or(ESCAPE)?;
        if first.is_ascii_digit() && first != b'0' && !in_brackets {
            let number = self.number().ok_or(BACK_REFERENCE)?;
            return if number <= self.groups { Ok(None) } else { Err(BACK_REFERENCE) };
        }
        self.at += 1;
        match first {
            b'd' | b'D' | b's' | b'S' | b'w' | b'W' => Ok(None),
            b'0' => Ok(Some(0)),
            b'b' if in_brackets => Ok(Some(8)),
            b't' => Ok(Some(9)),
            b'n' => Ok(Some(10)),
            b'v' => Ok(Some(11)),
            b'f' => Ok(Some(12)),
            b'r' => Ok(Some(13)),
            b'c' => {
                let letter = self.peek().filter(u8::is_ascii_alphabetic).ok_or(ESCAPE)?;
                self.at += 1;
                Ok(Some(u32::from(letter) % 32))
            }
            b'x' => self.hexadecimal(2).map(Some),
            b'u' => self.hexadecimal(4).map(Some),
            b'_' => Err(ESCAPE),
            other if other.is_ascii_alphanumeric() => Err(ESCAPE),
            other => Ok(Some(other.into())),
        }
    }

    fn hexadecimal(&mut self, digits: usize) -> Outcome<u32> {
        let text = self.text.get(self.at..self.at + digits).ok_or(ESCAPE)?;
        self.at += digits;
        let text = std::str::from_utf8(text).ok().filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()));
        text.and_then(|text| u32::from_str_radix(text, 16).ok()).ok_or(ESCAPE)
    }

    fn brackets(&mut self) -> Outcome {
        self.at += 1;
        self.eat(b"^");
        loop {
            match self.peek() {
                None => return Err(MISMATCHED_BRACKETS),
                Some(b']') => break,
                Some(_) => {}
            }
            let start = self.member()?;
            let is_range =
                self.peek() == Some(b'-') && self.text.get(self.at + 1).is_some_and(|next| *next != b']');
            if let (Some(start), true) = (start, is_range) {
                self.at += 1;
                let end = self.member()?;
                if end.is_some_and(|end| end < start) {
                    return Err(CHARACTER_RANGE);
                }
            }
        }
        self.at += 1;
        Ok(())
    }

    /// Reads a member of a class in brackets; its character, if it is one.
    fn member(&mut self) -> Outcome<Option<u32>> {
        if self.eat(b"[:") {
            let name = self.name(b":]").ok_or(MISMATCHED_BRACKETS)?;
            return if CLASSES.contains(&name) { Ok(None) } else { Err(CHARACTER_CLASS) };
        }
        for (open, close) in [(b"[.", b".]"), (b"[=", b"=]")] {
            if self.eat(open) {
                let name = self.name(close).ok_or(MISMATCHED_BRACKETS)?;
                return if name.len() == 1 { Ok(Some(name[0].into())) } else { Err(COLLATING) };
            }
        }
        if self.eat(b"\\") {
            return self.escape(true);
        }
        let first = self.peek().ok_or(MISMATCHED_BRACKETS)?;
        self.at += 1;
        Ok(Some(first.into()))
    }

    fn name(&mut self, close: &[u8]) -> Option<&[u8]> {
        let rest = &self.text[self.at..];
        let length = rest.windows(close.len()).position(|window| window == close)?;
        self.at += length + close.len();
        Some(&rest[..length])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_of_every_day_are_fine() {
        for expression in [
            r"^cluster\.((.+?)\.)",
            r"^listener\.((?:[_.[:digit:]]*|[_\[\]aAbBcCdDeEfF[:digit:]]*)\.)",
            r"(?=a)b|c{2,}d{3}?e{1,2}|[^a-z\]-]|\x41\u0042\cA\0",
            "(a)\\1",
            "",
            "a||b",
            "[]",
        ] {
            assert_eq!(check(expression), Ok(()), "{expression}");
        }
    }

    /// Each of Envoy 1.40.
    #[test]
    fn what_is_wrong_is_said_in_the_words_of_the_library() {
        for (expression, words) in [
            ("(", MISMATCHED_PARENTHESES),
            ("[", MISMATCHED_BRACKETS),
            ("a{2", MISMATCHED_BRACES),
            ("a{2,1}", BAD_RANGE_OF_COUNTS),
            ("*a", NOTHING_TO_REPEAT),
            ("a**", NOTHING_TO_REPEAT),
            ("{", NOTHING_TO_REPEAT),
            ("(?<a>x)", NOTHING_TO_REPEAT),
            (")", "The parser did not consume the entire regular expression."),
            ("]", "The parser did not consume the entire regular expression."),
            ("}", "The parser did not consume the entire regular expression."),
            ("\\", ESCAPE),
            ("\\q", ESCAPE),
            ("[z-a]", CHARACTER_RANGE),
            ("[[:foo:]]", CHARACTER_CLASS),
            ("(a)\\2", BACK_REFERENCE),
        ] {
            assert_eq!(check(expression), Err(words), "{expression}");
        }
    }
}
