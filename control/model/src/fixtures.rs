//! Objects for tests, written as manifests.

use dhow_yaml::{Dialect, parse};

use crate::push::{Interception, Locality, Objects, Proxy, ProxyType, PushContext};
use crate::{Decoded, Labels, MeshConfig, Object, Origin, decode};

pub(crate) fn objects(text: &str) -> Vec<Object> {
    let documents = parse(text, Dialect::Kubernetes).unwrap();
    let decoded =
        documents.iter().map(|document| decode(document.root.to_json(), "default", Origin::default()));
    decoded
        .map(|outcome| match outcome {
            Ok(Decoded::Object(object)) => *object,
            other => panic!("{other:?}"),
        })
        .collect()
}

pub(crate) fn push(text: &str) -> PushContext {
    push_with(text, MeshConfig::default())
}

pub(crate) fn push_with(text: &str, mesh: MeshConfig) -> PushContext {
    PushContext::new(Objects::collect(&objects(text)), mesh, "cluster.local")
}

pub(crate) fn proxy(proxy_type: ProxyType, ip: &str, namespace: &str, labels: &[(&str, &str)]) -> Proxy {
    Proxy {
        proxy_type,
        ips: vec![ip.parse().unwrap()],
        id: format!("test.{namespace}"),
        namespace: namespace.to_owned(),
        dns_domain: format!("{namespace}.svc.cluster.local"),
        labels: labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        annotations: Labels::new(),
        cluster_id: String::new(),
        interception: Interception::Redirect,
        http_proxy_port: None,
        locality: Locality::default(),
    }
}
