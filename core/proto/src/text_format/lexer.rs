//! Tokens of protobuf's text format.

use std::fmt;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// A name or a number, its sign included.
    Word(String),
    /// A quoted string without its quotes, escapes resolved.
    Text(Vec<u8>),
    Symbol(char),
    End,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(word) => write!(f, "\"{word}\""),
            Self::Text(_) => f.write_str("a string"),
            Self::Symbol(symbol) => write!(f, "\"{symbol}\""),
            Self::End => f.write_str("the end of the text"),
        }
    }
}

#[derive(Clone)]
pub(super) struct Lexer<'a> {
    rest: &'a str,
    line: usize,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { rest: text, line: 1 }
    }

    /// Line of the token that was read last, from 1.
    pub(super) fn line(&self) -> usize {
        self.line
    }

    /// The next token, which stays to be read.
    pub(super) fn peek(&self) -> Result<Token, String> {
        self.clone().next()
    }

    pub(super) fn next(&mut self) -> Result<Token, String> {
        self.skip_blanks();
        let Some(first) = self.rest.chars().next() else { return Ok(Token::End) };
        if first == '"' || first == '\'' {
            self.rest = &self.rest[1..];
            return self.string(first).map(Token::Text);
        }
        let in_word =
            |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '.' | '+' | '-');
        let length = self.rest.find(|letter| !in_word(letter)).unwrap_or(self.rest.len());
        if length == 0 {
            self.rest = &self.rest[first.len_utf8()..];
            return Ok(Token::Symbol(first));
        }
        let (word, rest) = self.rest.split_at(length);
        self.rest = rest;
        Ok(Token::Word(word.to_owned()))
    }

    fn skip_blanks(&mut self) {
        loop {
            let trimmed = self.rest.trim_start();
            self.line += self.rest[..self.rest.len() - trimmed.len()].matches('\n').count();
            self.rest = trimmed;
            if !self.rest.starts_with('#') {
                return;
            }
            self.rest = self.rest.find('\n').map_or("", |end| &self.rest[end..]);
        }
    }

    fn string(&mut self, quote: char) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        let mut letters = self.rest.char_indices();
        while let Some((at, letter)) = letters.next() {
            match letter {
                '\n' => break,
                '\\' => {
                    let length = escape(&self.rest[at + 1..], &mut bytes)?;
                    // The escape is ASCII, so bytes and characters agree.
                    for _ in 0..length {
                        letters.next();
                    }
                }
                letter if letter == quote => {
                    self.rest = &self.rest[at + 1..];
                    return Ok(bytes);
                }
                letter => bytes.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        Err("the string does not end on its line".to_owned())
    }
}

/// Resolves the escape after a backslash; returns how many characters it takes.
fn escape(text: &str, bytes: &mut Vec<u8>) -> Result<usize, String> {
    let simple = match text.as_bytes().first() {
        Some(b'n') => b'\n',
        Some(b't') => b'\t',
        Some(b'r') => b'\r',
        Some(b'a') => 0x07,
        Some(b'b') => 0x08,
        Some(b'f') => 0x0c,
        Some(b'v') => 0x0b,
        Some(&letter @ (b'\\' | b'\'' | b'"' | b'?')) => letter,
        Some(b'x' | b'X') => {
            let digits = digits(&text[1..], 16, 2);
            bytes.push(
                u8::from_str_radix(digits, 16).map_err(|_| "\\x needs a hexadecimal digit".to_owned())?,
            );
            return Ok(1 + digits.len());
        }
        Some(b'0'..=b'7') => {
            let digits = digits(text, 8, 3);
            bytes.push(
                u8::from_str_radix(digits, 8).map_err(|_| "the octal escape exceeds a byte".to_owned())?,
            );
            return Ok(digits.len());
        }
        Some(&kind @ (b'u' | b'U')) => {
            let length = if kind == b'u' { 4 } else { 8 };
            let digits = digits(&text[1..], 16, length);
            let letter = u32::from_str_radix(digits, 16).ok().and_then(char::from_u32);
            let letter = letter.filter(|_| digits.len() == length).ok_or("not a Unicode escape")?;
            bytes.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
            return Ok(1 + length);
        }
        _ => return Err("unknown escape in a string".to_owned()),
    };
    bytes.push(simple);
    Ok(1)
}

fn digits(text: &str, radix: u32, most: usize) -> &str {
    let length = text.bytes().take(most).take_while(|&digit| char::from(digit).is_digit(radix)).count();
    &text[..length]
}
