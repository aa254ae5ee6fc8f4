use super::*;
use crate::pb::{SdsSecretConfig, tls_parameters::TlsProtocol};

fn issued() -> Issued {
    Authority::new("root").issue(&["a"], &[])
}

fn server_error(change: impl FnOnce(&mut DownstreamTlsContext)) -> String {
    let mut message = server_message(common(&[&issued()], None, &[]));
    change(&mut message);
    server(&message).map(|_| ()).unwrap_err().to_string()
}

fn client_error(change: impl FnOnce(&mut UpstreamTlsContext)) -> String {
    let mut message = client_message(common(&[], None, &[]));
    change(&mut message);
    client(&message).map(|_| ()).unwrap_err().to_string()
}

fn parameters(message: &mut DownstreamTlsContext) -> &mut TlsParameters {
    message.common_tls_context.as_mut().unwrap().tls_params.get_or_insert_default()
}

#[test]
fn a_server_needs_a_certificate() {
    let error = server_error(|message| message.common_tls_context.as_mut().unwrap().tls_certificates.clear());
    assert_eq!(error, "tls.common_tls_context: No TLS certificates found for server context");
}

#[test]
fn certificates_and_keys_that_cannot_be_used_are_named() {
    let at = "tls.common_tls_context.tls_certificates[0]";
    let with = |change: fn(&mut TlsCertificate)| {
        server_error(|message| change(&mut message.common_tls_context.as_mut().unwrap().tls_certificates[0]))
    };
    let error = with(|c| c.certificate_chain = Some(inline("x")));
    assert_eq!(error, format!("{at}.certificate_chain: Failed to load certificate chain from <inline>"));
    let error = with(|c| c.private_key = Some(inline("x")));
    assert!(
        error.starts_with(&format!("{at}.private_key: Failed to load private key from <inline>")),
        "{error}"
    );
    let error = with(|c| c.private_key = Some(inline(&issued().key)));
    assert!(error.starts_with(&format!("{at}.private_key: Failed to load private key")), "{error}");
    let error = with(|c| c.private_key = None);
    assert_eq!(error, format!("{at}.private_key: Failed to load incomplete private key from path: "));
    let error = with(|c| *c = TlsCertificate::default());
    assert_eq!(error, format!("{at}: Server TlsCertificates must have a certificate specified"));
    let missing = |c: &mut TlsCertificate| {
        c.certificate_chain = Some(DataSource {
            specifier: Some(data_source::Specifier::Filename("/nonexistent/chain.pem".into())),
            watched_directory: None,
        });
    };
    let error = with(missing);
    let expected = format!(
        "{at}.certificate_chain: Failed to load incomplete certificate from /nonexistent/chain.pem: certificate chain \
         not set (No such file or directory (os error 2))"
    );
    assert_eq!(error, expected);
    let error = with(|c| c.ocsp_staple = Some(inline("x")));
    assert_eq!(error, format!("{at}.ocsp_staple: OCSP staple cannot be provided via inline_string"));
}

#[test]
fn what_is_not_supported_is_refused_by_its_path() {
    let error = server_error(|message| {
        let delivered = SdsSecretConfig { sds_config: Some(Default::default()), ..Default::default() };
        message.common_tls_context.as_mut().unwrap().tls_certificate_sds_secret_configs.push(delivered);
    });
    let expected = "tls.common_tls_context.tls_certificate_sds_secret_configs[0].sds_config: ";
    assert!(error.starts_with(expected), "{error}");
    let error = server_error(|message| message.ocsp_staple_policy = 2);
    assert!(error.starts_with("tls.ocsp_staple_policy: "), "{error}");
    let error = client_error(|message| message.allow_renegotiation = true);
    assert!(error.starts_with("tls.allow_renegotiation: "), "{error}");
}

#[test]
fn names_without_an_authority_are_refused() {
    let error = client_error(|message| {
        let kind = subject_alt_name_matcher::SanType::Dns;
        let validation = CertificateValidationContext {
            match_typed_subject_alt_names: vec![name(kind, "a")],
            ..Default::default()
        };
        message.common_tls_context = Some(common(&[], Some(validation), &[]));
    });
    let expected = "tls.common_tls_context.validation_context: SAN-based verification of peer certificates without \
                    trusted CA is insecure and not allowed";
    assert_eq!(error, expected);
    let error = client_error(|message| message.auto_sni_san_validation = true);
    assert!(error.starts_with("tls.auto_sni_san_validation: "), "{error}");
    let mut message = client_message(common(&[], None, &[]));
    message.sni = "*.example.com".into();
    let (_, warnings) = client(&message).unwrap();
    let expected = "'*.example.com' is not the name of a server: connections are made without one";
    assert!(warnings.iter().any(|warning| warning.to_string().contains(expected)), "{warnings:?}");
}

#[test]
fn an_authority_that_cannot_be_read_is_named() {
    let unreadable = "Failed to load trusted CA certificates from <inline>";
    let damaged = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (pem, reason) in [("", "DataSource cannot be empty"), ("x", unreadable), (damaged, unreadable)] {
        let error = client_error(|message| {
            let validation =
                CertificateValidationContext { trusted_ca: Some(inline(pem)), ..Default::default() };
            message.common_tls_context = Some(common(&[], Some(validation), &[]));
        });
        assert_eq!(error, format!("tls.common_tls_context.validation_context.trusted_ca: {reason}"));
    }
}

#[test]
fn suites_and_groups_are_envoys_by_name() {
    let mut message = server_message(common(&[&issued()], None, &[]));
    parameters(&mut message).cipher_suites =
        ["[ECDHE-ECDSA-AES256-GCM-SHA384|ECDHE-ECDSA-CHACHA20-POLY1305]", "AES128-GCM-SHA256"]
            .map(str::to_owned)
            .into();
    parameters(&mut message).ecdh_curves = ["P-521", "P-256"].map(str::to_owned).into();
    let (server, warnings) = server(&message).unwrap();
    let warnings: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "tls.common_tls_context.tls_params.cipher_suites[1]: the cipher suite AES128-GCM-SHA256 is not supported \
             and left out",
            "tls.common_tls_context.tls_params.ecdh_curves[0]: the group P-521 is not supported and left out",
        ]
    );
    run(async {
        let (client, _) = client(&client_message(common(&[], None, &[]))).unwrap();
        let (near, _) = shake(&client, &server, &ConnectOptions::default()).await;
        let info = near.unwrap().1;
        // Of equals the client's first one.
        assert_eq!((info.cipher, info.group), ("ECDHE-ECDSA-CHACHA20-POLY1305", "P-256"));
    });

    let error = server_error(|message| parameters(message).cipher_suites = vec!["NONE".into()]);
    let at = "tls.common_tls_context.tls_params";
    assert_eq!(
        error,
        format!("{at}.cipher_suites[0]: Failed to initialize cipher suites: NONE is not known")
    );
    let error = server_error(|message| parameters(message).cipher_suites = vec!["AES128-SHA".into()]);
    assert_eq!(error, format!("{at}.cipher_suites: none of the cipher suites is supported"));
    let error = server_error(|message| parameters(message).ecdh_curves = vec!["X448".into()]);
    assert_eq!(error, format!("{at}.ecdh_curves[0]: Failed to initialize ECDH curves: X448 is not known"));
}

#[test]
fn versions_that_do_not_exist_here_are_refused_or_raised() {
    let error =
        server_error(|message| parameters(message).tls_maximum_protocol_version = TlsProtocol::TlSv11 as i32);
    assert!(error.contains("tls_maximum_protocol_version: TLS 1.0 and 1.1 are not supported"), "{error}");
    let error = client_error(|message| {
        let common = message.common_tls_context.as_mut().unwrap();
        common.tls_params = Some(TlsParameters {
            tls_minimum_protocol_version: TlsProtocol::TlSv13 as i32,
            ..Default::default()
        });
    });
    assert!(error.contains("tls_minimum_protocol_version: is above the maximum"), "{error}");
    let mut message = server_message(common(&[&issued()], None, &[]));
    parameters(&mut message).tls_minimum_protocol_version = TlsProtocol::TlSv10 as i32;
    assert_eq!(server(&message).unwrap().1.len(), 1);
}

#[test]
fn a_client_has_at_most_one_certificate() {
    let issued = issued();
    let error =
        client_error(|message| message.common_tls_context = Some(common(&[&issued, &issued], None, &[])));
    assert!(error.starts_with("tls.common_tls_context.tls_certificates: Multiple"), "{error}");
}
