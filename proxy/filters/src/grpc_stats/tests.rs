//! The messages of a body, counted.

use super::counter::MessageCounter;

#[test]
fn messages_are_counted_however_they_arrive() {
    let body = b"\0\0\0\0\x02ab\0\0\0\0\0\0\0\0\0\x01c";
    for step in 1..=body.len() {
        let mut counter = MessageCounter::default();
        let counted: u64 = body.chunks(step).map(|part| counter.inspect(part)).sum();
        assert_eq!((counted, counter.messages()), (3, 3), "in parts of {step}");
    }
}
