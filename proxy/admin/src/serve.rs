//! The admin interface on a socket: HTTP/1.1 and HTTP/2 by prior knowledge, on the thread that calls.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::{FuturesUnordered, once};
use http_body_util::{BodyExt, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};

use crate::commands::Admin;
use crate::reply::Reply;

/// A request's body is a form at most; beyond this many bytes it is cut off.
const MAX_BODY: usize = 1 << 20;

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// Futures that run inside of [`serve`]'s future, on its thread: nothing here needs to be `Send`.
#[derive(Clone, Default)]
struct Tasks {
    new: Rc<RefCell<Vec<Task>>>,
}

impl<F: Future + 'static> hyper::rt::Executor<F> for Tasks {
    fn execute(&self, future: F) {
        self.new.borrow_mut().push(Box::pin(async move {
            future.await;
        }));
    }
}

/// Accepts connections and answers them until the future is dropped. Connections are closed with it.
pub async fn serve(listener: TcpListener, admin: Rc<Admin>) {
    let tasks = Tasks::default();
    let mut running: FuturesUnordered<Task> = FuturesUnordered::new();
    poll_fn(|context| poll(&listener, &admin, &tasks, &mut running, context)).await
}

fn poll(
    listener: &TcpListener,
    admin: &Rc<Admin>,
    tasks: &Tasks,
    running: &mut FuturesUnordered<Task>,
    context: &mut Context<'_>,
) -> Poll<()> {
    // An error of accept (such as too many open files) leaves the listener usable; polling again registers for the next connection.
    while let Poll::Ready(accepted) = listener.poll_accept(context) {
        match accepted {
            Ok((stream, _)) => running.push(Box::pin(connection(stream, admin.clone(), tasks.clone()))),
            Err(_) => {
                context.waker().wake_by_ref();
                break;
            }
        }
    }
    loop {
        running.extend(tasks.new.borrow_mut().drain(..));
        let polled = Pin::new(&mut *running).poll_next(context);
        if tasks.new.borrow().is_empty() && !matches!(polled, Poll::Ready(Some(()))) {
            return Poll::Pending;
        }
    }
}

async fn connection(stream: TcpStream, admin: Rc<Admin>, tasks: Tasks) {
    let service = service_fn(move |request| answer(admin.clone(), request));
    // A client that goes away in the middle is none of the server's business.
    let _ = auto::Builder::new(tasks).serve_connection(TokioIo::new(stream), service).await;
}

type Body = StreamBody<Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, Infallible>>>>>;

async fn answer(admin: Rc<Admin>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, MAX_BODY).collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    Ok(response(admin.handle(head.method.as_str(), path, &body)))
}

/// The headers that all answers have. The body is sent in chunks, as Envoy sends it.
fn response(reply: Reply) -> Response<Body> {
    let frames: Pin<Box<dyn Stream<Item = _>>> =
        Box::pin(once(std::future::ready(Ok(Frame::data(Bytes::from(reply.body))))));
    let mut response = Response::new(StreamBody::new(frames));
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, reply.content_type),
        (header::CACHE_CONTROL, "no-cache, max-age=0"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::SERVER, "envoy"),
    ] {
        headers.insert(name, header::HeaderValue::from_static(value));
    }
    response
}
