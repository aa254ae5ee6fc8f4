//! The random decisions of a filter about a stream.

use dhow_base::Rng;
use dhow_proxy_api::FilterStream;

/// A source of lots for one filter and stream, from the stream's random number. `filter` keeps the lots of different filters, and of
/// the route's weighted clusters, independent of each other.
pub(crate) fn lots(filter: &str, stream: &FilterStream<'_>) -> Rng {
    let salt = filter.bytes().fold(0, |salt: u64, byte| salt.wrapping_mul(31).wrapping_add(byte.into()));
    Rng::seeded(stream.random ^ salt)
}
