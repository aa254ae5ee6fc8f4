//! The ratings service: stars by reviewer; a POST replaces those of one book for as long as the process runs.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use crate::server::{Answer, Call};

/// Ratings that were posted, by book.
#[derive(Debug, Default)]
pub(crate) struct Ratings {
    posted: Mutex<HashMap<i64, Map<String, Value>>>,
}

impl Ratings {
    /// Answers one request.
    pub(crate) fn answer(&self, call: &Call) -> Answer {
        match (&call.method, call.segments().as_slice()) {
            (&Method::GET, ["health"]) => {
                Answer::json(StatusCode::OK, &json!({"status": "Ratings is healthy"}))
            }
            (&Method::GET, ["ratings", id]) => match id.parse() {
                Ok(id) => Answer::json(StatusCode::OK, &self.get(id)),
                Err(_) => not_numeric(),
            },
            (&Method::POST, ["ratings", id]) => match (id.parse(), serde_json::from_slice(&call.body)) {
                (Ok(id), Ok(Value::Object(ratings))) => Answer::json(StatusCode::OK, &self.post(id, ratings)),
                (Err(_), _) => not_numeric(),
                _ => Answer::error(StatusCode::BAD_REQUEST, "please provide valid ratings JSON"),
            },
            _ => Answer::not_found(),
        }
    }

    fn get(&self, id: i64) -> Value {
        let posted = self.posted.lock().unwrap_or_else(PoisonError::into_inner);
        match posted.get(&id) {
            Some(ratings) => json!({"id": id, "ratings": ratings}),
            None => json!({"id": id, "ratings": {"Reviewer1": 5, "Reviewer2": 4}}),
        }
    }

    fn post(&self, id: i64, ratings: Map<String, Value>) -> Value {
        let answer = json!({"id": id, "ratings": ratings});
        self.posted.lock().unwrap_or_else(PoisonError::into_inner).insert(id, ratings);
        answer
    }
}

fn not_numeric() -> Answer {
    Answer::error(StatusCode::BAD_REQUEST, "please provide numeric product ID")
}
