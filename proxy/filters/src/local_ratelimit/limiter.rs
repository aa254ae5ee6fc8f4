//! The buckets of one configuration, and which of them a request takes from.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use dhow_routing::{RateLimitDescriptor, XRateLimitHeaders};

use super::bucket::{BucketSize, Level, TokenBucket};

/// Keys with values, in order.
pub(super) type Entries = Vec<(String, String)>;

/// What limiters are made of: one for all requests, or one for each connection.
#[derive(Clone, Debug)]
pub(super) struct LimiterPlan {
    /// `token_bucket`.
    pub(super) default: Option<BucketSize>,
    pub(super) descriptors: Box<[DescriptorPlan]>,
    /// `always_consume_default_token_bucket`: the default bucket counts beside those of descriptors.
    pub(super) always_default: bool,
    /// `max_dynamic_descriptors`: buckets of values of one descriptor at the same time.
    pub(super) max_dynamic: usize,
}

/// One of `descriptors`.
#[derive(Clone, Debug)]
pub(super) struct DescriptorPlan {
    /// An empty value stands for any.
    pub(super) entries: Entries,
    pub(super) size: BucketSize,
    /// Requests over the limit are counted and go on.
    pub(super) shadow: bool,
}

/// A bucket that requests share, and the clock it counts by.
#[derive(Debug)]
pub(super) struct Bucket {
    tokens: TokenBucket,
    start: Instant,
    shadow: bool,
}

impl Bucket {
    fn new(size: BucketSize, start: Instant, shadow: bool) -> Arc<Self> {
        Arc::new(Self { tokens: TokenBucket::new(size), start, shadow })
    }

    fn take(&self, count: u64) -> bool {
        self.tokens.take(count, self.start.elapsed())
    }

    /// Counts the hits of a descriptor, each `weight` times; tells whether there was room. As in Envoy there is none
    /// for no hits at all, and always for hits that give back.
    fn count(&self, descriptor: &RateLimitDescriptor, weight: u64) -> bool {
        let hits = descriptor.hits_addend.unwrap_or(1).saturating_mul(weight);
        if descriptor.negative_hits {
            self.tokens.give_back(hits, self.start.elapsed());
            return true;
        }
        hits > 0 && self.take(hits)
    }

    /// What is in it now.
    pub(super) fn level(&self) -> Level {
        self.tokens.level(self.start.elapsed())
    }
}

/// What became of a request.
#[derive(Debug)]
pub(super) struct Decision {
    pub(super) allowed: bool,
    /// Whether the refusal is only counted.
    pub(super) shadow: bool,
    /// The bucket that responses tell about.
    pub(super) bucket: Option<Arc<Bucket>>,
    /// Whether they do, by the descriptor's own choice.
    pub(super) headers: XRateLimitHeaders,
}

/// The buckets of one configuration.
#[derive(Debug)]
pub(super) struct Limiter {
    start: Instant,
    default: Option<Arc<Bucket>>,
    fixed: HashMap<Entries, Arc<Bucket>>,
    wildcards: Box<[Wildcard]>,
    always_default: bool,
}

/// A descriptor that has a bucket for each value of a key.
#[derive(Debug)]
struct Wildcard {
    plan: DescriptorPlan,
    max: usize,
    /// The values seen last are at the end.
    buckets: Mutex<VecDeque<(Entries, Arc<Bucket>)>>,
}

impl Wildcard {
    fn matches(&self, entries: &Entries) -> bool {
        let same = |((key, value), (wanted_key, wanted)): (&(String, String), &(String, String))| {
            key == wanted_key && (wanted.is_empty() || value == wanted)
        };
        entries.len() == self.plan.entries.len() && entries.iter().zip(&self.plan.entries).all(same)
    }

    fn bucket(&self, entries: &Entries, start: Instant) -> Arc<Bucket> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let known = buckets.iter().position(|(known, _)| known == entries).and_then(|at| buckets.remove(at));
        let entry = known.unwrap_or_else(|| {
            if buckets.len() >= self.max {
                buckets.pop_front();
            }
            (entries.clone(), Bucket::new(self.plan.size, start, self.plan.shadow))
        });
        let bucket = entry.1.clone();
        buckets.push_back(entry);
        bucket
    }
}

impl Limiter {
    /// Full buckets.
    pub(super) fn new(plan: &LimiterPlan) -> Self {
        let start = Instant::now();
        let (wild, fixed): (Vec<_>, Vec<_>) = plan
            .descriptors
            .iter()
            .partition(|descriptor| descriptor.entries.iter().any(|(_, value)| value.is_empty()));
        Self {
            start,
            default: plan.default.map(|size| Bucket::new(size, start, false)),
            fixed: fixed
                .into_iter()
                .map(|plan| (plan.entries.clone(), Bucket::new(plan.size, start, plan.shadow)))
                .collect(),
            wildcards: wild
                .into_iter()
                .map(|descriptor| Wildcard {
                    plan: descriptor.clone(),
                    max: plan.max_dynamic,
                    buckets: Mutex::default(),
                })
                .collect(),
            always_default: plan.always_default,
        }
    }

    fn bucket_of(&self, entries: &Entries) -> Option<Arc<Bucket>> {
        if let Some(bucket) = self.fixed.get(entries) {
            return Some(bucket.clone());
        }
        let wildcard = self.wildcards.iter().find(|wildcard| wildcard.matches(entries))?;
        Some(wildcard.bucket(entries, self.start))
    }

    /// Takes from the buckets of a request's descriptors, the slowest first, and from the default one; each hit counts `weight`
    /// times.
    pub(super) fn take(
        &self,
        descriptors: &[(RateLimitDescriptor, XRateLimitHeaders)],
        weight: u64,
    ) -> Decision {
        let mut matched: Vec<_> = descriptors
            .iter()
            .filter_map(|(descriptor, headers)| {
                let bucket = self.bucket_of(&descriptor.entries)?;
                Some((bucket, descriptor, *headers))
            })
            .collect();
        matched.sort_by(|(one, ..), (other, ..)| one.tokens.rate().total_cmp(&other.tokens.rate()));
        for (bucket, descriptor, headers) in &matched {
            if !bucket.count(descriptor, weight) {
                let shadow = bucket.shadow;
                return Decision { allowed: false, shadow, bucket: Some(bucket.clone()), headers: *headers };
            }
        }
        let mut decision = Decision {
            allowed: true,
            shadow: false,
            bucket: self.default.clone(),
            headers: XRateLimitHeaders::Unspecified,
        };
        if matched.is_empty() || self.always_default {
            decision.allowed = self.default.as_ref().is_none_or(|bucket| bucket.take(weight));
        }
        if let (true, Some((bucket, _, headers))) = (decision.allowed, matched.into_iter().next()) {
            decision.bucket = Some(bucket);
            decision.headers = headers;
        }
        decision
    }
}
