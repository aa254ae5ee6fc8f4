//! What happened when a scenario ran, in a form that can be compared and printed.

use indexmap::IndexMap;
use serde::Serialize;
use serde_json::Value;

use crate::ads::AdsFacts;

/// A header list in wire order.
pub type Headers = Vec<(String, String)>;

/// Everything recorded from one run of a scenario against one target, already normalised.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Outcome {
    /// The result of `--mode validate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit: Option<i32>,
    /// The steps that record something, in order.
    pub steps: Vec<StepOutcome>,
    /// The statistics that the scenario asks for.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub stats: IndexMap<String, Option<u64>>,
    /// All statistics under the prefixes that the scenario compares as a whole.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub all_stats: IndexMap<String, u64>,
    /// The access log, if the scenario writes one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_log: Option<Vec<String>>,
    /// What the target asked of the management server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ads: Option<AdsFacts>,
    /// What the target itself logged; for expectations, not for comparison.
    #[serde(skip)]
    pub log: String,
}

/// What one step brought.
#[derive(Debug, Clone, Serialize)]
pub struct StepOutcome {
    /// The step's title.
    pub step: String,
    /// Why the two targets may differ here, if they may.
    #[serde(skip)]
    pub differs: Option<String>,
    /// What the client saw.
    pub client: Seen,
    /// What each upstream saw during the step; upstreams that saw nothing are left out.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub upstreams: IndexMap<String, Vec<RequestFacts>>,
}

/// What the client saw.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Seen {
    /// Responses, in order. A raw step may bring several.
    Responses(Vec<ResponseFacts>),
    /// Bytes, for raw steps that read no responses.
    Bytes {
        /// The bytes as text.
        text: String,
        /// How the connection ended: `closed`, `reset`, or `open` when it did not.
        end: String,
    },
    /// No response: why.
    Failure(String),
    /// The different answers to a repeated request.
    Answers(Answers),
    /// HTTP/2 frames.
    Frames(FrameFacts),
    /// Parts of an admin response.
    Admin(AdminFacts),
    /// Several results of steps that ran together, in the order in which they are written.
    Together(Vec<Seen>),
    /// The step only changes something.
    Nothing,
}

/// What came over an HTTP/2 connection, without what is a matter of the moment or of taste: settings, windows, how bodies are
/// cut into frames.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct FrameFacts {
    /// The error code of the last GOAWAY.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub goaway: Option<String>,
    /// What came on each stream: status, body, `reset CODE` or `unfinished`. Once the connection was given up, only the
    /// streams that the step waits for.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub streams: IndexMap<String, String>,
    /// The connection ended without a GOAWAY.
    pub ended: bool,
}

/// The different answers to a repeated request.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Answers {
    /// Each `status body` that came, sorted.
    pub kinds: Vec<String>,
    /// How often each came; for expectations. Not compared, as shares are a matter of chance.
    #[serde(skip)]
    pub counts: IndexMap<String, usize>,
}

/// One response.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ResponseFacts {
    /// `HTTP/1.1` or `HTTP/2`.
    pub version: String,
    /// The status code.
    pub status: u16,
    /// The reason phrase of HTTP/1.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Headers.
    pub headers: Headers,
    /// The body as text.
    pub body: String,
    /// Trailers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub trailers: Headers,
    /// Interim responses before it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub interim: Vec<u16>,
    /// How the body ended when not as announced, and how the connection ended where the step reads until then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<String>,
    /// The protocol agreed on by TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alpn: Option<String>,
    /// Version and suite of TLS, and `resumed` where an earlier session was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
}

/// One request as an upstream saw it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RequestFacts {
    /// `HTTP/1.1` or `HTTP/2`.
    pub protocol: String,
    /// The method.
    pub method: String,
    /// The request target.
    pub target: String,
    /// `:authority`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
    /// `:scheme`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheme: Option<String>,
    /// Headers.
    pub headers: Headers,
    /// The body as text.
    pub body: String,
    /// Trailers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub trailers: Headers,
    /// The request ended before its announced end.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub incomplete: bool,
    /// The server name that TLS asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sni: Option<String>,
    /// The protocol agreed on by TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alpn: Option<String>,
}

/// What is recorded of an admin response.
#[derive(Debug, Clone, Default, Serialize)]
pub struct AdminFacts {
    /// The status code.
    pub status: u16,
    /// `content-type`.
    pub content_type: String,
    /// The picked parts of a JSON body, by pointer; several values are sorted.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub picked: IndexMap<String, Value>,
    /// The chosen lines of the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lines: Option<Vec<String>>,
    /// The whole body, for expectations; not compared, as it differs between any two processes.
    #[serde(skip)]
    pub body: String,
}
