//! The reviews service: two reviews, with stars fetched from ratings where the version shows them.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};

use crate::client::Client;
use crate::forward::{END_USER, forwarded};
use crate::server::{Answer, Call};
use crate::settings::Settings;

/// The reviewers, as ratings names them, and what they wrote.
const REVIEWS: [(&str, &str); 2] = [
    (
        "Reviewer1",
        "Two pairs of twins, one long day of mistaken identity: I laughed from the first scene to the last.",
    ),
    (
        "Reviewer2",
        "Quick, noisy and very funny on stage, though there is less below the surface than in the later plays.",
    ),
];

/// How long to wait for ratings. The patience of the version with black stars is a flaw of the sample, made to be found
/// with an injected delay: it is longer than the product page waits for reviews.
const PATIENT: Duration = Duration::from_secs(10);
const IMPATIENT: Duration = Duration::from_millis(2500);

/// The service with what it needs to call ratings.
#[derive(Debug)]
pub(crate) struct Reviews {
    pub settings: Arc<Settings>,
    pub client: Arc<Client>,
}

impl Reviews {
    /// Answers one request.
    pub(crate) async fn answer(&self, call: &Call) -> Answer {
        if call.method != Method::GET {
            return Answer::not_found();
        }
        match call.segments().as_slice() {
            ["health"] => Answer::json(StatusCode::OK, &json!({"status": "Reviews is healthy"})),
            ["reviews", id] => match id.parse::<i32>() {
                Ok(id) => Answer::json(StatusCode::OK, &self.reviews(id, &call.headers).await),
                Err(_) => Answer::not_found(),
            },
            _ => Answer::not_found(),
        }
    }

    async fn reviews(&self, id: i32, incoming: &HeaderMap) -> Value {
        let ratings = match &self.settings.stars {
            None => None,
            Some(color) => Some((color, self.ratings(id, color, incoming).await)),
        };
        let reviews: Vec<Value> = REVIEWS
            .iter()
            .map(|(reviewer, text)| {
                let mut review = json!({"reviewer": reviewer, "text": text});
                if let Some((color, ratings)) = &ratings {
                    review["rating"] = match ratings.get(reviewer).and_then(Value::as_i64) {
                        Some(stars) => json!({"stars": stars, "color": color}),
                        None => json!({"error": "Ratings service is currently unavailable"}),
                    };
                }
                review
            })
            .collect();
        json!({
            "id": id.to_string(),
            "podname": self.settings.pod,
            "clustername": self.settings.cluster,
            "reviews": reviews,
        })
    }

    /// Stars by reviewer; null when ratings cannot be had.
    async fn ratings(&self, id: i32, color: &str, incoming: &HeaderMap) -> Value {
        let mut headers = forwarded(incoming);
        if let Some(user) = incoming.get(END_USER) {
            headers.insert(END_USER, user.clone());
        }
        let url = format!("{}/ratings/{id}", self.settings.ratings);
        let timeout = if color == "black" { PATIENT } else { IMPATIENT };
        match self.client.get(&url, headers, timeout).await {
            Ok(reply) if reply.status == StatusCode::OK => serde_json::from_slice::<Value>(&reply.body)
                .ok()
                .and_then(|mut body| body.get_mut("ratings").map(Value::take))
                .unwrap_or_default(),
            Ok(reply) => {
                eprintln!("reviews: {url} answered {}", reply.status);
                Value::Null
            }
            Err(error) => {
                eprintln!("reviews: {url}: {error}");
                Value::Null
            }
        }
    }
}
