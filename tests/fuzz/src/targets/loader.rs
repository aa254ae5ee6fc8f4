//! Configuration in every format. The first byte says which.

use dhow_base::Rng;
use dhow_proto::envoy::config::bootstrap::v3::Bootstrap;
use dhow_proto::{
    Format, LoadOptions, Message, Name, PrintOptions, load, message_to_text, parse, to_json_with,
};
use serde_json::Value as Json;

use super::Target;
use crate::input::{Input, assemble};

/// Bootstraps.
pub const LOADER: Target = Target {
    name: "loader",
    about: "a bootstrap that loads is printed and loaded again as the same one, in every format",
    run,
    generate,
};

const FORMATS: [Format; 4] = [Format::Yaml, Format::Json, Format::Binary, Format::Text];

const YAML: &[&[u8]] = &[
    b"node: {id: a, cluster: b}\n",
    b"admin:\n  address: {socket_address: {address: 127.0.0.1, port_value: 0}}\n",
    b"static_resources:\n  clusters:\n  - name: c\n    connect_timeout: 0.25s\n    type: STATIC\n",
    b"    lb_policy: RING_HASH\n",
    b"    load_assignment: {cluster_name: c, endpoints: [{lb_endpoints: []}]}\n",
    b"layered_runtime: {layers: [{name: a, static_layer: {x: 1, y: true, z: [1, '2', null]}}]}\n",
    b"stats_config: {stats_tags: [{tag_name: a, regex: 'a(b)'}]}\n",
    b"stats_flush_interval: 1.5s\n",
    b"overload_manager: {refresh_interval: 1s}\n",
    b"header_prefix: &anchor x-envoy\n",
    b"unknown: *anchor\n",
    b"---\n",
    b"# comment\n",
    b"cluster_manager: {upstream_bind_config: {source_address: {address: '::1', port_value: 1}}}\n",
    b"  - ",
    b"!!str ",
    b"|\n  text\n",
    b"0x1F",
    b".inf",
    b"\"\\u00e9\\x\"",
];

const JSON: &[&[u8]] = &[
    b"{\"node\":{\"id\":\"a\",\"metadata\":{\"a\":[1,2.5,null,{\"b\":true}]}}",
    b"{",
    b"}",
    b",\"node\":{\"id\":\"b\"}",
    b",\"statsFlushInterval\":\"1.500s\"",
    b",\"static_resources\":{\"clusters\":[{\"name\":\"c\",\"connect_timeout\":\"1s\",\"type\":1}]}",
    b",\"staticResources\":{\"secrets\":[{\"name\":\"s\",\"generic_secret\":{\"secret\":{\"inline_bytes\":\"AAEC\"}}}]}",
    b",\"header_prefix\":null",
    b",\"enable_dispatcher_stats\":\"true\"",
    b"\"\\ud800\"",
    b"1e309",
    b"[[[[[[",
];

const TEXT: &[&[u8]] = &[
    b"node { id: \"a\" cluster: 'b' }\n",
    b"static_resources { clusters { name: \"c\" connect_timeout { seconds: 1 } type: STATIC } }\n",
    b"admin: < address: < socket_address: < address: \"::\" port_value: 0x10 > > >\n",
    b"stats_flush_interval: { nanos: 5000000 }\n",
    b"header_prefix: \"a\" \"b\\n\\x41\\101\"\n",
    b"enable_dispatcher_stats: true;\n",
    b"static_resources { secrets [{ name: \"s\" }, { name: \"t\" }] }\n",
    b"[type.googleapis.com/google.protobuf.Struct] {}\n",
    b"# comment\n",
    b"-inf",
    b"{",
    b"}",
];

fn generate(rng: &mut Rng) -> Vec<u8> {
    let format = rng.index(FORMATS.len());
    let mut bytes = vec![format as u8];
    bytes.extend(match FORMATS[format] {
        Format::Yaml => assemble(rng, YAML, 6),
        Format::Json => {
            let mut text = JSON[0].to_vec();
            text.extend(assemble(rng, JSON, 4));
            text.push(b'}');
            text
        }
        Format::Text => assemble(rng, TEXT, 5),
        Format::Binary => binary(rng),
    });
    bytes
}

/// The encoding of a bootstrap in text, at times damaged.
fn binary(rng: &mut Rng) -> Vec<u8> {
    let source = assemble(rng, &TEXT[..7], 3);
    let mut bytes = read(Format::Text, &source).map(|bootstrap| bootstrap.encode_to_vec()).unwrap_or(source);
    if rng.chance(1, 2) {
        crate::input::mutate(
            rng,
            &mut bytes,
            &[b"\x0a\x02\x0a\x00", b"\x12\xff\xff\xff\xff\x0f", b"\x1a\x00"],
        );
    }
    bytes
}

fn read(format: Format, source: &[u8]) -> Option<Bootstrap> {
    let lenient = LoadOptions { allow_unknown_fields: true, ..LoadOptions::default() };
    load::<Bootstrap>(&[(format, source)], &lenient).ok().map(|loaded| loaded.message)
}

/// Whether an `Any` somewhere has a type URL without host or name. As bytes it is accepted, as in Envoy, but neither JSON nor
/// text can express it.
fn has_nameless_type(json: &Json) -> bool {
    match json {
        Json::Object(members) => members.iter().any(|(name, value)| match value {
            Json::String(url) if name == "@type" => {
                url.split_once('/').is_none_or(|(host, name)| host.is_empty() || name.is_empty())
            }
            value => has_nameless_type(value),
        }),
        Json::Array(items) => items.iter().any(has_nameless_type),
        _ => false,
    }
}

fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let format = input.pick(&FORMATS);
    let source = input.rest();
    // What is strict refuses at least what is lenient refuses.
    let strict = load::<Bootstrap>(&[(format, source)], &LoadOptions::default());
    let lenient = read(format, source);
    assert!(strict.is_err() || lenient.is_some(), "only the strict reading accepts it");
    if let Err(error) = &strict {
        assert!(!error.to_string().is_empty());
    }
    // Without the rules of validation.
    let parsed = parse::<Bootstrap>(format, source, &LoadOptions::default());
    assert!(strict.is_err() || parsed.is_ok(), "checked and accepted, and yet not read");
    let Some(bootstrap) = lenient else { return };
    let encoded = bootstrap.encode_to_vec();
    let whole = PrintOptions { redact: false, ..PrintOptions::default() };
    let json =
        to_json_with(&Bootstrap::full_name(), &encoded, whole).expect("what was loaded can be printed");
    if has_nameless_type(&json) {
        return;
    }
    let json = json.to_string();
    let text = message_to_text(&bootstrap);
    // In the YAML of Envoy a fraction in a struct is a string, so there the message may be another one.
    assert!(read(Format::Yaml, json.as_bytes()).is_some(), "as YAML it is not loaded again: {json}");
    for (format, source) in
        [(Format::Binary, &encoded[..]), (Format::Json, json.as_bytes()), (Format::Text, text.as_bytes())]
    {
        let again = read(format, source)
            .unwrap_or_else(|| panic!("{format:?} is not loaded again: {}", String::from_utf8_lossy(source)));
        assert_eq!(again, bootstrap, "{format:?}: {}", String::from_utf8_lossy(source));
    }
}
