//! Search of a host name among exact names, names that begin or end with a wildcard, and `*`.

use foldhash::fast::FixedState;
use hashbrown::HashMap;

/// Values by domain, with the precedence of Envoy's virtual hosts: exact, then `*.suffix` with the longest suffix, then `prefix.*` with the
/// longest prefix, then `*`. A search costs one hash lookup per distinct length of wildcard, however many domains there are.
#[derive(Clone, Debug)]
pub struct DomainIndex<T> {
    exact: Names<T>,
    suffixes: ByLength<T>,
    prefixes: ByLength<T>,
    any: Option<T>,
}

/// Wildcards by the length of their text, longest first.
type ByLength<T> = Vec<(usize, Names<T>)>;

/// How a domain was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DomainMatch {
    /// The name itself.
    Exact,
    /// A `*suffix`.
    Suffix,
    /// A `prefix*`.
    Prefix,
    /// `*`.
    Any,
}

impl<T> Default for DomainIndex<T> {
    fn default() -> Self {
        Self { exact: HashMap::default(), suffixes: Vec::new(), prefixes: Vec::new(), any: None }
    }
}

impl<T> DomainIndex<T> {
    /// Adds a domain; the case of its letters does not count. False, and nothing added, when the domain is already there.
    pub fn insert(&mut self, domain: &str, value: T) -> bool {
        let domain = domain.to_ascii_lowercase();
        if domain == "*" {
            let free = self.any.is_none();
            if free {
                self.any = Some(value);
            }
            return free;
        }
        if let Some(suffix) = domain.strip_prefix('*') {
            return insert_by_length(&mut self.suffixes, suffix, value);
        }
        if let Some(prefix) = domain.strip_suffix('*') {
            return insert_by_length(&mut self.prefixes, prefix, value);
        }
        insert(&mut self.exact, &domain, value)
    }

    /// The value for a host, which must be in lower case.
    pub fn find(&self, host: &[u8]) -> Option<(&T, DomainMatch)> {
        if let Some(value) = self.exact.get(host) {
            return Some((value, DomainMatch::Exact));
        }
        // The wildcard stands for at least one character.
        for (length, suffixes) in &self.suffixes {
            if host.len() > *length
                && let Some(value) = suffixes.get(&host[host.len() - length..])
            {
                return Some((value, DomainMatch::Suffix));
            }
        }
        for (length, prefixes) in &self.prefixes {
            if host.len() > *length
                && let Some(value) = prefixes.get(&host[..*length])
            {
                return Some((value, DomainMatch::Prefix));
            }
        }
        self.any.as_ref().map(|value| (value, DomainMatch::Any))
    }

    /// Whether `*` is the only domain, so that no name needs to be looked at.
    pub fn only_any(&self) -> Option<&T> {
        let others = !self.exact.is_empty() || !self.suffixes.is_empty() || !self.prefixes.is_empty();
        self.any.as_ref().filter(|_| !others)
    }
}

type Names<T> = HashMap<Box<[u8]>, T, FixedState>;

fn insert<T>(names: &mut Names<T>, name: &str, value: T) -> bool {
    names.try_insert(name.as_bytes().into(), value).is_ok()
}

fn insert_by_length<T>(groups: &mut ByLength<T>, text: &str, value: T) -> bool {
    let at = match groups.binary_search_by(|(length, _)| text.len().cmp(length)) {
        Ok(at) => at,
        Err(at) => {
            groups.insert(at, (text.len(), HashMap::default()));
            at
        }
    };
    insert(&mut groups[at].1, text, value)
}
