//! Keys and values that select a subset of a cluster's hosts, prepared so that a lookup hashes one string of bytes.

use dhow_proto::envoy::config::core::v3::Metadata;
use dhow_proto::google::protobuf::{Struct, Value, value::Kind};

/// The namespace of metadata that load balancing reads.
const LB_NAMESPACE: &str = "envoy.lb";
/// The key under which a route lists alternatives (`metadata_fallback_policy: FALLBACK_LIST`).
const FALLBACK_LIST: &str = "fallback_list";

/// The `envoy.lb` part of a `metadata_match`, ordered by key. Values are equal as a whole: a list equals only the same list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MetadataCriteria {
    pairs: Box<[Pair]>,
    lookup: Box<[u8]>,
    /// Present when there is a `fallback_list`: what to look up instead, in order.
    alternatives: Option<Box<[MetadataCriteria]>>,
}

#[derive(Clone, Debug, PartialEq)]
struct Pair {
    key: Box<str>,
    /// Kept for `fallback_list` and further merging.
    value: Value,
    /// The value in a form in which equal values are equal bytes.
    canonical: Box<[u8]>,
}

impl MetadataCriteria {
    /// The criteria in a route's or weighted cluster's `metadata_match`; `None` when it says nothing to load balancing.
    pub fn of_metadata(metadata: &Metadata) -> Option<Self> {
        metadata.filter_metadata.get(LB_NAMESPACE).map(Self::of_struct)
    }

    /// The criteria that a struct of the namespace `envoy.lb` stands for.
    pub fn of_struct(fields: &Struct) -> Self {
        Self::default().merged(fields)
    }

    /// These criteria with those of `over` added; of a key in both the value of `over` stands.
    #[must_use]
    pub fn merged(&self, over: &Struct) -> Self {
        let mut pairs: Vec<Pair> =
            self.pairs.iter().filter(|pair| !over.fields.contains_key(&*pair.key)).cloned().collect();
        pairs.extend(over.fields.iter().map(|(key, value)| Pair {
            key: key.as_str().into(),
            value: value.clone(),
            canonical: canonical(value),
        }));
        Self::of_pairs(pairs)
    }

    /// As [`MetadataCriteria::merged`], with other criteria.
    #[must_use]
    pub fn merged_with_criteria(&self, over: &Self) -> Self {
        let known = |key: &str| over.pairs.iter().any(|pair| &*pair.key == key);
        let kept = self.pairs.iter().filter(|pair| !known(&pair.key));
        Self::of_pairs(kept.chain(&over.pairs[..]).cloned().collect())
    }

    /// The criteria whose keys `keep` accepts.
    #[must_use]
    pub fn restricted(&self, keep: impl Fn(&str) -> bool) -> Self {
        Self::of_pairs(self.pairs.iter().filter(|pair| keep(&pair.key)).cloned().collect())
    }

    /// What a subset is found by.
    #[inline]
    pub fn lookup_key(&self) -> &[u8] {
        &self.lookup
    }

    /// The keys in order.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &str> {
        self.pairs.iter().map(|pair| &*pair.key)
    }

    /// What a `fallback_list` asks to be tried in order, each entry over the other criteria; those alone when the list is
    /// empty. `None` without a list.
    pub fn alternatives(&self) -> Option<&[Self]> {
        self.alternatives.as_deref()
    }

    fn of_pairs(mut pairs: Vec<Pair>) -> Self {
        pairs.sort_by(|a, b| a.key.cmp(&b.key));
        let lookup = lookup_key(pairs.iter().map(|pair| (&*pair.key, &*pair.canonical)));
        let list = pairs.iter().position(|pair| &*pair.key == FALLBACK_LIST);
        let alternatives = list.and_then(|at| {
            let Some(Kind::ListValue(list)) = &pairs[at].value.kind else {
                return None;
            };
            let mut rest = pairs.clone();
            rest.remove(at);
            let rest = Self::of_pairs(rest);
            let entries = list.values.iter().filter_map(|value| match &value.kind {
                Some(Kind::StructValue(fields)) => Some(rest.merged(fields)),
                _ => None,
            });
            let entries: Box<[Self]> = entries.collect();
            Some(if entries.is_empty() { Box::new([rest]) } else { entries })
        });
        Self { pairs: pairs.into(), lookup, alternatives }
    }
}

/// The lookup key of keys in order with their values in canonical form; see [`canonical`].
pub fn lookup_key<'a>(pairs: impl Iterator<Item = (&'a str, &'a [u8])>) -> Box<[u8]> {
    let mut out = Vec::new();
    for (key, value) in pairs {
        put(&mut out, key.as_bytes());
        put(&mut out, value);
    }
    out.into()
}

/// A value as bytes that are equal exactly when the values are.
pub fn canonical(value: &Value) -> Box<[u8]> {
    let mut out = Vec::new();
    write_value(&mut out, value);
    out.into()
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u32).to_le_bytes());
    out.extend(bytes);
}

fn write_value(out: &mut Vec<u8>, value: &Value) {
    match &value.kind {
        None => out.push(b'-'),
        Some(Kind::NullValue(_)) => out.push(b'0'),
        Some(Kind::BoolValue(value)) => out.extend([b'b', u8::from(*value)]),
        Some(Kind::NumberValue(value)) => {
            out.push(b'n');
            // Zero has two signs and one value.
            let value = if *value == 0.0 { 0.0 } else { *value };
            out.extend(value.to_bits().to_le_bytes());
        }
        Some(Kind::StringValue(value)) => {
            out.push(b's');
            put(out, value.as_bytes());
        }
        Some(Kind::ListValue(list)) => {
            out.push(b'l');
            out.extend((list.values.len() as u32).to_le_bytes());
            list.values.iter().for_each(|value| write_value(out, value));
        }
        Some(Kind::StructValue(fields)) => {
            out.push(b'o');
            let mut keys: Vec<&String> = fields.fields.keys().collect();
            keys.sort();
            out.extend((keys.len() as u32).to_le_bytes());
            for key in keys {
                put(out, key.as_bytes());
                write_value(out, &fields.fields[key]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use dhow_proto::google::protobuf::{ListValue, Struct, Value, value::Kind};

    use super::MetadataCriteria;

    fn text(value: &str) -> Value {
        Value { kind: Some(Kind::StringValue(value.to_owned())) }
    }

    fn fields(pairs: &[(&str, Value)]) -> Struct {
        Struct { fields: pairs.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect() }
    }

    fn criteria(pairs: &[(&str, &str)]) -> MetadataCriteria {
        let pairs: Vec<_> = pairs.iter().map(|(key, value)| (*key, text(value))).collect();
        MetadataCriteria::of_struct(&fields(&pairs))
    }

    #[test]
    fn the_order_of_keys_does_not_matter_and_values_do() {
        assert_eq!(criteria(&[("a", "1"), ("b", "2")]), criteria(&[("b", "2"), ("a", "1")]));
        assert_ne!(criteria(&[("a", "1")]).lookup_key(), criteria(&[("a", "2")]).lookup_key());
        assert_ne!(criteria(&[("ab", "c")]).lookup_key(), criteria(&[("a", "bc")]).lookup_key());
        let number =
            MetadataCriteria::of_struct(&fields(&[("a", Value { kind: Some(Kind::NumberValue(1.0)) })]));
        assert_ne!(number.lookup_key(), criteria(&[("a", "1")]).lookup_key());
    }

    #[test]
    fn merging_replaces_by_key() {
        let merged = criteria(&[("stage", "prod"), ("version", "1")])
            .merged(&fields(&[("version", text("2")), ("x", text("y"))]));
        assert_eq!(merged, criteria(&[("stage", "prod"), ("version", "2"), ("x", "y")]));
        assert_eq!(merged.restricted(|key| key == "version"), criteria(&[("version", "2")]));
        assert_eq!(merged.keys().collect::<Vec<_>>(), ["stage", "version", "x"]);
    }

    #[test]
    fn a_fallback_list_gives_alternatives_over_the_rest() {
        let entry =
            |value: &str| Value { kind: Some(Kind::StructValue(fields(&[("version", text(value))]))) };
        let list = |values: Vec<Value>| Value { kind: Some(Kind::ListValue(ListValue { values })) };
        let of = |values| {
            MetadataCriteria::of_struct(&fields(&[("stage", text("prod")), ("fallback_list", list(values))]))
        };
        let both = of(vec![entry("1"), entry("2")]);
        let expected = [
            criteria(&[("stage", "prod"), ("version", "1")]),
            criteria(&[("stage", "prod"), ("version", "2")]),
        ];
        assert_eq!(both.alternatives().expect("there is a list"), expected);
        assert_eq!(of(Vec::new()).alternatives().expect("there is a list"), [criteria(&[("stage", "prod")])]);
        assert!(criteria(&[("stage", "prod")]).alternatives().is_none());
    }
}
