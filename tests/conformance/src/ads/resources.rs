//! The resources of the management server.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use dhow_proto::google::protobuf::Any;
use serde_json::Value;

use super::AdsChange;

/// Start of every type URL.
const PREFIX: &str = "type.googleapis.com/";

/// Where a resource of each type has its name.
const NAME_FIELDS: &[&str] = &["name", "cluster_name"];

/// One resource.
#[derive(Debug, Clone)]
pub struct Resource {
    /// Counts the changes of the whole server; text in messages.
    pub version: u64,
    /// The encoded resource.
    pub any: Any,
}

/// All resources, by type URL and name.
#[derive(Debug, Default)]
pub struct Resources {
    version: u64,
    by_type: BTreeMap<String, BTreeMap<String, Resource>>,
}

impl Resources {
    /// The version after the latest change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The resources of a type.
    pub fn of(&self, type_url: &str) -> BTreeMap<String, Resource> {
        self.by_type.get(type_url).cloned().unwrap_or_default()
    }

    /// Adds, replaces and removes resources.
    pub fn apply(&mut self, change: &AdsChange) -> Result<()> {
        self.version += 1;
        for value in &change.set {
            let (type_url, name, any) = encode(value)?;
            let resource = Resource { version: self.version, any };
            self.by_type.entry(type_url).or_default().insert(name, resource);
        }
        for removed in &change.remove {
            let (short, name) =
                removed.split_once(' ').with_context(|| format!("`{removed}` is not `Message name`"))?;
            let found = self.by_type.iter_mut().filter(|(url, _)| short_name(url) == short);
            let count = found.filter_map(|(_, resources)| resources.remove(name)).count();
            anyhow::ensure!(count == 1, "there is no resource `{removed}` to remove");
        }
        Ok(())
    }
}

/// The message's own name: `Cluster` for `type.googleapis.com/envoy.config.cluster.v3.Cluster`.
pub fn short_name(type_url: &str) -> &str {
    type_url.rsplit('.').next().unwrap_or(type_url)
}

fn encode(value: &Value) -> Result<(String, String, Any)> {
    let mut fields = value.as_object().context("a resource is a mapping")?.clone();
    let type_url = fields.shift_remove("@type").context("a resource needs its `@type`")?;
    let type_url = type_url.as_str().context("`@type` is text")?.to_owned();
    let name = NAME_FIELDS.iter().find_map(|field| fields.get(*field)?.as_str());
    let name = name.context("a resource needs its name")?.to_owned();
    let type_name =
        type_url.strip_prefix(PREFIX).with_context(|| format!("`{type_url}` is not a type URL"))?;
    let bytes = dhow_proto::encode_json(type_name, &Value::Object(fields))
        .map_err(|error| anyhow::anyhow!("resource {name}: {error}"))?;
    Ok((type_url.clone(), name, Any { type_url, value: bytes }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";

    #[test]
    fn every_change_raises_the_version_of_what_it_sets() {
        let mut resources = Resources::default();
        let set = |name: &str| json!({ "@type": CLUSTER, "name": name });
        resources.apply(&AdsChange { set: vec![set("a"), set("b")], ..AdsChange::default() }).unwrap();
        resources.apply(&AdsChange { set: vec![set("a")], ..AdsChange::default() }).unwrap();
        let versions: Vec<_> = resources.of(CLUSTER).into_iter().map(|(n, r)| (n, r.version)).collect();
        assert_eq!(versions, [("a".to_owned(), 2), ("b".to_owned(), 1)]);
        resources.apply(&AdsChange { remove: vec!["Cluster a".into()], ..AdsChange::default() }).unwrap();
        assert_eq!(resources.of(CLUSTER).len(), 1);
        assert!(
            resources.apply(&AdsChange { remove: vec!["Cluster a".into()], ..AdsChange::default() }).is_err()
        );
    }

    #[test]
    fn a_resource_without_type_or_with_an_unknown_field_is_refused() {
        let refused = |value| {
            Resources::default().apply(&AdsChange { set: vec![value], ..AdsChange::default() }).is_err()
        };
        assert!(refused(json!({ "name": "a" })));
        assert!(refused(json!({ "@type": CLUSTER, "name": "a", "no_such_field": 1 })));
    }
}
