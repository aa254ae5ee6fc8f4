//! What network filters say about single connections.

use std::rc::Rc;
use std::time::Duration;

use dhow_base::{FieldPath, ResponseFlag};
use dhow_proto::google::protobuf::Any;
use dhow_proto::{LoadOptions, Message, Name};
use dhow_proxy_api::{ConnectionInfo, ReadFilterFactory, ReadVerdict};
use dhow_stats::Store;

use super::NETWORK_FILTERS;
use crate::fixtures::{Stream, stat};

fn configured<M: Message + Name + Default>(
    json: &str,
    store: &Store,
) -> Result<std::sync::Arc<dyn ReadFilterFactory>, String> {
    let message: M = dhow_proto::load_json(json, &LoadOptions::default()).unwrap().message;
    let config = Any { type_url: M::type_url(), value: message.encode_to_vec() };
    let known = NETWORK_FILTERS.iter().find(|known| known.type_name == M::full_name()).unwrap();
    (known.configure)(&config, store, &FieldPath::root(), &mut Vec::new()).map_err(|error| error.to_string())
}

fn connection() -> Rc<ConnectionInfo> {
    Stream::new(0).info.connection
}

const CLOSE: ReadVerdict = ReadVerdict::Close(Duration::ZERO);

#[test]
fn connections_beyond_the_limit_are_closed_until_one_ends() {
    use dhow_proto::envoy::extensions::filters::network::connection_limit::v3::ConnectionLimit;
    let store = Store::new();
    let json = r#"{"stat_prefix": "one", "max_connections": 1, "delay": "2s"}"#;
    let factory = configured::<ConnectionLimit>(json, &store).unwrap();
    let mut first = factory.create();
    assert_eq!(first.on_new_connection(&connection()), ReadVerdict::Continue);
    assert_eq!(factory.create().on_new_connection(&connection()), ReadVerdict::Close(Duration::from_secs(2)));
    assert_eq!(stat(&store, "connection_limit.one.active_connections"), Some(1));
    drop(first);
    assert_eq!(factory.create().on_new_connection(&connection()), ReadVerdict::Continue);
    assert_eq!(stat(&store, "connection_limit.one.limited_connections"), Some(1));
    assert_eq!(stat(&store, "connection_limit.one.active_connections"), Some(0));
}

#[test]
fn filters_with_one_key_and_size_share_a_bucket() {
    use dhow_proto::envoy::extensions::filters::network::local_ratelimit::v3::LocalRateLimit;
    let store = Store::new();
    let json = |tokens: u32| {
        format!(
            r#"{{"stat_prefix": "p", "share_key": "shared in this test", "token_bucket": {{"max_tokens": {tokens}, "fill_interval": "3600s"}}}}"#
        )
    };
    let one = configured::<LocalRateLimit>(&json(1), &store).unwrap();
    let same = configured::<LocalRateLimit>(&json(1), &store).unwrap();
    assert_eq!(one.create().on_new_connection(&connection()), ReadVerdict::Continue);
    let limited = connection();
    assert_eq!(same.create().on_new_connection(&limited), CLOSE);
    let flags = limited.record().unwrap().borrow().flags;
    assert!(flags.contains(ResponseFlag::UpstreamRetryLimitExceeded));
    let other = configured::<LocalRateLimit>(&json(2), &store).unwrap();
    assert_eq!(other.create().on_new_connection(&connection()), ReadVerdict::Continue);
    assert_eq!(stat(&store, "local_rate_limit.p.rate_limited"), Some(1));
    let short = json(1).replace("3600s", "0.01s");
    let error = configured::<LocalRateLimit>(&short, &store).unwrap_err();
    assert!(error.contains("fill timer must be >= 50ms"), "{error}");
}

#[test]
fn rules_are_asked_once_when_bytes_come() {
    use dhow_proto::envoy::extensions::filters::network::rbac::v3::Rbac;
    let store = Store::new();
    let any = r#""permissions": [{"any": true}], "principals": [{"any": true}]"#;
    let json = format!(
        r#"{{"stat_prefix": "p.", "rules": {{"action": "DENY", "policies": {{"no way": {{{any}}}}}}}, "shadow_rules": {{"policies": {{"s": {{{any}}}}}}}}}"#
    );
    let factory = configured::<Rbac>(&json, &store).unwrap();
    let connection = connection();
    let mut filter = factory.create();
    assert_eq!(filter.on_new_connection(&connection), ReadVerdict::Continue);
    assert!(filter.watches_data());
    assert_eq!(filter.on_data(&connection), CLOSE);
    assert!(!filter.watches_data());
    let record = connection.record().unwrap();
    assert_eq!(
        record.borrow().termination_details.as_deref(),
        Some("rbac_access_denied_matched_policy[no_way]")
    );
    assert!(record.borrow().dynamic_metadata.get("envoy.filters.network.rbac").is_some());
    assert_eq!(stat(&store, "p.rbac.denied"), Some(1));
    assert_eq!(stat(&store, "p.rbac.shadow_allowed"), Some(1));
    let header = json.replace(r#"{"any": true}]"#, r#"{"header": {"name": "a", "present_match": true}}]"#);
    assert!(
        configured::<Rbac>(&header, &store).unwrap_err().contains("not supported by RBAC network filter")
    );
}

#[test]
fn the_connection_gets_formatted_objects() {
    use dhow_proto::envoy::extensions::filters::network::set_filter_state::v3::Config;
    let json = r#"{"on_new_connection": [{"object_key": "k", "factory_key": "envoy.string",
        "format_string": {"text_format_source": {"inline_string": "of %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"}}}]}"#;
    let factory = configured::<Config>(json, &Store::new()).unwrap();
    let connection = connection();
    assert_eq!(factory.create().on_new_connection(&connection), ReadVerdict::Continue);
    let state = connection.record().unwrap().borrow().filter_state.text("k");
    assert_eq!(state.as_deref(), Some(&b"of 127.0.0.2"[..]));
}
