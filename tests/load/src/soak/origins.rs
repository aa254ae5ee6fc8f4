//! The servers behind the proxy, and what befalls them.

use std::time::Duration;

use anyhow::Result;
use dhow_base::Rng;
use dhow_testkit::certs::Identity;
use dhow_testkit::upstream::{Body, Fault, Framing, Reply, Rule, Script, Speaks, TcpScript, Upstream};
use dhow_testkit::{HeldPort, TempDir};

use super::topology::{self, EDS_HOSTS, MOODY_HOSTS, PREFIXES, STEADY};

/// Bytes of the body at the paths that end in `big`.
pub const BIG: usize = 192 * 1024;

/// The body at the paths that end in `ok`.
pub const SMALL: &str = "a small body";

/// What a host does to every request for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Well,
    Failing,
    Silent,
    Slow,
    Closing,
    Resetting,
    Truncating,
    Garbling,
    /// Not there: connections are refused.
    Away,
}

const TROUBLES: [Mood; 8] = [
    Mood::Failing,
    Mood::Silent,
    Mood::Slow,
    Mood::Closing,
    Mood::Resetting,
    Mood::Truncating,
    Mood::Garbling,
    Mood::Away,
];

impl Mood {
    fn script(self) -> Script {
        let fault = |fault| Reply { fault: Some(fault), ..Reply::ok("some text") };
        let reply = match self {
            Self::Well | Self::Away => return well(),
            Self::Failing => Reply::status(503),
            Self::Silent => fault(Fault::Hang),
            Self::Slow => Reply { delay_ms: 120, ..Reply::ok(SMALL) },
            Self::Closing => fault(Fault::CloseBeforeHead),
            Self::Resetting => fault(Fault::ResetBeforeHead),
            Self::Truncating => {
                Reply { body: Body::Chunks(vec!["one".into(), "two".into()]), ..fault(Fault::CloseMidBody) }
            }
            Self::Garbling => fault(Fault::Bytes("HTTP/1.1 2OO\r\nno\u{0}thing: like http\r\n\r\n".into())),
        };
        Script { rules: vec![Rule { unrecorded: true, replies: vec![reply], ..Rule::default() }] }
    }
}

/// Everything a healthy origin answers, by the last part of the path.
fn well() -> Script {
    let chunks = |count: usize| Body::Chunks(vec!["a piece of a body".into(); count]);
    let fault = |fault| Reply { fault: Some(fault), body: chunks(4), ..Reply::default() };
    let replies = [
        ("ok", Reply::ok(SMALL)),
        (
            "big",
            Reply {
                body: Body::Repeated { text: "0123456789abcdef".into(), times: BIG / 16 },
                ..Reply::default()
            },
        ),
        ("empty", Reply::status(204)),
        ("early", Reply { early: true, ..Reply::ok(SMALL) }),
        (
            "drip",
            Reply { body: chunks(12), framing: Framing::Chunked, chunk_delay_ms: 4, ..Reply::default() },
        ),
        (
            "trailers",
            Reply {
                body: chunks(3),
                framing: Framing::Chunked,
                trailers: vec![("x-after".into(), "all".into())],
                ..Reply::default()
            },
        ),
        ("error", Reply::status(500)),
        ("interim", Reply { interim: vec![103], ..Reply::ok(SMALL) }),
        ("until-close", Reply { framing: Framing::UntilClose, ..Reply::ok(SMALL) }),
        ("goodbye", Reply { close: true, ..Reply::ok(SMALL) }),
        // Longer than the timeout of its routes, not for ever: what waits in an HTTP/2 origin ends too.
        ("late", Reply { delay_ms: 700, ..Reply::ok(SMALL) }),
        ("reset", fault(Fault::ResetBeforeHead)),
        ("refuse", fault(Fault::RefuseStream)),
        ("close", fault(Fault::CloseBeforeHead)),
        ("cut", fault(Fault::CloseMidBody)),
        ("cut-reset", fault(Fault::ResetMidBody)),
    ];
    let rule = |path: String, reply: &Reply| Rule {
        path: Some(path),
        unrecorded: true,
        replies: vec![reply.clone()],
        ..Rule::default()
    };
    let mut rules = vec![rule("/health".to_owned(), &Reply::ok("healthy"))];
    for prefix in PREFIXES {
        rules.extend(replies.iter().map(|(name, reply)| rule(format!("/{prefix}/{name}"), reply)));
    }
    Script { rules }
}

/// A host that may leave and come back.
struct Host {
    port: HeldPort,
    server: Option<Upstream>,
    mood: Mood,
}

impl Host {
    fn start() -> Result<Self> {
        let port = HeldPort::new()?;
        let server = Some(Upstream::start(port.listener()?, Speaks::Http(well()), None)?);
        Ok(Self { port, server, mood: Mood::Well })
    }

    fn turn(&mut self, mood: Mood) -> Result<()> {
        self.mood = mood;
        if mood == Mood::Away {
            self.server = None;
            return Ok(());
        }
        match &self.server {
            Some(server) => server.record().set_script(mood.script()),
            None => {
                let speaks = Speaks::Http(mood.script());
                self.server = Some(Upstream::start(self.port.listener()?, speaks, None)?);
            }
        }
        Ok(())
    }
}

/// All origins of a run.
pub struct Origins {
    steady: Vec<Upstream>,
    echo: Upstream,
    moody: Vec<Host>,
    eds: Vec<Host>,
    refused: HeldPort,
    endpoints_version: u64,
    rng: Rng,
}

impl Origins {
    /// Starts everything, well, and writes the file of endpoints into `dir`.
    pub fn start(dir: &TempDir, server: &Identity, seed: u64) -> Result<Self> {
        let mut steady = Vec::new();
        for name in STEADY {
            let tls = (name == "tls").then(|| server.server_config(&["http/1.1"], None)).transpose()?;
            steady.push(Upstream::start(HeldPort::new()?.listen()?, Speaks::Http(well()), tls)?);
        }
        let echo = Upstream::tcp(TcpScript { echo: true, ..TcpScript::default() })?;
        let hosts = |count: usize| (0..count).map(|_| Host::start()).collect::<Result<Vec<_>>>();
        let mut origins = Self {
            steady,
            echo,
            moody: hosts(MOODY_HOSTS)?,
            eds: hosts(EDS_HOSTS)?,
            refused: HeldPort::new()?,
            endpoints_version: 0,
            rng: Rng::seeded(seed),
        };
        origins.publish(dir, EDS_HOSTS)?;
        Ok(origins)
    }

    /// The ports of the origins of [`STEADY`], in its order.
    pub fn steady(&self) -> [u16; 3] {
        std::array::from_fn(|index| self.steady[index].address().port())
    }

    /// How many requests the origin of [`STEADY`] with this number has got.
    pub fn arrivals(&self, index: usize) -> u64 {
        self.steady[index].record().arrivals()
    }

    /// The ports of the hosts of `moody`.
    pub fn moody(&self) -> Vec<u16> {
        self.moody.iter().map(|host| host.port.port()).collect()
    }

    /// The port of the server that sends bytes back.
    pub fn echo(&self) -> u16 {
        self.echo.address().port()
    }

    /// A port where nobody listens.
    pub fn refused(&self) -> u16 {
        self.refused.port()
    }

    /// Lets something happen: a host changes its mood, or hosts come or go. Says what, for the log of the run.
    pub fn disturb(&mut self, dir: &TempDir) -> Result<String> {
        if self.rng.chance(1, 3) {
            let count = self.rng.index(EDS_HOSTS + 1);
            self.publish(dir, count)?;
            return Ok(format!("eds has {count} hosts"));
        }
        let index = self.rng.index(MOODY_HOSTS);
        let mood = match self.moody[index].mood {
            Mood::Well => TROUBLES[self.rng.index(TROUBLES.len())],
            _ => Mood::Well,
        };
        self.moody[index].turn(mood)?;
        Ok(format!("host {index} of moody: {mood:?}"))
    }

    /// Ends all trouble.
    pub fn calm(&mut self, dir: &TempDir) -> Result<()> {
        for host in &mut self.moody {
            host.turn(Mood::Well)?;
        }
        self.publish(dir, EDS_HOSTS)
    }

    /// How long to wait between two disturbances.
    pub fn pause(&mut self) -> Duration {
        Duration::from_millis(200 + self.rng.below(1200))
    }

    /// Writes a file of endpoints with `count` hosts, starting anywhere.
    fn publish(&mut self, dir: &TempDir, count: usize) -> Result<()> {
        let first = self.rng.index(EDS_HOSTS);
        let ports: Vec<u16> =
            (0..count).map(|offset| self.eds[(first + offset) % EDS_HOSTS].port.port()).collect();
        self.endpoints_version += 1;
        let file = topology::endpoints(self.endpoints_version, &ports);
        dir.replace("eds.json", file.to_string())?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use dhow_testkit::certs::TestCa;

    use super::*;

    #[test]
    fn the_same_seed_brings_the_same_troubles_and_calm_ends_them() {
        let dir = TempDir::new("soak-origins").unwrap();
        let server = TestCa::new("soak").unwrap().issue("server", &["localhost"]).unwrap();
        let mut first = Origins::start(&dir, &server, 7).unwrap();
        let mut second = Origins::start(&dir, &server, 7).unwrap();
        let story: Vec<String> = (0..12).map(|_| first.disturb(&dir).unwrap()).collect();
        assert_eq!(story, (0..12).map(|_| second.disturb(&dir).unwrap()).collect::<Vec<_>>());
        assert!(
            story.iter().any(|line| line.contains("moody")) && story.iter().any(|line| line.contains("eds"))
        );
        first.calm(&dir).unwrap();
        for port in first.moody() {
            TcpStream::connect(("127.0.0.1", port)).unwrap();
        }
    }
}
