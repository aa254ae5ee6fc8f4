//! Consistent hashing: the ring and the Maglev table, entry by entry as Envoy builds them, so that a client sticks to
//! its host across a mixed fleet.

use std::sync::Arc;

use twox_hash::XxHash64;

use crate::host::Host;

/// The hash function of a ring (`hash_function`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HashFunction {
    /// `XX_HASH`.
    #[default]
    XxHash,
    /// `MURMUR_HASH_2`, compatible with `std::hash<string>` of libstdc++.
    MurmurHash2,
}

/// What a table is built from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableConfig {
    /// `RING_HASH`.
    Ring {
        /// `minimum_ring_size`; 1024 by default, at most 8 Mi.
        minimum: u64,
        /// `maximum_ring_size`; 8 Mi by default.
        maximum: u64,
        /// `hash_function`.
        function: HashFunction,
        /// `use_hostname_for_hashing`.
        by_hostname: bool,
    },
    /// `MAGLEV`.
    Maglev {
        /// `table_size`, a prime; 65537 by default.
        size: u64,
        /// `use_hostname_for_hashing`.
        by_hostname: bool,
    },
}

/// A table that maps hashes to hosts.
#[derive(Debug)]
pub struct HashTable {
    entries: Entries,
    hosts: Box<[Arc<Host>]>,
    /// The share of each host, summing up to 1.
    shares: Box<[f64]>,
}

#[derive(Debug)]
enum Entries {
    /// Points on a ring, in order: the hash of each and the index of its host.
    Ring(Vec<(u64, u32)>),
    /// The index of the host of each slot.
    Maglev(Vec<u32>),
}

impl TableConfig {
    /// `use_hostname_for_hashing`.
    pub fn by_hostname(&self) -> bool {
        match *self {
            Self::Ring { by_hostname, .. } | Self::Maglev { by_hostname, .. } => by_hostname,
        }
    }

    /// Builds the table over hosts and their shares, which sum up to 1.
    pub fn build(&self, hosts: &[(Arc<Host>, f64)]) -> HashTable {
        let entries = match *self {
            Self::Ring { minimum, maximum, function, by_hostname } => {
                Entries::Ring(ring(hosts, minimum, maximum, function, by_hostname))
            }
            Self::Maglev { size, by_hostname } => Entries::Maglev(maglev(hosts, size, by_hostname)),
        };
        HashTable {
            entries,
            hosts: hosts.iter().map(|(host, _)| host.clone()).collect(),
            shares: hosts.iter().map(|(_, share)| *share).collect(),
        }
    }
}

impl HashTable {
    /// The host for `hash`. `attempt` counts the hosts that the caller refused before.
    pub fn choose(&self, hash: u64, attempt: u32) -> Option<&Arc<Host>> {
        self.hosts.get(self.index(hash, attempt)?)
    }

    /// The position among [`HashTable::hosts`] of the host for `hash`.
    pub(super) fn index(&self, hash: u64, attempt: u32) -> Option<usize> {
        match &self.entries {
            Entries::Ring(points) => {
                let found = points.partition_point(|(point, _)| *point < hash) + attempt as usize;
                points.get(found % points.len().max(1)).map(|(_, host)| *host as usize)
            }
            Entries::Maglev(slots) => {
                let hash = if attempt > 0 { hash ^ (u64::MAX - u64::from(attempt) + 1) } else { hash };
                let slot = hash.checked_rem(slots.len() as u64)?;
                Some(slots[slot as usize] as usize)
            }
        }
    }

    /// The hosts of the table.
    pub(super) fn hosts(&self) -> &[Arc<Host>] {
        &self.hosts
    }

    /// Their shares, summing up to 1.
    pub(super) fn shares(&self) -> &[f64] {
        &self.shares
    }

    /// Whether it is a ring and not a Maglev table.
    pub fn is_ring(&self) -> bool {
        matches!(self.entries, Entries::Ring(_))
    }

    /// Number of points or slots.
    pub fn len(&self) -> usize {
        match &self.entries {
            Entries::Ring(points) => points.len(),
            Entries::Maglev(slots) => slots.len(),
        }
    }

    /// Whether there is no host.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The least and the greatest number of entries of any host: the gauges `ring_hash_lb.*_hashes_per_host` and
    /// `maglev_lb.*_entries_per_host`.
    pub fn entries_per_host(&self) -> (u64, u64) {
        // Envoy has no table for a single host of Maglev.
        if let (Entries::Maglev(_), [_]) = (&self.entries, &*self.hosts) {
            return (1, 1);
        }
        let mut counts = vec![0u64; self.hosts.len()];
        match &self.entries {
            Entries::Ring(points) => points.iter().for_each(|(_, host)| counts[*host as usize] += 1),
            Entries::Maglev(slots) => slots.iter().for_each(|host| counts[*host as usize] += 1),
        }
        (counts.iter().copied().min().unwrap_or(0), counts.iter().copied().max().unwrap_or(0))
    }
}

/// The text that stands for a host: `hash_key` of its `envoy.lb` metadata, else its name or its address.
fn hash_key(host: &Host, by_hostname: bool) -> String {
    if let Some(key) = host.metadata().hash_key() {
        return key.to_owned();
    }
    if by_hostname { host.hostname().to_owned() } else { host.address().to_string() }
}

fn ring(
    hosts: &[(Arc<Host>, f64)],
    minimum: u64,
    maximum: u64,
    function: HashFunction,
    by_hostname: bool,
) -> Vec<(u64, u32)> {
    let Some(least) = hosts.iter().map(|(_, weight)| *weight).min_by(f64::total_cmp) else {
        return Vec::new();
    };
    // The least host gets a whole number of points; running sums keep the rest in proportion.
    let scale = ((least * minimum as f64).ceil() / least).min(maximum as f64);
    let mut points = Vec::with_capacity(scale.ceil() as usize);
    let (mut current, mut target) = (0.0, 0.0);
    for (index, (host, weight)) in hosts.iter().enumerate() {
        let mut key = hash_key(host, by_hostname);
        key.push('_');
        let stem = key.len();
        target += scale * weight;
        let mut point = 0u64;
        while current < target {
            key.truncate(stem);
            key.push_str(&point.to_string());
            let hash = match function {
                HashFunction::XxHash => XxHash64::oneshot(0, key.as_bytes()),
                HashFunction::MurmurHash2 => murmur_hash_2(key.as_bytes(), STD_HASH_SEED),
            };
            points.push((hash, index as u32));
            point += 1;
            current += 1.0;
        }
    }
    points.sort_by_key(|(hash, _)| *hash);
    points
}

fn maglev(hosts: &[(Arc<Host>, f64)], size: u64, by_hostname: bool) -> Vec<u32> {
    struct Entry {
        host: u32,
        offset: u64,
        skip: u64,
        weight: f64,
        target: f64,
        next: u64,
    }
    let greatest = hosts.iter().map(|(_, weight)| *weight).fold(0.0, f64::max);
    let mut keyed: Vec<(String, usize)> =
        hosts.iter().enumerate().map(|(index, (host, _))| (hash_key(host, by_hostname), index)).collect();
    // The table must not depend on the order in which discovery lists the hosts.
    keyed.sort();
    let mut entries: Vec<Entry> = keyed
        .iter()
        .map(|(key, index)| Entry {
            host: *index as u32,
            offset: XxHash64::oneshot(0, key.as_bytes()) % size,
            skip: XxHash64::oneshot(1, key.as_bytes()) % (size - 1) + 1,
            weight: hosts[*index].1,
            target: 0.0,
            next: 0,
        })
        .collect();
    const FREE: u32 = u32::MAX;
    let mut slots = vec![FREE; if entries.is_empty() { 0 } else { size as usize }];
    let mut filled = 0;
    let mut round = 0.0;
    while filled < slots.len() {
        round += 1.0;
        for entry in &mut entries {
            if filled == slots.len() {
                break;
            }
            // A host of half the greatest weight takes part in every second round.
            if round * entry.weight < entry.target {
                continue;
            }
            entry.target += greatest;
            loop {
                let slot = ((entry.offset + entry.skip * entry.next) % size) as usize;
                entry.next += 1;
                if slots[slot] == FREE {
                    slots[slot] = entry.host;
                    break;
                }
            }
            filled += 1;
        }
    }
    slots
}

/// The seed of `std::hash` in libstdc++.
const STD_HASH_SEED: u64 = 0xc70f_6907;

/// MurmurHash2 for 64-bit machines (`MurmurHash64A`), as libstdc++ hashes bytes.
fn murmur_hash_2(bytes: &[u8], seed: u64) -> u64 {
    const MUL: u64 = 0xc6a4_a793_5bd1_e995;
    let mix = |value: u64| value ^ (value >> 47);
    let mut hash = seed ^ (bytes.len() as u64).wrapping_mul(MUL);
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let word = u64::from_le_bytes(chunk.try_into().expect("chunks_exact gives eight bytes"));
        hash ^= mix(word.wrapping_mul(MUL)).wrapping_mul(MUL);
        hash = hash.wrapping_mul(MUL);
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        let word = rest.iter().rev().fold(0u64, |word, byte| (word << 8) | u64::from(*byte));
        hash = (hash ^ word).wrapping_mul(MUL);
    }
    mix(mix(hash).wrapping_mul(MUL))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use twox_hash::XxHash64;

    use super::{HashFunction, HashTable, STD_HASH_SEED, TableConfig, murmur_hash_2};
    use dhow_net::StreamAddress;

    use crate::host::{Host, HostSpec};

    fn hosts(weights: &[f64]) -> Vec<(Arc<Host>, f64)> {
        let total: f64 = weights.iter().sum();
        let host = |port: usize| {
            Host::new(HostSpec::at(StreamAddress::Ip(([127, 0, 0, 1], 8000 + port as u16).into())))
        };
        weights.iter().enumerate().map(|(index, weight)| (Arc::new(host(index)), weight / total)).collect()
    }

    fn shares(table: &HashTable) -> Vec<u64> {
        let mut counts: HashMap<String, u64> = HashMap::new();
        for draw in 0..100_000u64 {
            let hash = draw.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            *counts.entry(table.choose(hash, 0).unwrap().address().to_string()).or_default() += 1;
        }
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort();
        counts.into_iter().map(|(_, count)| count / 1000).collect()
    }

    const RING: TableConfig = TableConfig::Ring {
        minimum: 1024,
        maximum: 8 << 20,
        function: HashFunction::XxHash,
        by_hostname: false,
    };
    const MAGLEV: TableConfig = TableConfig::Maglev { size: 65537, by_hostname: false };

    #[test]
    fn a_ring_gives_every_host_a_whole_number_of_points() {
        let table = RING.build(&hosts(&[1.0, 1.0, 1.0]));
        assert_eq!((table.len(), table.entries_per_host()), (1026, (342, 342)));
        let weighted = RING.build(&hosts(&[1.0, 3.0]));
        assert_eq!(weighted.entries_per_host(), (256, 768));
        let shares = shares(&weighted);
        assert!((65..85).contains(&shares[1]), "{shares:?}");
    }

    #[test]
    fn a_maglev_table_is_full_and_proportional() {
        let table = MAGLEV.build(&hosts(&[1.0, 1.0, 2.0]));
        assert_eq!(table.len(), 65537);
        let shares = shares(&table);
        assert!((24..=26).contains(&shares[0]) && (49..=51).contains(&shares[2]), "{shares:?}");
    }

    /// Which of five hosts the real Envoy 1.40 chose for a header `k0` to `k59` under a header hash policy.
    #[test]
    fn choices_are_those_of_envoy() {
        let ring =
            |minimum, function| TableConfig::Ring { minimum, maximum: 8 << 20, function, by_hostname: false };
        let even = [1.0; 5];
        let weighted = [1.0, 1.0, 2.0, 3.0, 1.0];
        for (config, weights, expected) in [
            (
                ring(1024, HashFunction::XxHash),
                even,
                "340242103212414210411430342041134124004303103021031104030303",
            ),
            (
                ring(100, HashFunction::XxHash),
                weighted,
                "212222222000334242211124232214003022433032413422031233440201",
            ),
            (
                ring(1024, HashFunction::MurmurHash2),
                even,
                "331121004131132200002342431033332041232123200222332220341023",
            ),
            (MAGLEV, even, "441223122113423034414433023130210420013431311434342111233144"),
            (
                TableConfig::Maglev { size: 1009, by_hostname: false },
                weighted,
                "221002243213104344002324414413223302003040443424304023133033",
            ),
        ] {
            let hosts: Vec<_> = hosts(&weights)
                .into_iter()
                .zip(29911u16..)
                .map(|((_, share), port)| {
                    let address = StreamAddress::Ip(([127, 0, 0, 1], port).into());
                    (Arc::new(Host::new(HostSpec::at(address))), share)
                })
                .collect();
            let table = config.build(&hosts);
            let chosen: String = (0..60)
                .map(|key| {
                    let hash = XxHash64::oneshot(0, format!("k{key}").as_bytes());
                    let host = table.choose(hash, 0).unwrap();
                    hosts.iter().position(|(other, _)| Arc::ptr_eq(host, other)).unwrap().to_string()
                })
                .collect();
            assert_eq!(chosen, expected, "{config:?}");
        }
    }

    #[test]
    fn most_hashes_keep_their_host_when_another_leaves() {
        for config in [RING, MAGLEV] {
            let all = hosts(&[1.0; 5]);
            let fewer: Vec<_> = all[..4].iter().map(|(host, _)| (host.clone(), 0.25)).collect();
            let (before, after) = (config.build(&all), config.build(&fewer));
            let (mut kept, mut stayed) = (0, 0);
            for draw in 0..10_000u64 {
                let hash = draw.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let old = before.choose(hash, 0).unwrap();
                if !Arc::ptr_eq(old, &all[4].0) {
                    stayed += 1;
                    kept += usize::from(Arc::ptr_eq(old, after.choose(hash, 0).unwrap()));
                }
            }
            assert!(kept * 100 >= stayed * 85, "{config:?}: {kept} of {stayed}");
        }
    }

    #[test]
    fn the_order_of_hosts_does_not_matter_to_maglev() {
        let forward = hosts(&[1.0, 2.0, 3.0]);
        let backward: Vec<_> = forward.iter().rev().cloned().collect();
        let (forward, backward) = (MAGLEV.build(&forward), MAGLEV.build(&backward));
        for hash in (0..100_000).step_by(7) {
            assert!(Arc::ptr_eq(forward.choose(hash, 0).unwrap(), backward.choose(hash, 0).unwrap()));
        }
    }

    #[test]
    fn another_attempt_moves_on_and_no_hosts_give_none() {
        let table = RING.build(&hosts(&[1.0; 8]));
        assert!(
            (1..30)
                .any(|attempt| !Arc::ptr_eq(table.choose(5, 0).unwrap(), table.choose(5, attempt).unwrap()))
        );
        assert!(RING.build(&[]).choose(1, 0).is_none());
        assert!(MAGLEV.build(&[]).choose(1, 0).is_none());
    }

    #[test]
    fn murmur_is_the_standard_library_s() {
        // Values of std::hash<std::string> in libstdc++ on x86-64.
        assert_eq!(murmur_hash_2(b"", STD_HASH_SEED), 6_142_509_188_972_423_790);
        assert_eq!(murmur_hash_2(b"a", STD_HASH_SEED), 4_993_892_634_952_068_459);
    }
}
