//! One state of the mesh, with what has been generated from it so far.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use dhow_control_generate::{generate, resource};
use dhow_control_model::push::{Notice, Objects, Proxy, PushContext};
use dhow_control_model::{MeshConfig, Object};
use dhow_control_sources::{Directory, Problem};
use dhow_xds::{Resource, type_url};
use parking_lot::Mutex;

/// What a proxy gets, encoded.
#[derive(Debug)]
pub(crate) struct ProxyResources {
    pub clusters: Arc<[Resource]>,
    pub endpoints: Arc<[Resource]>,
    pub listeners: Arc<[Resource]>,
    pub routes: Arc<[Resource]>,
    pub notices: Vec<Notice>,
}

impl ProxyResources {
    /// The resources of a type; none of a type that is not generated.
    pub fn of_type(&self, type_url: &str) -> Arc<[Resource]> {
        match type_url {
            type_url::CLUSTER => self.clusters.clone(),
            type_url::ENDPOINT => self.endpoints.clone(),
            type_url::LISTENER => self.listeners.clone(),
            type_url::ROUTE => self.routes.clone(),
            _ => Arc::from([]),
        }
    }
}

/// One state of the mesh.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub push: PushContext,
    pub objects: Vec<Arc<Object>>,
    pub problems: Vec<Problem>,
    generated: Mutex<HashMap<Proxy, Arc<OnceLock<Arc<ProxyResources>>>>>,
}

/// What a snapshot is made of.
#[derive(Debug, Clone)]
pub(crate) struct Inputs {
    pub objects: Vec<Arc<Object>>,
    pub problems: Vec<Problem>,
    pub mesh: MeshConfig,
}

impl Inputs {
    /// The directory as it is, and MeshConfig.
    pub fn new(directory: &Directory, mesh: MeshConfig) -> Self {
        Self {
            objects: directory.objects().cloned().collect(),
            problems: directory.problems().to_vec(),
            mesh,
        }
    }
}

impl Snapshot {
    /// The state that the inputs describe.
    pub fn new(inputs: Inputs, domain: &str) -> Self {
        let Inputs { objects, problems, mesh } = inputs;
        let sorted = Objects::collect(objects.iter().map(|object| &**object));
        Self { push: PushContext::new(sorted, mesh, domain), objects, problems, generated: Mutex::default() }
    }

    /// What the proxy gets, generated once. `share` may replace a resource by an equal one that is in use already.
    pub fn resources(&self, proxy: &Proxy, share: impl Fn(Resource) -> Resource) -> Arc<ProxyResources> {
        let slot = self.generated.lock().entry(proxy.clone()).or_default().clone();
        // Two streams of one proxy may ask at once; the lock is not held while generating for it.
        slot.get_or_init(|| Arc::new(encode(&self.push, proxy, share))).clone()
    }
}

fn encode(push: &PushContext, proxy: &Proxy, share: impl Fn(Resource) -> Resource) -> ProxyResources {
    let configuration = generate(push, proxy);
    ProxyResources {
        clusters: configuration
            .clusters
            .iter()
            .map(|message| share(resource(&message.name, message)))
            .collect(),
        endpoints: configuration
            .endpoints
            .iter()
            .map(|message| share(resource(&message.cluster_name, message)))
            .collect(),
        listeners: configuration
            .listeners
            .iter()
            .map(|message| share(resource(&message.name, message)))
            .collect(),
        routes: configuration.routes.iter().map(|message| share(resource(&message.name, message))).collect(),
        notices: configuration.notices,
    }
}
