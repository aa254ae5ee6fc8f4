//! Carries out the steps of a scenario and writes down what happened.

mod admin;
mod exchange;
mod wire;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use dhow_testkit::poll_until_async;
use dhow_testkit::upstream::{Record, Rule, Script, SeenRequest};
use indexmap::IndexMap;
use tokio::task::JoinHandle;

use crate::environment::Environment;
use crate::normalise::Normaliser;
use crate::outcome::{RequestFacts, Seen, StepOutcome};
use crate::steps::{Reading, Step};
use crate::target::Kind;
pub use admin::{settled, settled_under};
use exchange::{Connection, exchange};

/// How long a step may take unless it says otherwise.
const STEP_LIMIT: Duration = Duration::from_secs(10);

/// How long to wait for a request that an upstream has seen the beginning of, before it is recorded as incomplete.
const BODY_LIMIT: Duration = Duration::from_millis(300);

/// The traffic of one run.
pub struct Traffic {
    environment: Arc<Environment>,
    kind: Kind,
    connections: HashMap<String, Connection>,
    background: HashMap<String, JoinHandle<Seen>>,
}

impl Traffic {
    /// Traffic in these surroundings, to this kind of target.
    pub fn new(environment: Arc<Environment>, kind: Kind) -> Self {
        Self { environment, kind, connections: HashMap::new(), background: HashMap::new() }
    }

    /// Carries out one step. What came of it is returned with its faults; a step that only changes something records nothing.
    pub async fn step(&mut self, step: &Step) -> Result<(Option<StepOutcome>, Vec<String>)> {
        if step.until {
            return self.until(step).await;
        }
        self.once(step).await
    }

    async fn until(&mut self, step: &Step) -> Result<(Option<StepOutcome>, Vec<String>)> {
        let limit = step.limit_ms.map_or(STEP_LIMIT, Duration::from_millis);
        let start = tokio::time::Instant::now();
        loop {
            let result = Box::pin(self.once(step)).await?;
            if result.1.is_empty() || start.elapsed() > limit {
                return Ok(result);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn once(&mut self, step: &Step) -> Result<(Option<StepOutcome>, Vec<String>)> {
        let client = self.act(step).await?;
        if let Seen::Nothing = client
            && step.arrived.is_none()
        {
            return Ok((None, Vec::new()));
        }
        // Which of two steps under way at once a request belongs to is a matter of the moment: a joined step leaves the
        // requests to the step after it. So does a step that only sends: its request may still be on its way.
        let only_sends = step.raw.is_some() && step.read == Reading::Bytes(0);
        let undecided = step.background.is_some() || step.join.is_some() || only_sends;
        let mut upstreams = if undecided { IndexMap::new() } else { self.drain().await };
        if step.repeat.is_some() {
            // How many of the equal requests went where is a matter of chance; what each looked like is not.
            upstreams.values_mut().for_each(Vec::dedup);
        }
        if step.together.is_some() {
            // So is the order in which requests sent at the same time arrive.
            upstreams.values_mut().for_each(|seen| seen.sort_by(|a, b| a.target.cmp(&b.target)));
        }
        if step.broken {
            upstreams.values_mut().for_each(|seen| seen.retain(|request| !request.incomplete));
            upstreams.retain(|_, seen| !seen.is_empty());
        }
        if (step.frames.is_some() || step.admin.is_some()) && !step.expect.mentions_upstreams() {
            // How much of what a client sent before a stream or the connection was given up reaches an upstream is a matter of
            // the moment; so are the health checks that come while the admin interface is asked.
            upstreams.clear();
        }
        let differs = step.differs.as_ref().map(|difference| difference.why.clone());
        let outcome = StepOutcome { step: step.title(), differs, client, upstreams };
        let mut faults = step.expect.check(&outcome);
        if let Some(difference) = &step.differs {
            let expect = if self.kind == Kind::Ours { &difference.ours } else { &difference.envoy };
            faults.extend(expect.check(&outcome));
        }
        Ok((Some(outcome), faults))
    }

    async fn act(&mut self, step: &Step) -> Result<Seen> {
        if step.request.is_some() || step.raw.is_some() {
            return self.talk(step).await;
        }
        if step.frames.is_some() {
            return wire::frames(&self.environment, step).await;
        }
        if let Some(name) = &step.observed {
            return wire::observed(&self.environment, name).await;
        }
        if let Some(name) = &step.wire {
            return wire::wire(&self.environment, name).await;
        }
        if let Some(name) = &step.connections {
            return wire::connections(&self.environment, name).await;
        }
        if step.admin.is_some() {
            return admin::ask(&self.environment, step).await;
        }
        if let Some(steps) = &step.together {
            return self.together(steps).await;
        }
        if let Some(name) = &step.join {
            let handle =
                self.background.remove(name).with_context(|| format!("no background step `{name}`"))?;
            return handle.await.context("background step");
        }
        for (name, contents) in step.replace.iter().flatten() {
            self.environment.put(name, contents)?;
        }
        for (name, target) in step.link.iter().flatten() {
            self.environment.link(name, target)?;
        }
        for (name, replies) in step.answer.iter().flatten() {
            let rules = vec![Rule { replies: replies.clone(), ..Rule::default() }];
            self.environment.record(name)?.set_script(Script { rules });
        }
        for (name, rule) in step.rule.iter().flatten() {
            self.environment.record(name)?.set_rule(rule.clone());
        }
        if let Some(name) = &step.close {
            self.connections.remove(name).with_context(|| format!("no connection `{name}`"))?;
        }
        if let Some(counts) = &step.arrived {
            self.arrived(counts).await?;
        }
        if let Some(stats) = &step.reach {
            admin::reach(&self.environment, stats, |found, wanted| found == wanted).await?;
        }
        if let Some(stats) = &step.reach_at_least {
            admin::reach(&self.environment, stats, |found, wanted| found >= wanted).await?;
        }
        if let Some(names) = &step.dns {
            self.environment.change_names(names)?;
        }
        if let Some(change) = &step.ads {
            self.environment.change_resources(change)?;
        }
        Ok(Seen::Nothing)
    }

    async fn talk(&mut self, step: &Step) -> Result<Seen> {
        let limit = step.limit_ms.filter(|_| !step.until).map_or(STEP_LIMIT, Duration::from_millis);
        let connection = step.connection.as_ref().and_then(|name| self.connections.remove(name));
        if let Some(name) = &step.background {
            let (environment, step) = (Arc::clone(&self.environment), step.clone());
            let task = async move { exchange(&environment, &step, connection, limit).await.0 };
            self.background.insert(name.clone(), tokio::spawn(task));
            return Ok(Seen::Nothing);
        }
        let (seen, connection) = exchange(&self.environment, step, connection, limit).await;
        if let (Some(name), Some(connection)) = (&step.connection, connection) {
            self.connections.insert(name.clone(), connection);
        }
        Ok(seen)
    }

    async fn together(&mut self, steps: &[Step]) -> Result<Seen> {
        let tasks: Vec<_> = steps
            .iter()
            .map(|step| {
                let (environment, step) = (Arc::clone(&self.environment), step.clone());
                tokio::spawn(async move { exchange(&environment, &step, None, STEP_LIMIT).await.0 })
            })
            .collect();
        let mut results = Vec::new();
        for task in tasks {
            results.push(task.await.context("step that runs together with others")?);
        }
        Ok(Seen::Together(results))
    }

    async fn arrived(&self, counts: &IndexMap<String, usize>) -> Result<()> {
        for (name, count) in counts {
            let record = self.environment.record(name)?;
            let there =
                poll_until_async(STEP_LIMIT, || async { (record.pending().0 >= *count).then_some(()) }).await;
            if there.is_err() {
                bail!("upstream {name} saw {} requests, not {count}", record.pending().0);
            }
        }
        Ok(())
    }

    async fn drain(&self) -> IndexMap<String, Vec<RequestFacts>> {
        let normaliser = self.environment.normaliser();
        let mut upstreams = IndexMap::new();
        for (name, record) in self.environment.records() {
            let seen = complete(record).await;
            if !seen.is_empty() {
                upstreams.insert(name.clone(), seen.iter().map(|r| facts(r, &normaliser)).collect());
            }
        }
        upstreams
    }
}

/// The requests since the last drain, after a moment for their bodies to arrive.
async fn complete(record: &Record) -> Vec<SeenRequest> {
    // A request that stays incomplete is recorded as such.
    let _ = poll_until_async(BODY_LIMIT, || async { record.pending().1.then_some(()) }).await;
    record.drain()
}

fn facts(request: &SeenRequest, normaliser: &Normaliser) -> RequestFacts {
    RequestFacts {
        protocol: request.protocol.clone(),
        method: request.method.clone(),
        target: normaliser.text(&request.target),
        authority: request.authority.as_ref().map(|a| normaliser.text(a)),
        scheme: request.scheme.clone(),
        headers: normaliser.headers(&request.headers),
        body: normaliser.body(&request.body),
        trailers: normaliser.headers(&request.trailers),
        incomplete: !request.complete,
        sni: request.tls.as_ref().and_then(|t| t.sni.clone()),
        alpn: request.tls.as_ref().and_then(|t| t.alpn.clone()),
    }
}
