//! The extensions (TLVs) of a PROXY protocol header: what is kept of them, and where.

use std::rc::Rc;

use dhow_expr::FilterStateObject;
use dhow_net::proxy_protocol::Tlv;
use dhow_proto::envoy::config::core::v3::ProxyProtocolPassThroughTlVs;
use dhow_proto::envoy::config::core::v3::proxy_protocol_pass_through_tl_vs::PassTlVsMatchType;
use dhow_proto::envoy::extensions::filters::listener::proxy_protocol::v3::proxy_protocol as pb;
use dhow_proxy_api::{ConnectionRecord, FilterStateValue};

/// The namespace of rules that name none.
const NAMESPACE: &str = "envoy.filters.listener.proxy_protocol";
/// The object of the filter state, with a field for each rule.
const OBJECT: &str = "envoy.network.proxy_protocol.tlv";

/// What becomes of extensions.
#[derive(Debug)]
pub(crate) struct ExtensionRules {
    rules: Box<[Rule]>,
    /// `tlv_location` is FILTER_STATE; else rules write dynamic metadata.
    to_filter_state: bool,
    passed: Passed,
}

/// One of `rules`: the text of an extension goes under a key.
#[derive(Debug)]
struct Rule {
    kind: u8,
    namespace: Box<str>,
    key: Box<str>,
    base64: bool,
}

/// `pass_through_tlvs`: which extensions go along to hosts.
#[derive(Debug)]
enum Passed {
    None,
    All,
    Some(Box<[u8]>),
}

/// The texts of extensions by the keys of their rules.
#[derive(Debug)]
struct Fields(Vec<(Box<str>, String)>);

impl FilterStateObject for Fields {
    fn append_text(&self, _out: &mut Vec<u8>) -> bool {
        false
    }

    fn append_json(&self, _out: &mut Vec<u8>) -> bool {
        false
    }

    fn append_field(&self, field: &str, out: &mut Vec<u8>) -> bool {
        let Some((_, text)) = self.0.iter().find(|(key, _)| **key == *field) else { return false };
        out.extend_from_slice(text.as_bytes());
        true
    }
}

impl ExtensionRules {
    pub(crate) fn lower(
        rules: Vec<pb::Rule>,
        to_filter_state: bool,
        passed: Option<ProxyProtocolPassThroughTlVs>,
    ) -> Self {
        let rule = |pb::Rule { tlv_type, on_tlv_present }| {
            let pb::KeyValuePair { metadata_namespace, key, value_string_encoding } = on_tlv_present?;
            Some(Rule {
                // Larger numbers do not pass the rules of the message.
                kind: u8::try_from(tlv_type).ok()?,
                namespace: if metadata_namespace.is_empty() {
                    NAMESPACE.into()
                } else {
                    metadata_namespace.into()
                },
                key: key.into(),
                base64: value_string_encoding == pb::key_value_pair::ValueStringEncoding::Base64 as i32,
            })
        };
        let passed = passed.map(|ProxyProtocolPassThroughTlVs { match_type, tlv_type }| {
            if match_type == PassTlVsMatchType::IncludeAll as i32 {
                return Passed::All;
            }
            Passed::Some(tlv_type.into_iter().filter_map(|kind| u8::try_from(kind).ok()).collect())
        });
        Self {
            rules: rules.into_iter().filter_map(rule).collect(),
            to_filter_state,
            passed: passed.unwrap_or(Passed::None),
        }
    }

    /// What is kept of a header and its extensions.
    pub(crate) fn keep(&self, mut tlvs: Vec<Tlv>) -> Box<ConnectionRecord> {
        let mut record = ConnectionRecord::default();
        let mut fields = Vec::new();
        for tlv in &tlvs {
            for rule in self.rules.iter().filter(|rule| rule.kind == tlv.kind) {
                let text =
                    if rule.base64 { dhow_base::base64::encode(&tlv.value) } else { sanitized(&tlv.value) };
                match self.to_filter_state {
                    true => fields.push((rule.key.clone(), text)),
                    false => record.dynamic_metadata.set_text(&rule.namespace, &rule.key, &text),
                }
            }
        }
        if !fields.is_empty() {
            // A later extension goes over an earlier one with the same key.
            fields.reverse();
            record.filter_state.set(OBJECT, FilterStateValue::Object(Rc::new(Fields(fields))));
        }
        tlvs.retain(|tlv| match &self.passed {
            Passed::None => false,
            Passed::All => true,
            Passed::Some(kinds) => kinds.contains(&tlv.kind),
        });
        record.proxy_extensions = Some(tlvs);
        Box::new(record)
    }
}

/// The bytes as text, with `!` for each that is not part of UTF-8.
fn sanitized(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| '!'));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(to_filter_state: bool) -> ExtensionRules {
        let rule = |tlv_type, namespace: &str, key: &str, encoding| pb::Rule {
            tlv_type,
            on_tlv_present: Some(pb::KeyValuePair {
                metadata_namespace: namespace.into(),
                key: key.into(),
                value_string_encoding: encoding,
            }),
        };
        let passed = ProxyProtocolPassThroughTlVs { match_type: 1, tlv_type: vec![5] };
        ExtensionRules::lower(
            vec![rule(2, "", "authority", 0), rule(0xea, "ns", "id", 2)],
            to_filter_state,
            Some(passed),
        )
    }

    fn tlv(kind: u8, value: &[u8]) -> Tlv {
        Tlv { kind, value: value.to_vec() }
    }

    #[test]
    fn rules_write_metadata_and_the_rest_is_passed_on_or_forgotten() {
        let tlvs = vec![tlv(2, b"a\xffb"), tlv(5, b"five"), tlv(0xea, b"\x01"), tlv(9, b"nine")];
        let record = rules(false).keep(tlvs);
        let text = |namespace: &str, key: &str| {
            format!("{:?}", record.dynamic_metadata.get(namespace).unwrap().fields[key].kind)
        };
        assert!(text(NAMESPACE, "authority").contains("a!b"));
        assert!(text("ns", "id").contains("AQ=="));
        assert_eq!(record.proxy_extensions, Some(vec![tlv(5, b"five")]));
        assert_eq!(rules(false).keep(vec![tlv(9, b"nine")]).proxy_extensions, Some(Vec::new()));
    }

    #[test]
    fn the_filter_state_has_a_field_for_each_key() {
        let record = rules(true).keep(vec![tlv(2, b"first"), tlv(2, b"second")]);
        assert!(record.dynamic_metadata.is_empty());
        let mut text = Vec::new();
        assert!(record.filter_state.get(OBJECT).unwrap().append_field("authority", &mut text));
        assert_eq!(text, b"second");
        assert!(!record.filter_state.get(OBJECT).unwrap().append_field("none", &mut text));
    }
}
