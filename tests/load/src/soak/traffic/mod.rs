//! The clients of a soak run: each repeats an action of its choice until the run ends.

mod http1;
mod http2;
mod tcp;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use dhow_base::Rng;
use dhow_testkit::client::{TlsOptions, over};
use dhow_testkit::stream::ByteStream;
use tokio::net::TcpSocket;

use super::origins::{BIG, SMALL};

/// How long any single answer may take: longer than all timeouts of the proxy together.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(15);

/// Where clients send, and what came of it.
pub struct Field {
    /// The listeners.
    pub doors: Vec<Door>,
    /// The TCP listener.
    pub bytes: SocketAddr,
    /// No new action begins after this moment.
    pub end: Instant,
    /// What happened.
    pub tally: Tally,
}

/// One HTTP listener as clients see it.
pub struct Door {
    /// Its stat prefix.
    pub name: &'static str,
    /// Where it listens.
    pub address: SocketAddr,
    /// How to secure HTTP/1.
    pub tls1: Option<TlsOptions>,
    /// How to secure HTTP/2.
    pub tls2: Option<TlsOptions>,
    /// What was done to it.
    pub counts: DoorCounts,
}

/// What clients did to one listener.
#[derive(Debug, Default)]
pub struct DoorCounts {
    /// Connections opened.
    pub connections: Cell<u64>,
    /// Requests whose first byte was sent.
    pub requests: Cell<u64>,
    /// Final response heads received.
    pub answers: Cell<u64>,
}

/// What all clients found.
#[derive(Debug, Default)]
pub struct Tally {
    /// Actions by name.
    pub actions: RefCell<BTreeMap<&'static str, u64>>,
    /// Answers by status.
    pub statuses: RefCell<BTreeMap<u16, u64>>,
    /// Answers that are wrong, the first of them in words.
    pub wrong: RefCell<Vec<String>>,
    /// How many there were.
    pub wrong_count: Cell<u64>,
    /// Connections to the TCP listener.
    pub tcp_connections: Cell<u64>,
}

/// Faults that are kept in words.
const KEPT: usize = 10;

impl Tally {
    /// Notes something that must not happen.
    pub fn wrong(&self, what: impl FnOnce() -> String) {
        self.wrong_count.set(self.wrong_count.get() + 1);
        let mut kept = self.wrong.borrow_mut();
        if kept.len() < KEPT {
            kept.push(what());
        }
    }
}

/// How a connection treats the other side.
#[derive(Debug, Clone, Copy)]
enum Manner {
    Usual,
    /// Dropping it resets it.
    LeavesByReset,
    /// Its kernel buffer is small, so that what is not read soon stays with the sender.
    TakesLittle,
}

impl Manner {
    fn of_leaving(rng: &mut Rng) -> Self {
        if rng.chance(1, 2) { Self::LeavesByReset } else { Self::Usual }
    }
}

impl Door {
    /// Opens a connection, over TLS where this is that kind of door.
    async fn open(&self, manner: Manner) -> io::Result<Box<dyn ByteStream>> {
        let socket = TcpSocket::new_v4()?;
        match manner {
            Manner::Usual => {}
            Manner::LeavesByReset => socket.set_zero_linger()?,
            Manner::TakesLittle => socket.set_recv_buffer_size(4096)?,
        }
        let stream = socket.connect(self.address).await?;
        add(&self.counts.connections, 1);
        Ok(over(stream, self.tls1.as_ref()).await?.0)
    }
}

impl Field {
    fn over(&self) -> bool {
        Instant::now() >= self.end
    }

    /// Judges an answer that came whole.
    fn judge(&self, door: &Door, target: &Target, status: u16, body: &[u8]) {
        add(&door.counts.answers, 1);
        *self.tally.statuses.borrow_mut().entry(status).or_default() += 1;
        if !target.allows(status, body) {
            let start = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
            self.tally.wrong(|| {
                format!("{}{} answered {status} with {} bytes: {start:?}", door.name, target.path, body.len())
            });
        }
    }
}

pub(super) fn add(cell: &Cell<u64>, number: u64) {
    cell.set(cell.get() + number);
}

/// A path, and which answers to it are right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Target {
    path: &'static str,
    right: Right,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Right {
    /// 200 and the small body.
    Small,
    /// 200 and the big body.
    Big,
    /// This status.
    Status(u16),
    /// The small body, whole or cut short, or an error of the gateway.
    SmallOrError,
    /// Whatever is a response at all.
    Any,
}

const TARGETS: [Target; 36] = {
    const fn target(path: &'static str, right: Right) -> Target {
        Target { path, right }
    }
    use Right::{Any, Big, Small, SmallOrError, Status};
    [
        target("/steady/ok", Small),
        target("/steady/ok?x=y", Small),
        target("/two/ok", Small),
        target("/tls/ok", Small),
        target("/steady/big", Big),
        target("/two/big", Big),
        target("/tls/big", Big),
        target("/steady/empty", Status(204)),
        target("/steady/early", SmallOrError),
        target("/two/early", SmallOrError),
        target("/steady/drip", Status(200)),
        target("/two/drip", Status(200)),
        target("/steady/trailers", Status(200)),
        target("/two/trailers", Status(200)),
        target("/steady/error", Status(500)),
        target("/steady/interim", Small),
        target("/steady/until-close", Small),
        target("/steady/goodbye", Small),
        target("/late/late", Status(504)),
        target("/late-two/late", Status(504)),
        target("/steady/reset", Status(503)),
        target("/two/refuse", Status(503)),
        target("/steady/close", Status(503)),
        target("/steady/cut", Any),
        target("/two/cut-reset", Any),
        target("/retry/ok", SmallOrError),
        target("/moody/ok", Any),
        target("/hedge/ok", Any),
        target("/mirror/ok", Small),
        target("/narrow/ok", SmallOrError),
        target("/eds/ok", SmallOrError),
        target("/fault/ok", Any),
        target("/empty/ok", Status(503)),
        target("/refused/ok", Status(503)),
        target("/direct", Status(200)),
        target("/no/such/route", Status(404)),
    ]
};

/// What the proxy says to a request that waits for its next attempt and grows beyond what may be kept for it.
const OUTGROWN: &[u8] = b"exceeded request buffer limit while retrying upstream";

impl Target {
    fn any(rng: &mut Rng) -> Self {
        TARGETS[rng.index(TARGETS.len())]
    }

    /// Whether its answer may end in the middle.
    fn may_be_cut(&self) -> bool {
        matches!(self.right, Right::SmallOrError | Right::Any)
    }

    fn allows(&self, status: u16, body: &[u8]) -> bool {
        let small = status == 200 && body == SMALL.as_bytes();
        match self.right {
            Right::Small => small,
            Right::Big => {
                status == 200 && body.len() == BIG && body.chunks(16).all(|c| c == b"0123456789abcdef")
            }
            Right::Status(wanted) => status == wanted,
            // An upload that outgrows what is kept for it, while it waits to be tried again, is answered too.
            Right::SmallOrError => small || matches!(status, 502..=504) || (status, body) == (507, OUTGROWN),
            Right::Any => (200..600).contains(&status),
        }
    }
}

/// What one client does for a while.
#[derive(Debug, Clone, Copy)]
enum Action {
    KeepAlive,
    PerConnection,
    Pipelined,
    Upload,
    SlowReader,
    Abort,
    AbortUpload,
    SlowRequest,
    Malformed,
    Streams,
    CancelledStreams,
    Bytes,
}

const ACTIONS: [(Action, &str, u64); 12] = [
    (Action::KeepAlive, "keep-alive", 6),
    (Action::PerConnection, "new connections", 3),
    (Action::Pipelined, "pipelined", 1),
    (Action::Upload, "uploads", 3),
    (Action::SlowReader, "slow readers", 1),
    (Action::Abort, "aborted responses", 3),
    (Action::AbortUpload, "aborted uploads", 2),
    (Action::SlowRequest, "unfinished requests", 1),
    (Action::Malformed, "malformed", 1),
    (Action::Streams, "HTTP/2 streams", 5),
    (Action::CancelledStreams, "cancelled HTTP/2 streams", 3),
    (Action::Bytes, "TCP", 1),
];

impl Action {
    fn any(rng: &mut Rng) -> (Self, &'static str) {
        let mut draw = rng.below(ACTIONS.iter().map(|(_, _, weight)| weight).sum());
        for (action, name, weight) in ACTIONS {
            if draw < weight {
                return (action, name);
            }
            draw -= weight;
        }
        (Self::KeepAlive, "keep-alive")
    }
}

/// One client: repeats actions until the end.
pub async fn client(field: Rc<Field>, mut rng: Rng) {
    while !field.over() {
        let (action, name) = Action::any(&mut rng);
        *field.tally.actions.borrow_mut().entry(name).or_default() += 1;
        let door = &field.doors[rng.index(field.doors.len())];
        let done = match action {
            Action::KeepAlive => http1::keep_alive(&field, door, &mut rng).await,
            Action::PerConnection => http1::per_connection(&field, door, &mut rng).await,
            Action::Pipelined => http1::pipelined(&field, door, &mut rng).await,
            Action::Upload => http1::upload(&field, door, &mut rng).await,
            Action::SlowReader => http1::slow_reader(&field, door, &mut rng).await,
            Action::Abort => http1::abort(&field, door, &mut rng).await,
            Action::AbortUpload => http1::abort_upload(&field, door, &mut rng).await,
            Action::SlowRequest => http1::unfinished(&field, door).await,
            Action::Malformed => http1::malformed(&field, door, &mut rng).await,
            Action::Streams => http2::streams(&field, door, &mut rng, false).await,
            Action::CancelledStreams => http2::streams(&field, door, &mut rng, true).await,
            Action::Bytes => tcp::echoed(&field, &mut rng).await,
        };
        if let Err(error) = done {
            field.tally.wrong(|| format!("{name} on {}: {error}", door.name));
        }
        tokio::time::sleep(Duration::from_millis(rng.below(12))).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_judged_by_what_the_path_promises() {
        let find = |path: &str| *TARGETS.iter().find(|target| target.path == path).unwrap();
        assert!(find("/steady/ok").allows(200, SMALL.as_bytes()));
        assert!(!find("/steady/ok").allows(200, b"a small bod"));
        assert!(!find("/steady/ok").allows(503, SMALL.as_bytes()));
        assert!(find("/steady/big").allows(200, &b"0123456789abcdef".repeat(BIG / 16)));
        assert!(!find("/steady/big").allows(200, &vec![b'0'; BIG]));
        assert!(find("/retry/ok").allows(504, b"upstream request timeout"));
        assert!(find("/retry/ok").allows(507, OUTGROWN) && !find("/steady/ok").allows(507, OUTGROWN));
        assert!(!find("/retry/ok").allows(200, b"half"));
    }

    #[test]
    fn every_action_has_its_turn() {
        let mut rng = Rng::seeded(1);
        let names: std::collections::BTreeSet<&str> = (0..400).map(|_| Action::any(&mut rng).1).collect();
        assert_eq!(names.len(), ACTIONS.len());
    }
}
