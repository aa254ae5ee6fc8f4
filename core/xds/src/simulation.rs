//! Clients and servers connected in memory, with delays, lost streams, refused updates and changing configuration, all
//! drawn from a printed seed. However it went: once the disturbances stop, the client holds what the server offers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use dhow_base::Rng;

use crate::fixtures::{content, node, resource, select};
use crate::type_url::{self, CLUSTER, ENDPOINT, LISTENER, ROUTE};
use crate::{
    ClientConfig, ClientSession, Interest, Request, Resource, Response, ServerConfig, ServerSession, Update,
    Variant,
};

/// What the owner of the client session has put in force: content by type and name.
#[derive(Default)]
struct Applied(BTreeMap<&'static str, BTreeMap<String, String>>);

const TYPES: [&str; 4] = [CLUSTER, ENDPOINT, LISTENER, ROUTE];
const TIMEOUT: Option<Duration> = Some(Duration::from_secs(15));

impl Applied {
    /// Content that starts with `bad` is refused: alone in a full set, with the whole update otherwise.
    fn apply(&mut self, type_url: &'static str, update: &Update) -> Result<(), String> {
        let contents: Vec<(String, String)> =
            update.added.iter().map(|resource| (resource.name.clone(), content(&resource.body))).collect();
        let (bad, good): (Vec<_>, Vec<_>) =
            contents.into_iter().partition(|(_, content)| content.starts_with("bad"));
        if !bad.is_empty() && !type_url::is_full_set(type_url) {
            return Err(format!("{bad:?}"));
        }
        let held = self.0.entry(type_url).or_default();
        held.extend(good);
        for name in &update.removed {
            held.remove(name);
        }
        if bad.is_empty() { Ok(()) } else { Err(format!("{bad:?}")) }
    }

    fn names(&self, type_url: &str) -> BTreeSet<String> {
        self.0.get(type_url).map(|held| held.keys().cloned().collect()).unwrap_or_default()
    }
}

struct Simulation {
    rng: Rng,
    now: Instant,
    variant: Variant,
    client: ClientSession,
    server: Option<ServerSession>,
    applied: Applied,
    /// An update whose application takes time.
    applying: Option<(&'static str, crate::Delivery)>,
    to_server: VecDeque<Request>,
    to_client: VecDeque<Response>,
    world: BTreeMap<(&'static str, String), String>,
    edits: u64,
}

impl Simulation {
    fn new(seed: u64, variant: Variant) -> Self {
        let mut rng = Rng::seeded(seed);
        let mut config = ClientConfig::new(variant, node());
        config.set_node_on_first_message_only = rng.chance(1, 2);
        let mut client = ClientSession::new(config, Rng::seeded(rng.next_u64()));
        let now = Instant::now();
        client.set_interest(CLUSTER, Interest::Wildcard, TIMEOUT, now);
        client.set_interest(LISTENER, Interest::Wildcard, TIMEOUT, now);
        Self {
            rng,
            now,
            variant,
            client,
            server: None,
            applied: Applied::default(),
            applying: None,
            to_server: VecDeque::new(),
            to_client: VecDeque::new(),
            world: BTreeMap::new(),
            edits: 0,
        }
    }

    /// Adds, changes or removes something; clusters come and go with their endpoints, listeners with their routes.
    fn edit(&mut self, allow_bad: bool) {
        self.edits += 1;
        let (of, its) = if self.rng.chance(1, 2) { (CLUSTER, ENDPOINT) } else { (LISTENER, ROUTE) };
        let name = format!("n{}", self.rng.below(6));
        let kind = if allow_bad && self.rng.chance(1, 6) { "bad" } else { "good" };
        let content = format!("{kind}{}", self.edits);
        match self.rng.below(4) {
            0 => {
                self.world.remove(&(of, name.clone()));
                self.world.remove(&(its, name));
            }
            1 => {
                self.world.insert((of, name), content);
            }
            2 => {
                self.world.insert((its, name), content);
            }
            _ => {
                self.world.insert((of, name.clone()), content.clone());
                self.world.insert((its, name), content);
            }
        }
        if let Some(server) = &mut self.server {
            server.snapshot_published();
        }
    }

    fn resources(&self) -> Vec<Resource> {
        self.world.iter().map(|((type_url, name), content)| resource(type_url, name, content)).collect()
    }

    fn disconnect(&mut self) {
        self.server = None;
        self.to_server.clear();
        self.to_client.clear();
        self.client.stream_closed(self.now);
    }

    /// Does one thing that can be done, at random. False when nothing can be done at this time.
    fn step(&mut self) -> bool {
        let mut choices: Vec<fn(&mut Self) -> bool> =
            vec![Self::connect, Self::send, Self::receive, Self::finish_applying, Self::serve, Self::push];
        while !choices.is_empty() {
            let choice = choices.swap_remove(self.rng.index(choices.len()));
            if choice(self) {
                return true;
            }
        }
        false
    }

    fn connect(&mut self) -> bool {
        let connects = self.client.wants_connection(self.now);
        if connects {
            self.client.connecting();
            if self.rng.chance(1, 4) {
                self.client.stream_closed(self.now);
            } else {
                self.server = Some(ServerSession::new(ServerConfig::new(self.variant)));
                self.client.stream_opened();
            }
        }
        connects
    }

    fn send(&mut self) -> bool {
        self.client.poll_request().map(|request| self.to_server.push_back(request)).is_some()
    }

    fn serve(&mut self) -> bool {
        let (Some(server), Some(request)) = (&mut self.server, self.to_server.pop_front()) else {
            return false;
        };
        server.handle_request(request).expect("clients follow the protocol");
        true
    }

    fn push(&mut self) -> bool {
        let resources = self.resources();
        let Some(server) = &mut self.server else { return false };
        let Some(want) = server.poll_want(self.now) else { return false };
        if let Some(push) = server.supply(&want.type_url, &select(&resources, &want), "snapshot", self.now) {
            self.to_client.push_back(push.to_response());
        }
        true
    }

    fn receive(&mut self) -> bool {
        if self.applying.is_some() {
            return false;
        }
        let Some(response) = self.to_client.pop_front() else { return false };
        if let Some(delivery) = self.client.handle_response(response) {
            let type_url =
                TYPES.into_iter().find(|t| *t == delivery.receipt.type_url()).expect("a type we asked for");
            self.applying = Some((type_url, delivery));
        }
        true
    }

    fn finish_applying(&mut self) -> bool {
        let Some((type_url, delivery)) = self.applying.take() else { return false };
        let outcome = self.applied.apply(type_url, &delivery.update);
        for (of, its) in [(CLUSTER, ENDPOINT), (LISTENER, ROUTE)] {
            let names = self.applied.names(of);
            self.applied.0.entry(its).or_default().retain(|name, _| names.contains(name));
            self.client.set_interest(its, Interest::Names(names), TIMEOUT, self.now);
        }
        match outcome {
            Ok(()) => self.client.accept(delivery.receipt),
            Err(message) => self.client.refuse(delivery.receipt, message),
        }
        true
    }

    /// Lets time pass until something can be done again; false when it never will.
    fn advance(&mut self) -> bool {
        let server_deadline = self.server.as_ref().and_then(ServerSession::next_deadline);
        let Some(deadline) = self.client.next_deadline().into_iter().chain(server_deadline).min() else {
            return false;
        };
        self.now = self.now.max(deadline);
        self.client.handle_deadline(self.now);
        while self.client.poll_event().is_some() {}
        true
    }

    fn settle(&mut self) {
        for _ in 0..100_000 {
            if !self.step() && !self.advance() {
                return;
            }
        }
        panic!("the sessions never come to rest");
    }

    fn check(&self) {
        for type_url in TYPES {
            let wanted = match type_url {
                ENDPOINT => Some(self.applied.names(CLUSTER)),
                ROUTE => Some(self.applied.names(LISTENER)),
                _ => None,
            };
            let offered: BTreeMap<String, String> = self
                .world
                .iter()
                .filter(|((of, name), _)| *of == type_url && wanted.as_ref().is_none_or(|w| w.contains(name)))
                .map(|((_, name), content)| (name.clone(), content.clone()))
                .collect();
            let mut held = self.applied.0.get(type_url).cloned().unwrap_or_default();
            if self.variant == Variant::StateOfTheWorld && wanted.is_some() {
                // The state of the world cannot say that a name fetched by name is gone.
                held.retain(|name, _| offered.contains_key(name));
            }
            assert_eq!(held, offered, "{type_url}");
        }
        let server = self.server.as_ref().expect("connected at the end");
        assert!(server.is_idle(), "{server:?}");
    }
}

fn run(seed: u64, variant: Variant) {
    println!("DHOW_SEED={seed} {variant:?}");
    let mut simulation = Simulation::new(seed, variant);
    for _ in 0..400 {
        match simulation.rng.below(40) {
            0 if simulation.server.is_some() => simulation.disconnect(),
            1..5 => simulation.edit(true),
            5 => {
                simulation.advance();
            }
            _ => {
                simulation.step();
            }
        }
    }
    // The disturbances stop, and what was bad is mended.
    for content in simulation.world.values_mut() {
        *content = content.replace("bad", "mended");
    }
    simulation.edit(false);
    if simulation.rng.chance(1, 4) && simulation.server.is_some() {
        simulation.disconnect();
    }
    simulation.settle();
    simulation.check();
}

/// A run with `DHOW_SEED` set repeats that seed alone.
fn seeds() -> Vec<u64> {
    match std::env::var("DHOW_SEED") {
        Ok(seed) => vec![seed.parse().expect("DHOW_SEED is a number")],
        Err(_) => (0..200).collect(),
    }
}

#[test]
fn delta_sessions_converge() {
    seeds().into_iter().for_each(|seed| run(seed, Variant::Delta));
}

#[test]
fn state_of_the_world_sessions_converge() {
    seeds().into_iter().for_each(|seed| run(seed, Variant::StateOfTheWorld));
}
