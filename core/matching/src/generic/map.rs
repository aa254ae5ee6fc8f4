//! Trees: what a text leads to, by exact text, by prefix, by address, by domain. A lookup costs as many hashes as there are
//! distinct lengths, however many entries there are.

use std::net::IpAddr;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::cidr::Cidr;

type Texts<T> = HashMap<Box<[u8]>, T, FixedState>;

/// Texts by their length, longest first.
type ByLength<T> = Vec<(usize, Texts<T>)>;

/// Values by text.
#[derive(Clone, Debug)]
pub(super) enum TextMap<T> {
    Exact(Texts<T>),
    Prefix(ByLength<T>),
    Address(AddressMap<T>),
    Domain(DomainMap<T>),
}

impl<T> TextMap<T> {
    pub(super) fn exact(entries: impl Iterator<Item = (String, T)>) -> Self {
        Self::Exact(entries.map(|(text, value)| (text.into_bytes().into(), value)).collect())
    }

    pub(super) fn prefix(entries: impl Iterator<Item = (String, T)>) -> Self {
        let mut lengths = ByLength::new();
        for (text, value) in entries {
            of_length(&mut lengths, text.len()).insert(text.into_bytes().into(), value);
        }
        Self::Prefix(lengths)
    }

    /// The first result that is something, of the values that have the text, the most specific first.
    pub(super) fn find<'a, R>(&'a self, text: &[u8], mut visit: impl FnMut(&'a T) -> Option<R>) -> Option<R> {
        match self {
            Self::Exact(map) => visit(map.get(text)?),
            Self::Prefix(lengths) => {
                lengths.iter().filter_map(|(length, map)| map.get(text.get(..*length)?)).find_map(visit)
            }
            Self::Address(map) => map.find(std::str::from_utf8(text).ok()?.parse().ok()?, visit),
            Self::Domain(map) => map.find(text, visit),
        }
    }

    pub(super) fn for_each(&self, visit: &mut dyn FnMut(&T)) {
        match self {
            Self::Exact(map) => map.values().for_each(visit),
            Self::Prefix(lengths) => lengths.iter().flat_map(|(_, map)| map.values()).for_each(visit),
            Self::Address(map) => map.values.iter().for_each(|(value, _)| visit(value)),
            Self::Domain(map) => map.values.iter().for_each(visit),
        }
    }
}

/// The texts of a length, which gets its place when it is new.
fn of_length<T>(lengths: &mut ByLength<T>, length: usize) -> &mut Texts<T> {
    let at = match lengths.binary_search_by(|(other, _)| length.cmp(other)) {
        Ok(at) => at,
        Err(at) => {
            lengths.insert(at, (length, HashMap::default()));
            at
        }
    };
    &mut lengths[at].1
}

/// Positions of values by range.
type Positions = HashMap<Cidr, Vec<u32>, FixedState>;

/// Values by address range; several may have the same range, in order.
#[derive(Clone, Debug)]
pub(super) struct AddressMap<T> {
    /// By prefix length, longest first.
    lengths: Vec<(u8, Positions)>,
    /// Each with whether it counts only as the most specific one.
    values: Vec<(T, bool)>,
}

impl<T> AddressMap<T> {
    pub(super) fn new() -> Self {
        Self { lengths: Vec::new(), values: Vec::new() }
    }

    pub(super) fn insert(&mut self, ranges: impl Iterator<Item = Cidr>, value: T, exclusive: bool) {
        let position = self.values.len() as u32;
        for range in ranges {
            let length = range.prefix_length();
            let at = match self.lengths.binary_search_by(|(other, _)| length.cmp(other)) {
                Ok(at) => at,
                Err(at) => {
                    self.lengths.insert(at, (length, HashMap::default()));
                    at
                }
            };
            self.lengths[at].1.entry(range).or_default().push(position);
        }
        self.values.push((value, exclusive));
    }

    fn find<'a, R>(&'a self, address: IpAddr, mut visit: impl FnMut(&'a T) -> Option<R>) -> Option<R> {
        let mut first = true;
        for (length, map) in &self.lengths {
            // A length beyond the address's is cut, and then not looked up a second time.
            let range = Cidr::new(address, *length);
            if range.prefix_length() != *length {
                continue;
            }
            for &position in map.get(&range).into_iter().flatten() {
                let (value, exclusive) = &self.values[position as usize];
                if *exclusive && !first {
                    continue;
                }
                first = false;
                if let Some(result) = visit(value) {
                    return Some(result);
                }
            }
        }
        None
    }
}

/// Values by domain: the name itself, `*.suffix` with the longest suffix first, `*`.
#[derive(Clone, Debug)]
pub(super) struct DomainMap<T> {
    values: Vec<T>,
    exact: Texts<u32>,
    suffixes: ByLength<u32>,
    any: Option<u32>,
}

impl<T> DomainMap<T> {
    pub(super) fn new() -> Self {
        Self { values: Vec::new(), exact: HashMap::default(), suffixes: Vec::new(), any: None }
    }

    /// Adds a value under all of its domains.
    ///
    /// # Errors
    /// Of a domain that is empty, already there, or not of a supported form, by its index; in Envoy's words.
    pub(super) fn insert(&mut self, domains: &[String], value: T) -> Result<(), (usize, String)> {
        let position = self.values.len() as u32;
        for (at, domain) in domains.iter().enumerate() {
            let taken = match domain.as_str() {
                "" => return Err((at, "Empty domain in ServerNameMatcher".to_owned())),
                "*" => self.any.replace(position).is_some(),
                wildcard if wildcard.contains('*') => {
                    let Some(suffix) = suffix_of(wildcard) else {
                        let reason = format!(
                            "Invalid wildcard domain format: {domain}. Only '*' and '*.domain' patterns are supported"
                        );
                        return Err((at, reason));
                    };
                    of_length(&mut self.suffixes, suffix.len()).insert(suffix.into(), position).is_some()
                }
                exact => self.exact.insert(exact.as_bytes().into(), position).is_some(),
            };
            if taken {
                return Err((at, format!("Duplicate domain in ServerNameMatcher: {domain}")));
            }
        }
        self.values.push(value);
        Ok(())
    }

    fn find<'a, R>(&'a self, name: &[u8], visit: impl FnMut(&'a T) -> Option<R>) -> Option<R> {
        let suffixes = self.suffixes.iter().filter_map(|(length, map)| {
            let start = name.len().checked_sub(*length).filter(|start| *start > 0)?;
            map.get(&name[start..])
        });
        let found = self.exact.get(name).into_iter().chain(suffixes).chain(&self.any);
        found.map(|&position| &self.values[position as usize]).find_map(visit)
    }
}

/// `.domain` of `*.domain`.
fn suffix_of(wildcard: &str) -> Option<&[u8]> {
    let suffix = wildcard.strip_prefix('*')?;
    (suffix.len() > 1 && suffix.starts_with('.') && !suffix.contains('*')).then_some(suffix.as_bytes())
}
