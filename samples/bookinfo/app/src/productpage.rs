//! The product page service: the web page and its API, both put together from what the other services say.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde_json::{Value, json};

use crate::client::Client;
use crate::form::{field, session_cookie, session_end, session_user};
use crate::forward::{END_USER, forwarded};
use crate::page;
use crate::server::{Answer, Call};
use crate::settings::Settings;

/// How long one call may take.
const TIMEOUT: Duration = Duration::from_secs(3);

/// The title of the only product.
pub(crate) const TITLE: &str = "The Comedy of Errors";

/// What is told about the only product, as HTML.
pub(crate) const DESCRIPTION: &str = concat!(
    r#"<a href="https://en.wikipedia.org/wiki/The_Comedy_of_Errors">Wikipedia Summary</a>: "#,
    "a short, early farce by <b>William Shakespeare</b>, in which two pairs of twins who were parted at birth ",
    "arrive in the same town and are taken for one another.",
);

/// The service with what it needs to call the others.
#[derive(Debug)]
pub(crate) struct ProductPage {
    settings: Arc<Settings>,
    client: Arc<Client>,
    /// Results of calls by service and status, for `/metrics`.
    results: Mutex<BTreeMap<(&'static str, u16), u64>>,
}

/// What a service said about a product: its status with its JSON, or with an error to show instead.
pub(crate) struct Part {
    pub status: StatusCode,
    pub body: Value,
}

impl ProductPage {
    pub(crate) fn new(settings: Arc<Settings>, client: Arc<Client>) -> Self {
        Self { settings, client, results: Mutex::default() }
    }

    /// Answers one request.
    pub(crate) async fn answer(&self, call: &Call) -> Answer {
        match (&call.method, call.segments().as_slice()) {
            (&Method::GET, [""] | ["index.html"]) => html(page::index(&self.settings)),
            (&Method::GET, ["health"]) => html("Product page is healthy".to_owned()),
            (&Method::GET, ["metrics"]) => {
                Answer::text(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", self.metrics())
            }
            (&Method::GET, ["productpage"]) => self.front(call).await,
            (&Method::POST, ["login"]) => login(call),
            (&Method::GET, ["logout"]) => back(call, &session_end()),
            (&Method::GET, ["api", "v1", "products"]) => Answer::json(
                StatusCode::OK,
                &json!([{"id": 0, "title": TITLE, "descriptionHtml": DESCRIPTION}]),
            ),
            (&Method::GET, ["api", "v1", "products", id]) => self.details(id, &headers(call)).await.into(),
            (&Method::GET, ["api", "v1", "products", id, "reviews"]) => {
                self.reviews(id, &headers(call)).await.into()
            }
            (&Method::GET, ["api", "v1", "products", id, "ratings"]) => {
                self.ratings(id, &headers(call)).await.into()
            }
            _ => Answer::not_found(),
        }
    }

    async fn front(&self, call: &Call) -> Answer {
        let headers = headers(call);
        let details = self.details("0", &headers).await;
        self.flood(&headers);
        let reviews = self.reviews("0", &headers).await;
        html(page::product(session_user(&call.headers).as_deref(), &details, &reviews))
    }

    /// Sends the extra calls that rate limiting is shown with; their answers do not matter.
    fn flood(&self, headers: &HeaderMap) {
        for _ in 0..self.settings.flood {
            let client = Arc::clone(&self.client);
            let url = format!("{}/reviews/0", self.settings.reviews);
            let headers = headers.clone();
            tokio::spawn(async move {
                let _ = client.get(&url, headers, TIMEOUT).await;
            });
        }
    }

    async fn details(&self, id: &str, headers: &HeaderMap) -> Part {
        let url = format!("{}/details/{id}", self.settings.details);
        let part = self.call("details", &url, headers).await;
        part.or_error("Sorry, product details are currently unavailable for this book.")
    }

    /// Asks twice before it gives up: this second try without regard to the time that the first one took is a flaw of the
    /// sample, made to be found with fault injection.
    async fn reviews(&self, id: &str, headers: &HeaderMap) -> Part {
        let url = format!("{}/reviews/{id}", self.settings.reviews);
        let mut part = self.call("reviews", &url, headers).await;
        if part.status != StatusCode::OK {
            part = self.call("reviews", &url, headers).await;
        }
        part.or_error("Sorry, product reviews are currently unavailable for this book.")
    }

    async fn ratings(&self, id: &str, headers: &HeaderMap) -> Part {
        let url = format!("{}/ratings/{id}", self.settings.ratings);
        let part = self.call("ratings", &url, headers).await;
        part.or_error("Sorry, product ratings are currently unavailable for this book.")
    }

    async fn call(&self, service: &'static str, url: &str, headers: &HeaderMap) -> Part {
        let part = match self.client.get(url, headers.clone(), TIMEOUT).await {
            Ok(reply) => match serde_json::from_slice(&reply.body) {
                Ok(body) => Part { status: reply.status, body },
                // An error of a proxy in between is plain text.
                Err(_) if reply.status != StatusCode::OK => Part { status: reply.status, body: Value::Null },
                Err(error) => {
                    eprintln!("productpage: {url}: {error}");
                    Part { status: StatusCode::INTERNAL_SERVER_ERROR, body: Value::Null }
                }
            },
            Err(error) => {
                eprintln!("productpage: {url}: {error}");
                Part { status: StatusCode::INTERNAL_SERVER_ERROR, body: Value::Null }
            }
        };
        let mut results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
        *results.entry((service, part.status.as_u16())).or_default() += 1;
        part
    }

    fn metrics(&self) -> String {
        let mut text = String::from("# TYPE request_result_total counter\n");
        for ((service, code), count) in &*self.results.lock().unwrap_or_else(PoisonError::into_inner) {
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "request_result_total{{destination_app=\"{service}\",response_code=\"{code}\"}} {count}"
            );
        }
        text
    }
}

impl Part {
    /// Replaces the body by `message` unless the service said 200.
    fn or_error(self, message: &str) -> Self {
        if self.status == StatusCode::OK {
            self
        } else {
            Self { status: self.status, body: json!({"error": message}) }
        }
    }
}

impl From<Part> for Answer {
    fn from(part: Part) -> Self {
        Self::json(part.status, &part.body)
    }
}

/// The headers of the calls made for `call`: what is passed on, and the user of the session.
fn headers(call: &Call) -> HeaderMap {
    let mut headers = forwarded(&call.headers);
    // A name that no header can carry is nobody's.
    if let Some(user) = session_user(&call.headers).and_then(|user| HeaderValue::from_str(&user).ok()) {
        headers.insert(END_USER, user);
    }
    headers
}

fn html(body: String) -> Answer {
    Answer::text(StatusCode::OK, "text/html; charset=utf-8", body)
}

fn login(call: &Call) -> Answer {
    let body = String::from_utf8_lossy(&call.body);
    let user = field(&body, "username").unwrap_or_default();
    back(call, &session_cookie(&user))
}

/// Redirects to the page that the request came from.
fn back(call: &Call, cookie: &str) -> Answer {
    let location = call.headers.get(header::REFERER).cloned();
    let mut answer = Answer::text(StatusCode::FOUND, "text/html; charset=utf-8", String::new());
    answer.location = Some(location.unwrap_or(HeaderValue::from_static("/productpage")));
    answer.set_cookie = HeaderValue::from_str(cookie).ok();
    answer
}
