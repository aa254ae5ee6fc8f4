//! The details service: facts about a book.

use http::{Method, StatusCode};
use serde_json::json;

use crate::server::{Answer, Call};

/// Answers one request.
pub(crate) fn answer(call: &Call) -> Answer {
    if call.method != Method::GET {
        return Answer::not_found();
    }
    match call.segments().as_slice() {
        ["health"] => Answer::json(StatusCode::OK, &json!({"status": "Details is healthy"})),
        ["details", id] => match id.parse::<i64>() {
            Ok(id) => Answer::json(StatusCode::OK, &book(id)),
            Err(_) => Answer::error(StatusCode::BAD_REQUEST, "please provide numeric product id"),
        },
        ["details"] => Answer::error(StatusCode::BAD_REQUEST, "please provide numeric product id"),
        _ => Answer::not_found(),
    }
}

/// The book is always the same one, whatever its number.
fn book(id: i64) -> serde_json::Value {
    json!({
        "id": id,
        "author": "William Shakespeare",
        "year": 1595,
        "type": "paperback",
        "pages": 200,
        "publisher": "PublisherA",
        "language": "English",
        "ISBN-10": "1234567890",
        "ISBN-13": "123-1234567890",
    })
}
