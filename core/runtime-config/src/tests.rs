use std::sync::Arc;

use dhow_proto::google::protobuf::{Struct, Value};

use crate::*;

fn message(json: &str) -> Struct {
    dhow_proto::load_json(json, &dhow_proto::LoadOptions::default()).unwrap().message
}

fn snapshot(json: &str) -> Snapshot {
    Snapshot::of_struct(&message(json)).unwrap()
}

/// Whether a key makes 0 % everything and 100 % nothing, the probe that the readings were measured with.
fn readings(snapshot: &Snapshot, key: &str) -> (bool, bool) {
    let nothing = Fraction { numerator: 0, denominator: 100 };
    (snapshot.feature_enabled(key, nothing, 99), snapshot.feature_enabled(key, Fraction::ALL, 99))
}

#[test]
fn fractions_are_read_as_envoy_reads_them() {
    let of = |value: &str| readings(&snapshot(&format!("{{\"k\": {value}}}")), "k");
    let overrides = [
        "\"100\"",
        "100",
        "100.0",
        "{\"numerator\": 100}",
        "150",
        "4294967296",
        "\"100.5\"",
        "4294967396",
        "{\"numerator\": 1000000, \"denominator\": \"MILLION\"}",
        "\" 100\"",
        "\"1e2\"",
        "\"0x64\"",
    ];
    for value in overrides {
        assert_eq!(of(value), (true, true), "{value}");
    }
    let defaults = [
        "\"{numerator: 100}\"",
        "\"numerator: 100\"",
        "true",
        "-1",
        "{\"numerator\": 100, \"foo\": 1}",
        "{\"numerator\": 100, \"denominator\": \"BAD\"}",
        "\"\"",
        "\"inf\"",
    ];
    for value in defaults {
        assert_eq!(of(value), (false, true), "{value}");
    }
    for value in ["{\"numerator\": \"100\"}", "{\"denominator\": \"HUNDRED\"}", "0", "\"0.9\""] {
        assert_eq!(of(value), (false, false), "{value}");
    }
}

#[test]
fn nested_structs_are_keys_with_dots() {
    let snapshot = snapshot(r#"{"a": {"b": 5, "c": {"d": true}, "f": {"numerator": 3}}, "x.y": "z"}"#);
    let mut keys: Vec<_> = snapshot.keys().collect();
    keys.sort_unstable();
    assert_eq!(keys, ["a.b", "a.c.d", "a.f", "x.y"]);
    assert_eq!(snapshot.get_u64("a.b", 0), 5);
    assert!(snapshot.get_bool("a.c.d", false));
    assert_eq!(snapshot.get("x.y").unwrap().text(), "z");
    let text = "fields {\n  key: \"numerator\"\n  value {\n    number_value: 3\n  }\n}\n";
    assert_eq!(snapshot.get("a.f").unwrap().text(), text);
}

#[test]
fn lists_and_null_are_refused() {
    for value in ["[1]", "null"] {
        let error = Snapshot::of_struct(&message(&format!("{{\"a\": {{\"b\": {value}}}}}"))).unwrap_err();
        assert_eq!(error, "Invalid runtime entry value for a.b");
    }
}

#[test]
fn booleans_may_be_text() {
    let snapshot = snapshot(r#"{"a": true, "b": "True", "c": " false ", "d": 1, "e": "1", "f": "yes"}"#);
    let read = |key| snapshot.boolean(key);
    assert_eq!((read("a"), read("b"), read("c")), (Some(true), Some(true), Some(false)));
    assert_eq!((read("d"), read("e"), read("f")), (None, None, None));
}

#[test]
fn the_last_layer_wins_and_an_empty_override_is_none() {
    let mut admin = Layer::new("admin");
    admin.set("k", "7");
    admin.set("gone", "1");
    admin.set("gone", "");
    let base = Layer::from_struct("base", &message(r#"{"k": 5, "l": 1.5}"#)).unwrap();
    let snapshot = Snapshot::new(vec![base, admin]);
    assert_eq!((snapshot.get_u64("k", 0), snapshot.get_f64("l", 0.0)), (7, 1.5));
    assert_eq!(snapshot.number("gone"), None);
    assert_eq!(snapshot.keys().len(), 2);
}

#[test]
fn files_lose_their_comments() {
    let text = |content: &str| {
        let mut layer = Layer::new("disk");
        layer.add_file("k", content, |_| Ok(Value::default())).unwrap();
        layer.get("k").unwrap().text().to_owned()
    };
    assert_eq!(text("# comment\n7\n"), "7");
    assert_eq!(text("  8 \n# x"), "  8 \n");
    assert_eq!(text("#c\n5\n# d"), "5\n");
    assert_eq!(text("numerator: 5\ndenominator: MILLION\n"), "numerator: 5\ndenominator: MILLION");
    assert_eq!(text("5 # x\n"), "5 # x");
    assert_eq!(text("# only"), "");
}

#[test]
fn settings_read_their_keys() {
    let snapshot = snapshot(r#"{"flag": false, "number": 2.5, "count": 1e12}"#);
    assert!(!RuntimeFlag::new("flag", true).value(&snapshot));
    assert!(RuntimeFlag::new("", true).value(&snapshot));
    assert_eq!(RuntimeNumber::new("number", 1.0).value(&snapshot), 2.5);
    assert_eq!(RuntimeUint32::new("count", 1).value(&snapshot), u32::MAX);
    assert_eq!(RuntimePercent::new("other", 12.5).value(&snapshot), 12.5);
    let all = RuntimeFraction::new("number", Fraction::ALL);
    assert!(all.contains(1, &snapshot) && !all.contains(2, &snapshot) && all.contains(2, &NoRuntime));
}

#[test]
fn what_is_published_reaches_every_thread() {
    assert_eq!(Current.number("published"), None);
    publish(Arc::new(snapshot(r#"{"published": 1}"#)));
    assert_eq!(Current.number("published"), Some(1));
    let other = std::thread::spawn(|| Current.number("published")).join().unwrap();
    assert_eq!(other, Some(1));
    // A snapshot stays what it is for whoever reads it while another one is published.
    with_current(|before| {
        publish(Arc::new(Snapshot::default()));
        assert_eq!(before.number("published"), Some(1));
        assert_eq!(Current.number("published"), None);
    });
}
