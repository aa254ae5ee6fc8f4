//! What a duration of the configuration means.

use std::time::Duration;

use crate::google::protobuf;

/// The time that a field gives, in whole milliseconds as Envoy takes all its times: a part of one counts as nothing, and so does
/// what is below zero.
pub fn whole_millis(message: &protobuf::Duration) -> Duration {
    let millis = message.seconds.saturating_mul(1000).saturating_add(i64::from(message.nanos) / 1_000_000);
    Duration::from_millis(millis.max(0).unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_millisecond_and_negative_times_count_as_nothing() {
        let of = |seconds, nanos| whole_millis(&protobuf::Duration { seconds, nanos });
        assert_eq!(of(1, 2_999_999), Duration::from_millis(1002));
        assert_eq!(of(0, 999_999), Duration::ZERO);
        assert_eq!(of(-1, -500_000_000), Duration::ZERO);
        assert!(of(i64::MAX, 0) > Duration::from_secs(1 << 40));
    }
}
