//! What a scripted upstream answers, as plain data.

use std::time::Duration;

use serde::Deserialize;

/// A header list in wire order; names keep the case they are written in on HTTP/1.
pub type Headers = Vec<(String, String)>;

/// One scripted answer to one request.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Reply {
    /// The status code, 200 unless given.
    pub status: u16,
    /// The reason phrase of HTTP/1; the usual one for the status unless given.
    pub reason: Option<String>,
    /// Headers in wire order. `content-length`, `transfer-encoding` and `connection` follow from the fields below unless they
    /// are given here, in which case they are sent as they are.
    #[serde(deserialize_with = "header_lines")]
    pub headers: Headers,
    /// The body. Empty with no `content-length` for 204, 304 and 1xx.
    pub body: Body,
    /// How HTTP/1 marks the end of the body.
    pub framing: Framing,
    /// Trailers; HTTP/1 needs `framing: chunked` for them.
    #[serde(deserialize_with = "header_lines")]
    pub trailers: Headers,
    /// Interim responses (1xx other than 101) sent before this one.
    pub interim: Vec<u16>,
    /// Milliseconds to wait before anything is sent.
    pub delay_ms: u64,
    /// Milliseconds to wait between the head and the body.
    pub body_delay_ms: u64,
    /// Milliseconds to wait between two chunks of a chunked body.
    pub chunk_delay_ms: u64,
    /// Answer as soon as the request head has arrived, without waiting for its body.
    pub early: bool,
    /// What goes wrong, if something does.
    pub fault: Option<Fault>,
    /// Close the connection after the reply (with `connection: close` on HTTP/1).
    pub close: bool,
}

impl Default for Reply {
    fn default() -> Self {
        Self {
            status: 200,
            reason: None,
            headers: Vec::new(),
            body: Body::default(),
            framing: Framing::default(),
            trailers: Vec::new(),
            interim: Vec::new(),
            delay_ms: 0,
            body_delay_ms: 0,
            chunk_delay_ms: 0,
            early: false,
            fault: None,
            close: false,
        }
    }
}

impl Reply {
    /// A 200 with `body` and nothing else.
    pub fn ok(body: impl Into<String>) -> Self {
        Self { body: Body::Text(body.into()), ..Self::default() }
    }

    /// An empty reply with `status`.
    pub fn status(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    /// Adds a header.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub(super) fn delay(&self) -> Duration {
        Duration::from_millis(self.delay_ms)
    }
}

/// A reply's body.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Body {
    /// This text.
    Text(String),
    /// These chunks, one after the other; over HTTP/1 each is one chunk when the framing is chunked.
    Chunks(Vec<String>),
    /// `text` repeated.
    Repeated {
        /// The text.
        text: String,
        /// How often.
        times: usize,
    },
}

impl Default for Body {
    fn default() -> Self {
        Self::Text(String::new())
    }
}

impl Body {
    /// The body in the pieces it is sent in; no pieces for an empty one.
    pub fn pieces(&self) -> Vec<Vec<u8>> {
        match self {
            Self::Text(text) if text.is_empty() => Vec::new(),
            Self::Text(text) => vec![text.clone().into_bytes()],
            Self::Chunks(chunks) => chunks.iter().map(|c| c.clone().into_bytes()).collect(),
            Self::Repeated { text, times } => {
                text.repeat(*times).into_bytes().chunks(16 * 1024).map(<[u8]>::to_vec).collect()
            }
        }
    }
}

/// How an HTTP/1 reply's body ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Framing {
    /// `content-length`.
    #[default]
    Length,
    /// `transfer-encoding: chunked`.
    Chunked,
    /// The connection closes.
    UntilClose,
}

/// What an upstream does instead of, or in the middle of, answering properly.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Close without a byte.
    CloseBeforeHead,
    /// Reset the connection (HTTP/2: the stream) without a byte.
    ResetBeforeHead,
    /// HTTP/2: refuse the stream. HTTP/1: like `reset_before_head`.
    RefuseStream,
    /// Send the head and the first piece of the body, then close.
    CloseMidBody,
    /// Send the head and the first piece of the body, then reset.
    ResetMidBody,
    /// Send these bytes as they are, then close.
    Bytes(String),
    /// Never answer; keep the connection open.
    Hang,
}

/// Which requests a rule is for, and what it answers to them.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rule {
    /// The path without its query; any when absent.
    pub path: Option<String>,
    /// The method; any when absent.
    pub method: Option<String>,
    /// Answer without recording the requests: for what comes in numbers that are a matter of time, such as health checks.
    pub unrecorded: bool,
    /// The answers to the first, second, ... matching request; the last is repeated.
    pub replies: Vec<Reply>,
}

/// Everything an upstream answers: the first matching rule counts; 404 `no rule` when none does.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Script {
    /// The rules, in order.
    pub rules: Vec<Rule>,
}

impl Script {
    /// Answers every request with the same reply.
    pub fn always(reply: Reply) -> Self {
        Self::sequence(vec![reply])
    }

    /// Answers with these replies in turn, then keeps repeating the last.
    pub fn sequence(replies: Vec<Reply>) -> Self {
        Self { rules: vec![Rule { replies, ..Rule::default() }] }
    }

    pub(super) fn find(&self, method: &str, target: &str) -> Option<(usize, &Rule)> {
        let path = target.split('?').next().unwrap_or_default();
        self.rules.iter().enumerate().find(|(_, rule)| {
            rule.path.as_deref().is_none_or(|p| p == path)
                && rule.method.as_deref().is_none_or(|m| m == method)
        })
    }
}

/// Reads headers written as `name: value` lines.
pub fn header_lines<'de, D: serde::Deserializer<'de>>(input: D) -> Result<Headers, D::Error> {
    Vec::<String>::deserialize(input)?
        .into_iter()
        .map(|line| match line.split_once(':') {
            Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.trim().to_owned())),
            _ => Err(serde::de::Error::custom(format!("`{line}` is not a `name: value` header line"))),
        })
        .collect()
}
