//! An answer of the admin interface.

use std::fmt;

use crate::state::AdminState;

/// Status, content type and body; the other headers are the same for all answers.
#[derive(Debug)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Content type.
    pub content_type: &'static str,
    /// Whether `x-content-type-options` is there twice, as in Envoy's complaints about what is asked of a dump.
    pub sniffing_forbidden_twice: bool,
    /// Body, for [`Admin::render`](crate::Admin::render).
    pub body: ReplyBody,
}

/// Makes the body of an answer from the server as it is then.
pub type MakeBody = dyn FnOnce(&dyn AdminState) -> String;

/// The body of an answer.
pub enum ReplyBody {
    /// It is there.
    Ready(Vec<u8>),
    /// It is made once the head of the answer was sent, and so shows what that changed.
    Later(Box<MakeBody>),
}

impl fmt::Debug for ReplyBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready(bytes) => f.debug_tuple("Ready").field(&bytes.len()).finish(),
            Self::Later(_) => f.write_str("Later"),
        }
    }
}

/// Content type of plain answers.
pub(crate) const TEXT: &str = "text/plain; charset=UTF-8";
/// Content type of JSON.
pub(crate) const JSON: &str = "application/json";
/// Content type of pages.
pub(crate) const HTML: &str = "text/html; charset=UTF-8";

impl Reply {
    /// 200 and text.
    pub(crate) fn text(body: impl Into<String>) -> Self {
        Self {
            status: 200,
            content_type: TEXT,
            sniffing_forbidden_twice: false,
            body: ReplyBody::Ready(body.into().into_bytes()),
        }
    }

    /// 200 and JSON.
    pub(crate) fn json(body: impl Into<String>) -> Self {
        Self { content_type: JSON, ..Self::text(body) }
    }

    /// 200 and a page.
    pub(crate) fn html(body: String) -> Self {
        Self { content_type: HTML, ..Self::text(body) }
    }

    /// 200 and what is made once the head was sent.
    pub(crate) fn later(
        content_type: &'static str,
        body: impl FnOnce(&dyn AdminState) -> String + 'static,
    ) -> Self {
        Self { content_type, body: ReplyBody::Later(Box::new(body)), ..Self::text("") }
    }

    /// Another status and text.
    pub(crate) fn error(status: u16, body: impl Into<String>) -> Self {
        Self { status, ..Self::text(body) }
    }

    /// `OK` and a newline.
    pub(crate) fn ok() -> Self {
        Self::text("OK\n")
    }
}
