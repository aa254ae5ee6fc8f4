//! Text to tokens.

use super::ast::Literal;

#[derive(Clone, Debug)]
pub(crate) enum Token {
    Literal(Literal),
    Name(Box<str>),
    /// An operator or bracket.
    Symbol(&'static str),
    End,
}

/// A token and where it begins, in characters.
#[derive(Clone, Debug)]
pub(crate) struct Spanned {
    pub(crate) token: Token,
    pub(crate) at: usize,
}

/// What could not be read, and where.
#[derive(Debug)]
pub(crate) struct SyntaxError {
    pub(crate) at: usize,
    pub(crate) reason: String,
}

/// Longest first.
const SYMBOLS: [&str; 24] = [
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "!", "?", ":", "+", "-", "*", "/", "%", "(", ")", "[", "]",
    "{", "}", ",", ".",
];

/// Splits an expression; the last token is [`Token::End`].
pub(crate) fn tokens(text: &str) -> Result<Vec<Spanned>, SyntaxError> {
    let mut lexer = Lexer { chars: text.chars().collect(), at: 0 };
    let mut tokens = Vec::new();
    loop {
        lexer.skip_blanks();
        let at = lexer.at;
        let token = lexer.token()?;
        let end = matches!(token, Token::End);
        tokens.push(Spanned { token, at });
        if end {
            return Ok(tokens);
        }
    }
}

struct Lexer {
    chars: Vec<char>,
    at: usize,
}

impl Lexer {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn error(&self, reason: impl Into<String>) -> SyntaxError {
        SyntaxError { at: self.at, reason: reason.into() }
    }

    fn skip_blanks(&mut self) {
        loop {
            match self.peek(0) {
                Some(c) if c.is_ascii_whitespace() => self.at += 1,
                Some('/') if self.peek(1) == Some('/') => {
                    while self.peek(0).is_some_and(|c| c != '\n') {
                        self.at += 1;
                    }
                }
                _ => return,
            }
        }
    }

    fn token(&mut self) -> Result<Token, SyntaxError> {
        let Some(first) = self.peek(0) else { return Ok(Token::End) };
        if let Some(prefix) = self.text_prefix() {
            return self.text(prefix);
        }
        if first.is_ascii_digit() || (first == '.' && self.peek(1).is_some_and(|c| c.is_ascii_digit())) {
            return self.number();
        }
        if first.is_ascii_alphabetic() || first == '_' {
            let start = self.at;
            while self.peek(0).is_some_and(|c| c.is_ascii_alphanumeric() || c == '_') {
                self.at += 1;
            }
            let name: String = self.chars[start..self.at].iter().collect();
            return Ok(match name.as_str() {
                "true" => Token::Literal(Literal::Bool(true)),
                "false" => Token::Literal(Literal::Bool(false)),
                "null" => Token::Literal(Literal::Null),
                "in" => Token::Symbol("in"),
                _ => Token::Name(name.into()),
            });
        }
        let symbol =
            SYMBOLS.iter().find(|symbol| symbol.chars().enumerate().all(|(i, c)| self.peek(i) == Some(c)));
        match symbol {
            Some(symbol) => {
                self.at += symbol.len();
                Ok(Token::Symbol(symbol))
            }
            None => Err(self.error(format!("Syntax error: token recognition error at: '{first}'"))),
        }
    }

    /// Length of the letters before a quote: `r`, `b`, `br`.
    fn text_prefix(&self) -> Option<usize> {
        (0..3).find(|&letters| {
            let plain = (0..letters).all(|i| self.peek(i).is_some_and(|c| "rRbB".contains(c)));
            plain && matches!(self.peek(letters), Some('"' | '\''))
        })
    }

    fn text(&mut self, prefix: usize) -> Result<Token, SyntaxError> {
        let letters: String =
            self.chars[self.at..self.at + prefix].iter().collect::<String>().to_ascii_lowercase();
        let (raw, bytes) = (letters.contains('r'), letters.contains('b'));
        let start = self.at;
        self.at += prefix;
        let quote = self.peek(0).unwrap_or('"');
        let triple = self.peek(1) == Some(quote) && self.peek(2) == Some(quote);
        let length = if triple { 3 } else { 1 };
        self.at += length;
        let mut out = Vec::new();
        loop {
            let Some(c) = self.peek(0) else {
                self.at = start;
                return Err(self.error("Syntax error: token recognition error at: unterminated string"));
            };
            if (0..length).all(|i| self.peek(i) == Some(quote)) {
                self.at += length;
                break;
            }
            self.at += 1;
            if c == '\\' && !raw {
                self.escape(bytes, &mut out)?;
            } else if c == '\n' && !triple {
                return Err(self.error("Syntax error: token recognition error at: unterminated string"));
            } else {
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        if bytes {
            return Ok(Token::Literal(Literal::Bytes(out.into())));
        }
        let text = String::from_utf8(out).map_err(|_| self.error("Syntax error: text is not valid UTF-8"))?;
        Ok(Token::Literal(Literal::Text(text.into())))
    }

    fn escape(&mut self, bytes: bool, out: &mut Vec<u8>) -> Result<(), SyntaxError> {
        let invalid = |lexer: &Self| lexer.error("Syntax error: invalid escape sequence");
        let c = self.peek(0).ok_or_else(|| invalid(self))?;
        self.at += 1;
        let digits = |lexer: &mut Self, count: usize, radix: u32| -> Option<u32> {
            let digits: String = (0..count).map(|i| lexer.peek(i)).collect::<Option<_>>()?;
            lexer.at += count;
            u32::from_str_radix(&digits, radix).ok()
        };
        let simple = match c {
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'a' => '\x07',
            'b' => '\x08',
            'f' => '\x0c',
            'v' => '\x0b',
            '\\' | '"' | '\'' | '`' | '?' => c,
            'x' | 'X' | 'u' | 'U' | '0'..='3' => {
                let code = match c {
                    'x' | 'X' => digits(self, 2, 16),
                    'u' if !bytes => digits(self, 4, 16),
                    'U' if !bytes => digits(self, 8, 16),
                    '0'..='3' => {
                        self.at -= 1;
                        digits(self, 3, 8)
                    }
                    _ => None,
                };
                let code = code.ok_or_else(|| invalid(self))?;
                match u8::try_from(code) {
                    Ok(byte) if bytes => {
                        out.push(byte);
                        return Ok(());
                    }
                    _ => char::from_u32(code).ok_or_else(|| invalid(self))?,
                }
            }
            _ => return Err(invalid(self)),
        };
        out.extend_from_slice(simple.encode_utf8(&mut [0; 4]).as_bytes());
        Ok(())
    }

    fn number(&mut self) -> Result<Token, SyntaxError> {
        let start = self.at;
        let hexadecimal = self.peek(0) == Some('0') && matches!(self.peek(1), Some('x' | 'X'));
        if hexadecimal {
            self.at += 2;
        }
        let digit = |c: char| if hexadecimal { c.is_ascii_hexdigit() } else { c.is_ascii_digit() };
        let mut double = false;
        while let Some(c) = self.peek(0) {
            let point =
                c == '.' && !double && !hexadecimal && self.peek(1).is_some_and(|c| c.is_ascii_digit());
            let exponent = matches!(c, 'e' | 'E') && !hexadecimal;
            if exponent {
                let signed = usize::from(matches!(self.peek(1), Some('+' | '-')));
                if !self.peek(1 + signed).is_some_and(|c| c.is_ascii_digit()) {
                    break;
                }
                self.at += signed;
            } else if !point && !digit(c) {
                break;
            }
            double |= point || exponent;
            self.at += 1;
        }
        let digits: String = self.chars[start..self.at].iter().collect();
        let unsigned = !double && matches!(self.peek(0), Some('u' | 'U'));
        if unsigned {
            self.at += 1;
        }
        let invalid = |kind: &str| SyntaxError { at: start, reason: format!("invalid {kind} literal") };
        if double {
            return digits
                .parse()
                .map(|value| Token::Literal(Literal::Double(value)))
                .map_err(|_| invalid("double"));
        }
        let (digits, radix) = if hexadecimal { (&digits[2..], 16) } else { (&*digits, 10) };
        let value = u64::from_str_radix(digits, radix).map_err(|_| invalid("int"))?;
        if unsigned {
            return Ok(Token::Literal(Literal::Uint(value)));
        }
        // The smallest number is written as the negation of one that is too large by one.
        match i64::try_from(value) {
            Ok(value) => Ok(Token::Literal(Literal::Int(value))),
            Err(_) if value == 1 << 63 && start > 0 && self.chars[start - 1] == '-' => {
                Ok(Token::Literal(Literal::Int(i64::MIN)))
            }
            Err(_) => Err(invalid("int")),
        }
    }
}
