//! The HTTP server around the services: listening, reading requests, writing answers, stopping on a signal.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::{Args, Role};
use crate::client::Client;
use crate::productpage::ProductPage;
use crate::ratings::Ratings;
use crate::reviews::Reviews;
use crate::settings::Settings;

/// Largest request body that is read, in bytes: a sign-in form or a handful of ratings.
const MAX_BODY: usize = 64 * 1024;

/// A request as the services see it.
#[derive(Debug)]
pub(crate) struct Call {
    pub method: Method,
    /// Path without the query, still percent-encoded.
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Call {
    /// The path's segments; a slash at the end does not count.
    pub(crate) fn segments(&self) -> Vec<&str> {
        let path = self.path.strip_prefix('/').unwrap_or(&self.path);
        let path = path.strip_suffix('/').unwrap_or(path);
        path.split('/').collect()
    }
}

/// What a service answers.
#[derive(Debug)]
pub(crate) struct Answer {
    pub status: StatusCode,
    pub content_type: &'static str,
    /// Where a redirect leads to.
    pub location: Option<HeaderValue>,
    pub set_cookie: Option<HeaderValue>,
    pub body: String,
}

impl Answer {
    /// An answer with a body of `content_type`.
    pub(crate) fn text(status: StatusCode, content_type: &'static str, body: String) -> Self {
        Self { status, content_type, location: None, set_cookie: None, body }
    }

    /// A JSON document.
    pub(crate) fn json(status: StatusCode, body: &Value) -> Self {
        Self::text(status, "application/json", body.to_string())
    }

    /// A JSON document with a message in `error`.
    pub(crate) fn error(status: StatusCode, message: &str) -> Self {
        Self::json(status, &json!({"error": message}))
    }

    /// 404 for a path or method that the service does not have.
    pub(crate) fn not_found() -> Self {
        Self::text(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "not found\n".to_owned())
    }

    fn into_response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(Bytes::from(self.body)));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        if let Some(location) = self.location {
            headers.insert(header::LOCATION, location);
        }
        if let Some(cookie) = self.set_cookie {
            headers.insert(header::SET_COOKIE, cookie);
        }
        response
    }
}

/// One of the four services.
#[derive(Debug)]
pub(crate) enum Service {
    ProductPage(ProductPage),
    Details,
    Reviews(Reviews),
    Ratings(Ratings),
}

impl Service {
    /// The service of `role`, with its calls going where `settings` say.
    pub(crate) fn new(role: Role, settings: Settings) -> Self {
        let settings = Arc::new(settings);
        let client = Arc::new(Client::new(&settings));
        match role {
            Role::Productpage => Self::ProductPage(ProductPage::new(settings, client)),
            Role::Details => Self::Details,
            Role::Reviews => Self::Reviews(Reviews { settings, client }),
            Role::Ratings => Self::Ratings(Ratings::default()),
        }
    }

    async fn answer(&self, call: &Call) -> Answer {
        match self {
            Self::ProductPage(page) => page.answer(call).await,
            Self::Details => crate::details::answer(call),
            Self::Reviews(reviews) => reviews.answer(call).await,
            Self::Ratings(ratings) => ratings.answer(call),
        }
    }
}

/// Serves until SIGTERM or SIGINT. The error is one line, meant for the terminal.
pub(crate) fn run(args: &Args) -> Result<(), String> {
    let variable = |name: &str| std::env::var(name).ok();
    let settings = Settings::read(args.version, variable)?;
    let address = args.listen_on(variable("BIND_ADDRESS").as_deref())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(1)
        .build()
        .map_err(|cause| format!("cannot start: {cause}"))?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(|cause| format!("SIGTERM: {cause}"))?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(|cause| format!("SIGINT: {cause}"))?;
        let listener = TcpListener::bind(address)
            .await
            .map_err(|cause| format!("cannot listen on {address}: {cause}"))?;
        println!("bookinfo {} listens on {}", args.role.name(), local_address(&listener, address));
        tokio::select! {
            () = serve(listener, Arc::new(Service::new(args.role, settings))) => {}
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok(())
    })
}

fn local_address(listener: &TcpListener, asked: SocketAddr) -> SocketAddr {
    listener.local_addr().unwrap_or(asked)
}

/// Accepts connections forever.
pub(crate) async fn serve(listener: TcpListener, service: Arc<Service>) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, or the peer is gone already: neither goes away faster by asking again at once.
                eprintln!("bookinfo: accept: {error}");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                continue;
            }
        };
        // Only costs latency when refused.
        let _ = stream.set_nodelay(true);
        let service = Arc::clone(&service);
        tokio::spawn(async move {
            let handler = service_fn(|request| {
                let service = Arc::clone(&service);
                async move { Ok::<_, Infallible>(handle(&service, request).await) }
            });
            // The peer's going away in the middle is its own affair.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), handler).await;
        });
    }
}

async fn handle(service: &Service, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, MAX_BODY).collect().await else {
        return Answer::error(StatusCode::PAYLOAD_TOO_LARGE, "the request's body cannot be read")
            .into_response();
    };
    let call = Call {
        method: head.method,
        path: head.uri.path().to_owned(),
        headers: head.headers,
        body: body.to_bytes(),
    };
    service.answer(&call).await.into_response()
}
