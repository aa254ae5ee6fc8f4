//! Tokens to expressions.

use super::ast::{Literal, Node};
use super::functions::{self, Function};
use super::lexer::{Spanned, SyntaxError, Token, tokens};
use super::value::TypeName;

/// Expressions inside expressions: deeper ones are refused before they exhaust the stack.
const DEEPEST: usize = 100;

/// Compiles the text of an expression.
pub(crate) fn parse(text: &str) -> Result<Node, String> {
    let located = |SyntaxError { at, reason }: SyntaxError| {
        let before: String = text.chars().take(at).collect();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        format!("Not able to parse expression: INVALID_ARGUMENT: ERROR: <input>:{line}:{column}: {reason}")
    };
    let mut parser = Parser { tokens: tokens(text).map_err(located)?, at: 0, depth: 0 };
    let outcome = parser.expression().and_then(|node| match parser.peek() {
        Token::End => Ok(node),
        _ => Err(parser.unexpected()),
    });
    outcome.map_err(|failure| match failure {
        Failure::Syntax(error) => located(error),
        Failure::Meaning(reason) => reason,
    })
}

enum Failure {
    Syntax(SyntaxError),
    /// It is an expression, and not one of those that there are.
    Meaning(String),
}

impl From<String> for Failure {
    fn from(reason: String) -> Self {
        Self::Meaning(reason)
    }
}

type Parsed = Result<Node, Failure>;

struct Parser {
    tokens: Vec<Spanned>,
    at: usize,
    depth: usize,
}

/// Binary operators with their functions, weakest first.
const LEVELS: [&[(&str, Function)]; 3] = [
    &[
        ("==", Function::Equal),
        ("!=", Function::NotEqual),
        ("<=", Function::LessOrEqual),
        (">=", Function::GreaterOrEqual),
        ("<", Function::Less),
        (">", Function::Greater),
        ("in", Function::In),
    ],
    &[("+", Function::Add), ("-", Function::Subtract)],
    &[("*", Function::Multiply), ("/", Function::Divide), ("%", Function::Remainder)],
];

impl Parser {
    fn peek(&self) -> &Token {
        &self.tokens[self.at].token
    }

    fn next(&mut self) -> Token {
        let token = self.tokens[self.at].token.clone();
        // The end stays, so that it can be looked at again.
        self.at = (self.at + 1).min(self.tokens.len() - 1);
        token
    }

    fn take(&mut self, symbol: &str) -> bool {
        let found = matches!(self.peek(), Token::Symbol(other) if *other == symbol);
        if found {
            self.next();
        }
        found
    }

    fn expect(&mut self, symbol: &str) -> Result<(), Failure> {
        if self.take(symbol) { Ok(()) } else { Err(self.unexpected()) }
    }

    fn unexpected(&self) -> Failure {
        let found = match self.peek() {
            Token::End => "<EOF>".to_owned(),
            Token::Symbol(symbol) => (*symbol).to_owned(),
            Token::Name(name) => name.to_string(),
            Token::Literal(_) => "a literal".to_owned(),
        };
        let reason = format!("Syntax error: mismatched input '{found}'");
        Failure::Syntax(SyntaxError { at: self.tokens[self.at].at, reason })
    }

    fn expression(&mut self) -> Parsed {
        self.depth += 1;
        if self.depth > DEEPEST {
            let reason = "Expression recursion limit exceeded".to_owned();
            return Err(Failure::Syntax(SyntaxError { at: self.tokens[self.at].at, reason }));
        }
        let node = self.choice();
        self.depth -= 1;
        node
    }

    fn choice(&mut self) -> Parsed {
        let condition = self.or()?;
        if !self.take("?") {
            return Ok(condition);
        }
        let first = self.or()?;
        self.expect(":")?;
        let second = self.expression()?;
        Ok(Node::Choice(Box::new([condition, first, second])))
    }

    fn or(&mut self) -> Parsed {
        let mut node = self.and()?;
        while self.take("||") {
            node = Node::Or(Box::new([node, self.and()?]));
        }
        Ok(node)
    }

    fn and(&mut self) -> Parsed {
        let mut node = self.binary(0)?;
        while self.take("&&") {
            node = Node::And(Box::new([node, self.binary(0)?]));
        }
        Ok(node)
    }

    fn binary(&mut self, level: usize) -> Parsed {
        let Some(operators) = LEVELS.get(level) else { return self.unary() };
        let mut node = self.binary(level + 1)?;
        while let Some((_, function)) = operators.iter().find(|(symbol, _)| self.take(symbol)) {
            node = Node::Call(*function, [node, self.binary(level + 1)?].into());
        }
        Ok(node)
    }

    fn unary(&mut self) -> Parsed {
        let mut negations: Vec<Function> = Vec::new();
        loop {
            if self.take("!") {
                negations.push(Function::Not);
            } else if self.take("-") {
                negations.push(Function::Negate);
            } else {
                break;
            }
        }
        if negations.len() > DEEPEST {
            return Err(self.unexpected());
        }
        let mut node = self.member()?;
        while let Some(function) = negations.pop() {
            node = match (function, node) {
                (Function::Negate, Node::Literal(Literal::Int(i64::MIN))) => {
                    Node::Literal(Literal::Int(i64::MIN))
                }
                (function, node) => Node::Call(function, [node].into()),
            };
        }
        Ok(node)
    }

    fn member(&mut self) -> Parsed {
        let mut node = self.primary()?;
        loop {
            if self.take(".") {
                if matches!(self.peek(), Token::Symbol("?")) {
                    let reason = "unsupported syntax '.?'".to_owned();
                    return Err(Failure::Syntax(SyntaxError { at: 0, reason }));
                }
                let Token::Name(field) = self.peek().clone() else { return Err(self.unexpected()) };
                self.next();
                node = if self.take("(") {
                    let args = self.items(")")?;
                    method(node, &field, args)?
                } else {
                    Node::Select { of: Box::new(node), field, test: false }
                };
            } else if self.take("[") {
                let key = self.expression()?;
                self.expect("]")?;
                node = Node::Call(Function::Index, [node, key].into());
            } else if matches!(self.peek(), Token::Symbol("{")) && is_message_name(&node) {
                return Err(Failure::Meaning("messages are not supported in expressions".to_owned()));
            } else {
                return Ok(node);
            }
        }
    }

    fn primary(&mut self) -> Parsed {
        match self.peek().clone() {
            Token::Literal(literal) => {
                self.next();
                Ok(Node::Literal(literal))
            }
            Token::Name(name) => {
                self.next();
                if self.take("(") {
                    let args = self.items(")")?;
                    return global(&name, args);
                }
                Ok(named(&name))
            }
            Token::Symbol("(") => {
                self.next();
                let node = self.expression()?;
                self.expect(")")?;
                Ok(node)
            }
            Token::Symbol("[") => {
                self.next();
                Ok(Node::List(self.items("]")?.into()))
            }
            Token::Symbol("{") => {
                self.next();
                self.entries()
            }
            Token::Symbol(".") => {
                self.next();
                self.primary()
            }
            _ => Err(self.unexpected()),
        }
    }

    /// Expressions up to a closing bracket, which may follow a comma.
    fn items(&mut self, end: &str) -> Result<Vec<Node>, Failure> {
        let mut items = Vec::new();
        while !self.take(end) {
            items.push(self.expression()?);
            if !self.take(",") {
                self.expect(end)?;
                break;
            }
        }
        Ok(items)
    }

    fn entries(&mut self) -> Parsed {
        let mut entries = Vec::new();
        while !self.take("}") {
            let key = self.expression()?;
            self.expect(":")?;
            entries.push((key, self.expression()?));
            if !self.take(",") {
                self.expect("}")?;
                break;
            }
        }
        Ok(Node::Map(entries.into()))
    }
}

/// A name that stands alone.
pub(crate) fn named(name: &str) -> Node {
    TypeName::named(name).map_or_else(|| Node::Name(name.into()), Node::Type)
}

fn is_message_name(node: &Node) -> bool {
    match node {
        Node::Name(_) => true,
        Node::Select { of, test: false, .. } => is_message_name(of),
        _ => false,
    }
}

fn global(name: &str, args: Vec<Node>) -> Parsed {
    if name != "has" {
        return Ok(functions::call(name, false, args)?);
    }
    match <[Node; 1]>::try_from(args) {
        Ok([Node::Select { of, field, test: false }]) => Ok(Node::Select { of, field, test: true }),
        _ => {
            let reason = "invalid argument to has() macro".to_owned();
            Err(Failure::Syntax(SyntaxError { at: 0, reason }))
        }
    }
}

fn method(receiver: Node, name: &str, mut args: Vec<Node>) -> Parsed {
    let iterates = match name {
        "all" | "exists" | "exists_one" | "filter" => args.len() == 2,
        "map" => matches!(args.len(), 2 | 3),
        _ => false,
    };
    if iterates {
        return Err(Failure::Meaning(
            "failed to create an expression: Comprehension support is disabled".to_owned(),
        ));
    }
    args.insert(0, receiver);
    Ok(functions::call(name, true, args)?)
}
