//! What contexts find under a name.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dhow_proto::envoy::config::core::v3::{
    ConfigSource, PathConfigSource, config_source::ConfigSourceSpecifier,
};

use super::*;
use crate::pb::CommonTlsContext;

fn validation(name: &str, context: CertificateValidationContext) -> Secret {
    Secret { name: name.to_owned(), r#type: Some(Type::ValidationContext(context)) }
}

fn named(name: &str) -> SdsSecretConfig {
    SdsSecretConfig { name: name.to_owned(), sds_config: None }
}

fn pinned(hash: &str) -> CertificateValidationContext {
    CertificateValidationContext { verify_certificate_hash: vec![hash.to_owned()], ..Default::default() }
}

#[test]
fn a_context_is_found_by_name_and_merged_over_the_default() {
    let path = FieldPath::root();
    let secrets = Secrets::from_messages(vec![validation("a", pinned("1"))], &path).unwrap();
    assert_eq!(secrets.validation(&named("a"), None, &path).unwrap(), Some(pinned("1")));
    let merged = secrets.validation(&named("a"), Some(&pinned("2")), &path).unwrap().unwrap();
    assert_eq!(merged.verify_certificate_hash, ["2", "1"]);
    let error = secrets.validation(&named("b"), None, &path).unwrap_err().to_string();
    assert!(error.contains("Unknown static certificate validation context: b"), "{error}");
    let error = secrets.certificate(&named("a"), &path).unwrap_err().to_string();
    assert!(error.contains("Unknown static secret: a"), "{error}");
}

#[test]
fn names_are_unique() {
    let twice = vec![validation("a", pinned("1")), validation("a", pinned("2"))];
    let error = Secrets::from_messages(twice, &FieldPath::root()).unwrap_err().to_string();
    assert!(error.contains("Duplicate static certificate validation context name a"), "{error}");
}

fn in_file(name: &str) -> SdsSecretConfig {
    let source = PathConfigSource { path: "/file".to_owned(), ..Default::default() };
    let source = ConfigSource {
        config_source_specifier: Some(ConfigSourceSpecifier::PathConfigSource(source)),
        ..Default::default()
    };
    SdsSecretConfig { name: name.to_owned(), sds_config: Some(source) }
}

#[test]
fn a_delivered_secret_is_missing_until_it_comes_and_a_bad_one_changes_nothing() {
    let path = FieldPath::root();
    let secrets = Secrets::default();
    let config = in_file("a");
    assert_eq!(secrets.validation(&config, None, &path), Ok(None));
    let place = SecretPlace::of(&config, &path).unwrap().unwrap();
    let good = "ab".repeat(32);
    secrets.deliver(&place, validation("a", pinned(&good))).unwrap();
    assert_eq!(secrets.validation(&config, None, &path), Ok(Some(pinned(&good))));
    assert!(secrets.deliver(&place, validation("a", pinned("no hash"))).is_err());
    assert_eq!(secrets.validation(&config, None, &path), Ok(Some(pinned(&good))));
}

#[test]
fn a_place_is_followed_once_and_one_that_cannot_be_is_refused() {
    let followed = Arc::new(AtomicUsize::new(0));
    let secrets = Secrets::default();
    let count = followed.clone();
    secrets.set_follower(move |place| match place.name.as_str() {
        "bad" => Err("no such file".to_owned()),
        _ => {
            count.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
    });
    let context = |name: &str| CommonTlsContext {
        tls_certificate_sds_secret_configs: vec![in_file(name)],
        ..Default::default()
    };
    let path = FieldPath::root();
    for _ in 0..2 {
        assert_eq!(secrets.follow(Some(&context("a")), &path, None).unwrap().len(), 1);
    }
    assert_eq!(followed.load(Ordering::Relaxed), 1);
    let error = secrets.follow(Some(&context("bad")), &path, None).unwrap_err().to_string();
    assert!(error.contains("no such file"), "{error}");
}
