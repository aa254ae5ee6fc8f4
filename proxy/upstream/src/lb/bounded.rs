//! Consistent hashing with bounded loads: a host that is busier than its share allows passes requests on.

use super::consistent::HashTable;

/// The index of the host for `hash` when none may carry more than `factor` percent of the average load; the least
/// overloaded one when all do. A busy host's requests go to others in an order that depends on the hash alone.
pub(super) fn choose(table: &HashTable, factor: u32, hash: u64, attempt: u32) -> Option<usize> {
    let first = table.index(hash, attempt)?;
    let hosts = table.hosts();
    if hosts[first].active_requests() == 0 {
        return Some(first);
    }
    let active: u64 = hosts.iter().map(|host| host.active_requests()).sum();
    let total_slots = ((active + 1) * u64::from(factor)).div_ceil(100);
    let load = |index: usize| {
        let slots = (total_slots as f64 * table.shares()[index]).ceil().max(1.0);
        hosts[index].active_requests() as f64 / slots
    };
    let mut least = (load(first), first);
    if least.0 <= 1.0 {
        return Some(first);
    }
    let mut random = MersenneTwister::new(hash as u32);
    let mut order: Vec<usize> = (0..hosts.len()).collect();
    for at in 0..order.len() {
        let jump = random.below((order.len() - at) as u32) as usize;
        order.swap(at, at + jump);
        let candidate = order[at];
        if candidate == first {
            continue;
        }
        let candidate_load = load(candidate);
        if candidate_load <= 1.0 {
            return Some(candidate);
        }
        if candidate_load < least.0 {
            least = (candidate_load, candidate);
        }
    }
    Some(least.1)
}

/// MT19937, the generator that Envoy shuffles with, so that the order is the same.
struct MersenneTwister {
    state: [u32; Self::SIZE],
    next: usize,
}

impl MersenneTwister {
    const SIZE: usize = 624;
    const SHIFT: usize = 397;

    fn new(seed: u32) -> Self {
        let mut state = [0; Self::SIZE];
        state[0] = seed;
        for at in 1..Self::SIZE {
            let before = state[at - 1];
            state[at] = (before ^ (before >> 30)).wrapping_mul(1_812_433_253).wrapping_add(at as u32);
        }
        Self { state, next: Self::SIZE }
    }

    fn draw(&mut self) -> u32 {
        if self.next == Self::SIZE {
            self.twist();
        }
        let mut value = self.state[self.next];
        self.next += 1;
        value ^= value >> 11;
        value ^= (value << 7) & 0x9d2c_5680;
        value ^= (value << 15) & 0xefc6_0000;
        value ^ (value >> 18)
    }

    fn twist(&mut self) {
        for at in 0..Self::SIZE {
            let mixed = (self.state[at] & 0x8000_0000) | (self.state[(at + 1) % Self::SIZE] & 0x7fff_ffff);
            let odd = if mixed & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[at] = self.state[(at + Self::SHIFT) % Self::SIZE] ^ (mixed >> 1) ^ odd;
        }
        self.next = 0;
    }

    /// A number below `limit`, all equally likely.
    fn below(&mut self, limit: u32) -> u32 {
        let width = (1u64 << 32) / u64::from(limit);
        loop {
            let drawn = u64::from(self.draw()) / width;
            if drawn < u64::from(limit) {
                return drawn as u32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{MersenneTwister, choose};
    use dhow_net::StreamAddress;

    use crate::host::{Host, HostSpec};
    use crate::lb::TableConfig;

    #[test]
    fn the_generator_is_the_standard_one() {
        // The value that the C++ standard gives for the 10000th draw with the default seed.
        let mut random = MersenneTwister::new(5489);
        let last = (0..10_000).map(|_| random.draw()).last();
        assert_eq!(last, Some(4_123_659_995));
    }

    #[test]
    fn a_busy_host_passes_requests_on_and_gets_them_back() {
        let hosts: Vec<_> = (1..=4u16)
            .map(|port| {
                let address = StreamAddress::Ip(([127, 0, 0, 1], port).into());
                (Arc::new(Host::new(HostSpec::at(address))), 0.25)
            })
            .collect();
        let table = TableConfig::Maglev { size: 1009, by_hostname: false }.build(&hosts);
        let own = choose(&table, 100, 77, 0).unwrap();
        let mut held = Vec::new();
        let mut chosen = Vec::new();
        for _ in 0..8 {
            let index = choose(&table, 100, 77, 0).unwrap();
            held.push(hosts[index].0.begin_request());
            chosen.push(index);
        }
        assert_eq!(chosen[0], own);
        // With a factor of 100 percent a host is full at a quarter of the requests, the one that arrives included.
        for index in 0..4 {
            let count = chosen.iter().filter(|&&other| other == index).count();
            assert!(count <= 3, "{chosen:?}");
        }
        held.clear();
        assert_eq!(choose(&table, 100, 77, 0), Some(own));
    }
}
