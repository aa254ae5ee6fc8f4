use serde_json::json;

use crate::{Dialect, Document, YamlError, parse, parse_separately};

fn one(text: &str, dialect: Dialect) -> Document {
    let mut documents = parse(text, dialect).unwrap_or_else(|error| panic!("{error}\n{text}"));
    assert_eq!(documents.len(), 1, "{text}");
    documents.remove(0)
}

fn error(text: &str, dialect: Dialect) -> YamlError {
    parse(text, dialect).expect_err(text)
}

/// Every line as observed on Envoy 1.40.0 through the node's metadata in `/config_dump`.
#[test]
fn envoy_scalars_are_read_as_by_yaml_cpp() {
    for (text, expected) in [
        ("yes", json!(true)),
        ("Y", json!(true)),
        ("OFF", json!(false)),
        ("yEs", json!("yEs")),
        ("\"yes\"", json!("yes")),
        ("'1'", json!("1")),
        ("010", json!(8)),
        ("0x1F", json!(31)),
        ("-0x10", json!(-16)),
        ("+7", json!(7)),
        ("3000000000", json!("3000000000")),
        ("-3000000000", json!("-3000000000")),
        ("0x100000000", json!("4294967296")),
        ("2147483647", json!(2147483647)),
        ("1.5", json!("1.5")),
        ("08", json!("08")),
        ("0o17", json!("0o17")),
        ("1_000", json!("1_000")),
        ("99999999999999999999", json!("99999999999999999999")),
        ("~", json!(null)),
        ("null", json!(null)),
        ("", json!(null)),
        ("''", json!("")),
        ("!!str 12", json!(12)),
        ("!foo \"yes\"", json!(true)),
        ("! 12", json!("12")),
        (".inf", json!(".inf")),
        ("|\n  12", json!("12")),
    ] {
        let document = one(&format!("v: {text}\n"), Dialect::Envoy);
        let value = document.root.get("v").expect("v").to_json();
        match value.as_str() {
            // A block scalar at the end of the text may keep its line break.
            Some(text) if text.ends_with('\n') => assert_eq!(json!(text.trim_end()), expected),
            _ => assert_eq!(value, expected, "{text}"),
        }
    }
}

#[test]
fn kubernetes_scalars_are_read_as_by_go_yaml() {
    for (text, expected) in [
        ("yes", json!(true)),
        ("n", json!(false)),
        ("\"yes\"", json!("yes")),
        ("010", json!(8)),
        ("0o17", json!(15)),
        ("0b11", json!(3)),
        ("0x1F", json!(31)),
        ("1_000", json!(1000)),
        ("3000000000", json!(3000000000u64)),
        ("18446744073709551615", json!(18446744073709551615u64)),
        ("1.5", json!(1.5)),
        ("1e3", json!(1000.0)),
        (".5", json!(0.5)),
        ("1.2.3", json!("1.2.3")),
        ("08", json!(8.0)),
        ("10s", json!("10s")),
        ("2001-01-01", json!("2001-01-01")),
        ("!!str 12", json!("12")),
        ("!!int 12", json!(12)),
        ("!!float 1", json!(1.0)),
        ("~", json!(null)),
        ("++1", json!("++1")),
    ] {
        let document = one(&format!("v: {text}\n"), Dialect::Kubernetes);
        assert_eq!(document.root.get("v").expect("v").to_json(), expected, "{text}");
    }
    assert!(error("v: .nan", Dialect::Kubernetes).message.contains(".nan"));
    assert!(error("v: !!int x", Dialect::Kubernetes).message.contains("!!int"));
    assert!(error("v: 1e999", Dialect::Kubernetes).message.contains("range"));
}

#[test]
fn envoy_drops_ignored_keys_and_keeps_their_anchors() {
    let text = "!ignore base: &base { x: 1 }\n!ignore [a]: 2\nuse: *base\n";
    assert_eq!(one(text, Dialect::Envoy).root.to_json(), json!({"use": {"x": 1}}));
}

#[test]
fn envoy_knows_no_merge_and_takes_the_last_of_equal_keys() {
    let text = "b: &b { x: 1 }\nm: { <<: *b, z: 2 }\nd: 1\nd: 2\n1: i\ntrue: t\n~: u\n";
    assert_eq!(
        one(text, Dialect::Envoy).root.to_json(),
        json!({"b": {"x": 1}, "m": {"<<": {"x": 1}, "z": 2}, "d": 2, "1": "i", "true": "t", "null": "u"})
    );
}

#[test]
fn envoy_reads_only_the_first_document() {
    assert_eq!(parse("a: 1\n---\n}: {\n", Dialect::Envoy).expect("first document").len(), 1);
    assert!(parse("# nothing\n", Dialect::Envoy).expect("a comment is no document").is_empty());
}

#[test]
fn kubernetes_merges_maps_and_lets_explicit_keys_win() {
    let text = "b: &b { x: 1, w: 1 }\nc: &c { x: 2, z: 2 }\nm: { w: 9, <<: [*b, *c], z: 8 }\n";
    let document = one(text, Dialect::Kubernetes);
    assert_eq!(document.root.get("m").expect("m").to_json(), json!({"w": 9, "x": 1, "z": 8}));
    assert!(error("m: { <<: 1 }", Dialect::Kubernetes).message.contains("merge"));
}

#[test]
fn kubernetes_refuses_a_key_given_twice() {
    let error = error("a: 1\nb: 2\na: 3\n", Dialect::Kubernetes);
    assert_eq!((error.line, error.column), (3, 1));
    assert_eq!(error.to_string(), "yaml: line 3, column 1: key \"a\" is already set on line 1");
}

#[test]
fn kubernetes_keys_become_text() {
    let document = one("y: 1\n2: b\n\"no\": c\n", Dialect::Kubernetes);
    assert_eq!(document.root.to_json(), json!({"true": 1, "2": "b", "no": "c"}));
}

#[test]
fn nodes_know_where_they_are() {
    let document = one("a:\n  - b: x\n    cD: { e.f: 1 }\n", Dialect::Kubernetes);
    assert_eq!(document.line_of("a"), Some(1));
    assert_eq!(document.line_of("a[0]"), Some(2));
    assert_eq!(document.line_of("a[0].c_d"), Some(3));
    assert_eq!(document.line_of("a[0].cD[\"e.f\"]"), Some(3));
    assert_eq!(document.line_of("a[1]"), None);
    assert_eq!(document.line_of("a[0].missing.deeper"), None);
    assert_eq!(document.nearest_line("a[0].missing.deeper"), 2);
    assert_eq!(document.line_of("a[x"), None);
    let b = &document.root.get("a").expect("a");
    assert_eq!((b.line, b.column), (2, 3));
}

#[test]
fn a_syntax_error_has_its_place() {
    let error = error("a: 1\nb: [1, 2\nc: 3\n", Dialect::Envoy);
    assert!(error.line >= 2, "{error}");
    assert!(!error.message.is_empty());
}

#[test]
fn an_unknown_alias_and_a_cycle_are_errors() {
    assert_eq!(error("a: *nowhere\n", Dialect::Envoy).line, 1);
    assert!(parse("a: &a [*a]\n", Dialect::Envoy).is_err());
}

#[test]
fn an_alias_bomb_is_refused_quickly() {
    let mut text = "l0: &l0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for level in 1..20 {
        let alias = format!("*l{}", level - 1);
        text.push_str(&format!("l{level}: &l{level} [{}]\n", [alias.as_str(); 10].join(",")));
    }
    for dialect in [Dialect::Envoy, Dialect::Kubernetes] {
        assert!(parse(&text, dialect).is_err());
    }
}

#[test]
fn nesting_is_limited() {
    let deep = "[".repeat(10_000);
    assert!(parse(&deep, Dialect::Envoy).is_err());
    let fine = format!("{}{}", "[".repeat(100), "]".repeat(100));
    assert!(parse(&fine, Dialect::Envoy).is_ok());
}

#[test]
fn a_broken_document_leaves_the_others_readable() {
    let text = "# head\n---\na: 1\n---\nb: [\n--- # comment\nc: 3\n---\n";
    let outcomes = parse_separately(text, Dialect::Kubernetes);
    assert_eq!(outcomes.len(), 3, "{outcomes:?}");
    let first = outcomes[0].as_ref().expect("first");
    assert_eq!(first.line_of("a"), Some(3));
    let error = outcomes[1].as_ref().expect_err("second");
    assert!((5..=6).contains(&error.line), "{error}");
    assert_eq!(outcomes[2].as_ref().expect("third").line_of("c"), Some(7));
}

#[test]
fn a_byte_order_mark_and_carriage_returns_are_no_content() {
    assert_eq!(one("\u{feff}a: x\r\nb: z\r\n", Dialect::Envoy).root.to_json(), json!({"a": "x", "b": "z"}));
}
