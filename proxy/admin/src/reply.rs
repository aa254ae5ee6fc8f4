//! An answer of the admin interface.

/// Status, content type and body; the other headers are the same for all answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Content type.
    pub content_type: &'static str,
    /// Body.
    pub body: Vec<u8>,
}

/// Content type of plain answers.
pub(crate) const TEXT: &str = "text/plain; charset=UTF-8";

impl Reply {
    /// 200 and text.
    pub(crate) fn text(body: impl Into<String>) -> Self {
        Self { status: 200, content_type: TEXT, body: body.into().into_bytes() }
    }

    /// 200 and JSON.
    pub(crate) fn json(body: impl Into<String>) -> Self {
        Self { status: 200, content_type: "application/json", body: body.into().into_bytes() }
    }

    /// 200 and a page.
    pub(crate) fn html(body: String) -> Self {
        Self { status: 200, content_type: "text/html; charset=UTF-8", body: body.into_bytes() }
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
