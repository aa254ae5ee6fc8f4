//! One proxy's stream: requests in, pushes out.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use dhow_xds::messages::Node;
use dhow_xds::{Push, Request, Resource, ServerConfig, ServerEvent, ServerSession, Variant, Want, type_url};
use tokio::sync::{mpsc, watch};
use tonic::{Status, Streaming};

use crate::Generation;
use crate::proxies::ProxyStatus;
use crate::server::Shared;

/// Drives a session until the proxy hangs up or the server shuts down.
pub(crate) struct ProxyStream<G: Generation> {
    shared: Arc<Shared<G>>,
    number: u64,
    peer: Option<SocketAddr>,
    variant: Variant,
    session: ServerSession,
    /// The proxy as generation sees it, once it introduced itself.
    proxy: Option<Arc<G::View>>,
    pushes: watch::Receiver<u64>,
    out: mpsc::Sender<Result<Push, Status>>,
    /// When the push that the proxy has not wholly acknowledged yet was triggered.
    converging_since: Option<Instant>,
}

/// Why a stream is over.
enum End {
    /// The proxy does not listen any more.
    Gone,
    /// The proxy is told this.
    Told(Status),
}

impl<G: Generation> ProxyStream<G> {
    pub(crate) fn new(
        shared: Arc<Shared<G>>,
        number: u64,
        peer: Option<SocketAddr>,
        config: ServerConfig,
        out: mpsc::Sender<Result<Push, Status>>,
    ) -> Self {
        let pushes = shared.pushes.subscribe();
        Self {
            shared,
            number,
            peer,
            variant: config.variant,
            session: ServerSession::new(config),
            proxy: None,
            pushes,
            out,
            converging_since: None,
        }
    }

    /// Runs to the end; a status is passed on to the proxy.
    pub(crate) async fn run(mut self, mut requests: Streaming<Request>) {
        let mut shutdown = self.shared.shutdown.subscribe();
        let end = loop {
            let deadline = self.session.next_deadline().map(tokio::time::Instant::from_std);
            let until_deadline = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            let step = tokio::select! {
                request = requests.message() => match request {
                    Ok(Some(request)) => self.receive(request),
                    Ok(None) => Err(End::Gone),
                    Err(status) => {
                        tracing::debug!(stream = self.number, %status, "the stream broke");
                        Err(End::Told(status))
                    }
                },
                changed = self.pushes.changed() => match changed {
                    Ok(()) => {
                        self.pushes.mark_unchanged();
                        self.session.snapshot_published();
                        self.converging_since.get_or_insert_with(Instant::now);
                        Ok(())
                    }
                    Err(_) => Err(End::Told(shutting_down())),
                },
                () = until_deadline => Ok(()),
                _ = shutdown.wait_for(|shutting_down| *shutting_down) => Err(End::Told(shutting_down())),
            };
            let step = match step {
                Ok(()) => self.push().await,
                Err(end) => Err(end),
            };
            if let Err(end) = step {
                break end;
            }
            self.publish_status();
        };
        if let End::Told(status) = end {
            let _ = self.out.send(Err(status)).await;
        }
    }

    fn receive(&mut self, request: Request) -> Result<(), End> {
        self.session
            .handle_request(request)
            .map_err(|error| End::Told(Status::invalid_argument(error.to_string())))?;
        if self.proxy.is_none()
            && let Some(node) = self.session.node()
        {
            let view = self.shared.generation.view(node).map_err(|reason| {
                tracing::warn!(node = node.id, reason, "refusing a proxy");
                End::Told(Status::invalid_argument(reason))
            })?;
            self.introduce(node.clone());
            self.proxy = Some(view);
        }
        while let Some(event) = self.session.poll_event() {
            self.note(event);
        }
        Ok(())
    }

    fn introduce(&mut self, node: Node) {
        let connection_id = format!("{}-{}", node.id, self.number);
        tracing::info!(connection_id, peer = ?self.peer, variant = ?self.variant, "a proxy connected");
        let status = ProxyStatus {
            connection_id,
            node,
            peer: self.peer,
            variant: self.variant,
            connected_since: SystemTime::now(),
            types: Vec::new(),
        };
        self.shared.proxies.set(self.number, status);
    }

    fn note(&self, event: ServerEvent) {
        let node = self.session.node().map_or("", |node| node.id.as_str());
        match event {
            ServerEvent::Acked { type_url, nonce } => {
                tracing::debug!(node, r#type = type_url::short_name(&type_url), nonce, "acknowledged");
            }
            ServerEvent::Nacked { type_url, nonce, message } => {
                self.shared.metrics.rejects.add(&type_url);
                tracing::warn!(
                    node,
                    r#type = type_url::short_name(&type_url),
                    nonce,
                    message,
                    "refused by the proxy"
                );
            }
            ServerEvent::StaleNonce { type_url } => {
                self.shared.metrics.expired_nonces.add(&type_url);
                tracing::debug!(node, r#type = type_url::short_name(&type_url), "expired nonce");
            }
            ServerEvent::Warning(text) => tracing::warn!(node, "{text}"),
        }
    }

    /// Sends everything that is due.
    async fn push(&mut self) -> Result<(), End> {
        let Some(proxy) = self.proxy.clone() else { return Ok(()) };
        let started = Instant::now();
        let mut sent = false;
        while let Some(want) = self.session.poll_want(Instant::now()) {
            let snapshot = *self.shared.changes.borrow();
            let resources = self.resources(&proxy, &want);
            let Some(push) =
                self.session.supply(&want.type_url, &resources, &snapshot.to_string(), Instant::now())
            else {
                continue;
            };
            sent = true;
            self.shared.metrics.pushes.add(push.type_url());
            self.shared.metrics.observe_size(push.encoded_len());
            tracing::debug!(
                stream = self.number,
                r#type = type_url::short_name(push.type_url()),
                resources = push.resources().len(),
                removed = push.removed().len(),
                nonce = push.nonce(),
                "push"
            );
            self.out.send(Ok(push)).await.map_err(|_| End::Gone)?;
        }
        if sent {
            self.shared.metrics.observe_push(started.elapsed());
        }
        if self.session.is_idle()
            && let Some(since) = self.converging_since.take()
        {
            self.shared.metrics.observe_convergence(since.elapsed());
        }
        Ok(())
    }

    fn resources(&self, proxy: &G::View, want: &Want) -> Arc<[Resource]> {
        let generation = &self.shared.generation;
        match (want.wildcard, want.names.is_empty()) {
            (true, true) => generation.resources(proxy, &want.type_url, None),
            (false, false) => generation.resources(proxy, &want.type_url, Some(&want.names)),
            (false, true) => Arc::default(),
            (true, false) => {
                // Of a name that is in both, the first one counts.
                let everything = generation.resources(proxy, &want.type_url, None);
                let named = generation.resources(proxy, &want.type_url, Some(&want.names));
                everything.iter().chain(&*named).cloned().collect()
            }
        }
    }

    fn publish_status(&self) {
        if self.proxy.is_some() {
            self.shared.proxies.set_types(self.number, self.session.status().collect());
        }
    }
}

impl<G: Generation> Drop for ProxyStream<G> {
    fn drop(&mut self) {
        self.shared.proxies.remove(self.number);
    }
}

fn shutting_down() -> Status {
    Status::unavailable("the server is shutting down")
}
