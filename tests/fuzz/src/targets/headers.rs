//! The header map and edits of headers, beside a plain list.

use dhow_base::{FieldPath, Rng};
use dhow_expr::EmptyContext;
use dhow_http::{HeaderMap, HeaderName};
use dhow_proto::envoy::config::common::mutation_rules::v3::HeaderMutation;
use dhow_proto::envoy::config::common::mutation_rules::v3::header_mutation::Action;
use dhow_proto::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use dhow_proto::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use dhow_routing::HeaderEdit;

use super::Target;
use crate::input::{Input, noise};

/// The map.
pub const MAP: Target = Target {
    name: "header-map",
    about: "any sequence of calls leaves the map as it would leave a list of pairs",
    run: map,
    generate: |rng: &mut Rng| noise(rng, 200),
};

/// Header mutations.
pub const EDITS: Target = Target {
    name: "header-edits",
    about: "the four ways to append, and removal, do to headers what they do to a list of pairs",
    run: edits,
    generate: |rng: &mut Rng| noise(rng, 120),
};

/// Names that are stored by number and names that are stored as text.
const NAMES: [&str; 10] = [
    "via",
    "server",
    "x-request-id",
    "content-type",
    "x-a",
    "x-b",
    "x-ab",
    "cookie",
    "x-envoy-attempt-count",
    "y",
];

/// Names that [`EDITS`] edits: of a header that Envoy keeps in one slot, values that are appended are joined.
const EDITED: [&str; 5] = ["x-a", "x-b", "x-ab", "y", "set-cookie"];

/// A list of pairs that does what the map does.
#[derive(Default)]
struct List(Vec<(&'static str, Vec<u8>)>);

impl List {
    fn first(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(other, _)| *other == name).map(|(_, value)| &value[..])
    }

    fn remove(&mut self, name: &str) {
        self.0.retain(|(other, _)| *other != name);
    }

    fn same_as(&self, map: &HeaderMap) {
        let listed: Vec<(&[u8], &[u8])> =
            self.0.iter().map(|(name, value)| (name.as_bytes(), &value[..])).collect();
        let mapped: Vec<(&[u8], &[u8])> = map.iter().map(|(_, name, value)| (name, value)).collect();
        assert_eq!(mapped, listed);
        assert_eq!((map.len(), map.is_empty()), (listed.len(), listed.is_empty()));
        for name in NAMES {
            assert_eq!(map.get_str(name), self.first(name), "{name}");
            let key = HeaderName::new(name);
            assert_eq!(map.contains(&key), self.first(name).is_some(), "{name}");
            let all: Vec<&[u8]> = map.get_all(&key).collect();
            let values = self.0.iter().filter(|(other, _)| *other == name).map(|(_, value)| &value[..]);
            assert_eq!(all, values.collect::<Vec<_>>(), "{name}");
        }
    }
}

fn map(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (mut map, mut list) = (HeaderMap::new(), List::default());
    while !input.is_empty() {
        let name = input.pick(&NAMES);
        let key = HeaderName::new(name);
        match input.below(6) {
            0 | 1 => {
                let value = input.bytes();
                map.append(name.as_bytes(), value);
                list.0.push((name, value.to_vec()));
            }
            2 => {
                let value = input.bytes();
                map.append_name(&key, value);
                list.0.push((name, value.to_vec()));
            }
            3 => {
                let value = input.bytes();
                map.set(&key, value);
                // The first one is replaced where it stands.
                match list.0.iter().position(|(other, _)| *other == name) {
                    Some(at) => {
                        let mut index = 0;
                        list.0.retain(|(other, _)| {
                            index += 1;
                            *other != name || index == at + 1
                        });
                        list.0[at].1 = value.to_vec();
                    }
                    None => list.0.push((name, value.to_vec())),
                }
            }
            4 => {
                let there = list.first(name).is_some();
                assert_eq!(map.remove(&key), there);
                list.remove(name);
            }
            _ => {
                let letter = input.pick(b"axy");
                map.retain(|_, name, _| name[0] != letter);
                list.0.retain(|(name, _)| name.as_bytes()[0] != letter);
            }
        }
        list.same_as(&map);
    }
}

fn edits(bytes: &[u8]) {
    use HeaderAppendAction::{AddIfAbsent, AppendIfExistsOrAdd, OverwriteIfExists, OverwriteIfExistsOrAdd};
    let mut input = Input::new(bytes);
    let (mut map, mut list) = (HeaderMap::new(), List::default());
    while !input.is_empty() {
        let name = input.pick(&EDITED);
        let value = input.word(b"ab ", 4);
        let value = value.trim().to_owned();
        let append =
            input.pick(&[AppendIfExistsOrAdd, AddIfAbsent, OverwriteIfExistsOrAdd, OverwriteIfExists]);
        let removes = input.below(5) == 0;
        let keep_empty_value = input.flag();
        let action = match removes {
            true => Action::Remove(name.to_owned()),
            false => Action::Append(HeaderValueOption {
                header: Some(HeaderValue {
                    key: name.to_owned(),
                    value: value.clone(),
                    ..HeaderValue::default()
                }),
                append_action: append as i32,
                keep_empty_value,
                ..HeaderValueOption::default()
            }),
        };
        let message = HeaderMutation { action: Some(action) };
        let edit = HeaderEdit::compile(&message, &FieldPath::root()).expect("the edit is valid");
        match input.flag() {
            true => edit.apply_to_request(&mut map, &EmptyContext),
            false => edit.apply_to_response(&mut map, &EmptyContext),
        }
        let there = list.first(name).is_some();
        let drops = value.is_empty() && !keep_empty_value;
        match (removes, append) {
            (true, _) => list.remove(name),
            _ if drops => {}
            (false, AppendIfExistsOrAdd) => list.0.push((name, value.into_bytes())),
            (false, AddIfAbsent) if there => {}
            (false, OverwriteIfExists) if !there => {}
            (false, _) => {
                list.remove(name);
                list.0.push((name, value.into_bytes()));
            }
        }
        same_values(&map, &list);
    }
}

/// The same values for each name; where a replaced header stands is not part of the property.
fn same_values(map: &HeaderMap, list: &List) {
    for name in EDITED {
        let mapped: Vec<&[u8]> =
            map.iter().filter(|(_, other, _)| *other == name.as_bytes()).map(|(_, _, value)| value).collect();
        let listed = list.0.iter().filter(|(other, _)| *other == name).map(|(_, value)| &value[..]);
        assert_eq!(mapped, listed.collect::<Vec<_>>(), "{name}");
    }
}
