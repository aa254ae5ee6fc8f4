use std::sync::Arc;

use super::*;

fn tls() -> TlsInfo {
    let peer = CertificateFacts {
        subject: r#"CN=client,O=Acme\, \"Inc\""#.into(),
        issuer: "CN=ca".into(),
        fingerprint: "ab12".into(),
        uris: vec!["spiffe://td/client".into(), "http://x/y".into()],
        dns_names: vec!["a.test".into(), "b.test".into()],
        ..CertificateFacts::default()
    };
    let local = CertificateFacts { uris: vec!["spiffe://td/server".into()], ..CertificateFacts::default() };
    TlsInfo { peer: Some(Arc::new(peer)), local: Some(Arc::new(local)), ..TlsInfo::default() }
}

fn applied(config: ClientCertificateConfig, tls: Option<&TlsInfo>, present: Option<&str>) -> Option<String> {
    let mut head = HeaderMap::default();
    if let Some(present) = present {
        head.append_known(KnownHeader::XForwardedClientCert, present.as_bytes());
    }
    config.apply(tls, &mut head);
    head.get_known(KnownHeader::XForwardedClientCert).map(|value| String::from_utf8(value.to_vec()).unwrap())
}

fn mode(mode: ForwardMode) -> ClientCertificateConfig {
    ClientCertificateConfig { mode, ..ClientCertificateConfig::default() }
}

const MINIMAL: &str = "By=spiffe://td/server;Hash=ab12";

#[test]
fn modes_decide_over_the_header_that_came() {
    use ForwardMode::*;
    let tls = tls();
    let without = TlsInfo::default();
    let appended = format!("By=x,{MINIMAL}");
    let table = [
        (Sanitize, None, None, None),
        (ForwardOnly, Some("By=x"), None, None),
        (AppendForward, Some(appended.as_str()), None, None),
        (SanitizeSet, Some(MINIMAL), None, None),
        (AlwaysForwardOnly, Some("By=x"), Some("By=x"), Some("By=x")),
    ];
    for (case, mutual, one_sided, plain) in table {
        assert_eq!(
            applied(mode(case), Some(&tls), Some("By=x")).as_deref(),
            mutual,
            "{case:?} with a certificate"
        );
        assert_eq!(
            applied(mode(case), Some(&without), Some("By=x")).as_deref(),
            one_sided,
            "{case:?} without"
        );
        assert_eq!(applied(mode(case), None, Some("By=x")).as_deref(), plain, "{case:?} in clear text");
    }
}

#[test]
fn details_come_in_envoys_order() {
    let config = ClientCertificateConfig {
        subject: true,
        uri: true,
        dns: true,
        issuer: true,
        ..mode(ForwardMode::SanitizeSet)
    };
    let expected = concat!(
        r#"By=spiffe://td/server;Hash=ab12;Subject="CN=client,O=Acme\, \"Inc\"";URI=spiffe://td/client;"#,
        r#"URI=http://x/y;DNS=a.test;DNS=b.test;Issuer="CN=ca""#
    );
    assert_eq!(applied(config, Some(&tls()), None).as_deref(), Some(expected));
}

#[test]
fn a_wanted_uri_is_named_even_when_there_is_none() {
    let mut tls = tls();
    tls.peer = Some(Arc::new(CertificateFacts { fingerprint: "cd".into(), ..CertificateFacts::default() }));
    let config =
        ClientCertificateConfig { subject: true, uri: true, dns: true, ..mode(ForwardMode::SanitizeSet) };
    let expected = r#"By=spiffe://td/server;Hash=cd;Subject="";URI="#;
    assert_eq!(applied(config, Some(&tls), None).as_deref(), Some(expected));
    let json = ClientCertificateConfig { json: true, ..config };
    let expected = r#"[{"by":["spiffe://td/server"],"hash":"cd"}]"#;
    assert_eq!(applied(json, Some(&tls), None).as_deref(), Some(expected));
}

#[test]
fn appending_follows_the_form_that_is_there() {
    let text = ClientCertificateConfig { subject: true, ..mode(ForwardMode::AppendForward) };
    let json = ClientCertificateConfig { json: true, ..text };
    let object = r#"{"by":["spiffe://td/server"],"hash":"ab12","subject":"CN=client,O=Acme\\, \\\"Inc\\\""}"#;
    let element = r#"By=spiffe://td/server;Hash=ab12;Subject="CN=client,O=Acme\, \"Inc\"""#;
    assert_eq!(
        applied(text, Some(&tls()), Some(r#"[{"by":"x"}]"#)),
        Some(format!(r#"[{{"by":"x"}},{object}]"#))
    );
    assert_eq!(applied(json, Some(&tls()), Some("By=x")), Some(format!("By=x,{element}")));
    assert_eq!(applied(json, Some(&tls()), None), Some(format!("[{object}]")));
}

#[test]
fn certificates_are_url_encoded() {
    let mut tls = tls();
    tls.peer_chain = vec![vec![0xfb, 0xff], vec![0xff; 3]];
    let config = ClientCertificateConfig { chain: true, ..mode(ForwardMode::SanitizeSet) };
    let one = |body: &str| format!("-----BEGIN%20CERTIFICATE-----%0A{body}%0A-----END%20CERTIFICATE-----%0A");
    let expected = format!("{MINIMAL};Chain=\"{}{}\"", one("%2B%2F8%3D"), one("%2F%2F%2F%2F"));
    assert_eq!(applied(config, Some(&tls), None), Some(expected));
}
