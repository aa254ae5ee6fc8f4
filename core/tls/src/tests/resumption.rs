//! Sessions that clients come back with.

use crate::pb::TlsSessionTicketKeys;
use crate::pb::downstream_tls_context::SessionTicketKeysType;

use super::*;

fn key(byte: u8) -> DataSource {
    DataSource {
        specifier: Some(data_source::Specifier::InlineBytes(vec![byte; 80])),
        watched_directory: None,
    }
}

fn with_keys(common: CommonTlsContext, keys: &[u8]) -> DownstreamTlsContext {
    let keys = TlsSessionTicketKeys { keys: keys.iter().map(|byte| key(*byte)).collect() };
    DownstreamTlsContext {
        session_ticket_keys_type: Some(SessionTicketKeysType::SessionTicketKeys(keys)),
        ..server_message(common)
    }
}

/// Whether both sides resumed a session.
async fn resumed(client: &UpstreamTls, message: &DownstreamTlsContext) -> bool {
    let (server, _) = server(message).unwrap();
    let (near, far) = shake(client, &server, &ConnectOptions::default()).await;
    let (mut near, near_info) = near.unwrap();
    let (mut far, far_info) = far.unwrap();
    assert_eq!(near_info.resumed, far_info.resumed);
    // Tickets of TLS 1.3 come after the handshake, before the first data.
    tokio::io::AsyncWriteExt::write_all(&mut far, b"x").await.unwrap();
    tokio::io::AsyncReadExt::read_exact(&mut near, &mut [0]).await.unwrap();
    far_info.resumed
}

#[test]
fn servers_with_the_same_keys_and_demands_know_each_others_tickets() {
    run(async {
        let authority = Authority::new("root");
        let issued = authority.issue(&["a.example"], &[]);
        let plain = common(&[&issued], None, &[]);
        for params in [None, Some(up_to_13())] {
            let message = UpstreamTlsContext {
                sni: "a.example".into(),
                ..client_message(CommonTlsContext {
                    tls_params: params,
                    ..common(&[&authority.issue(&[], &["spiffe://a"])], None, &[])
                })
            };
            let (client, _) = client(&message).unwrap();
            assert!(!resumed(&client, &with_keys(plain.clone(), &[1])).await);
            assert!(resumed(&client, &with_keys(plain.clone(), &[1])).await);
            assert!(resumed(&client, &with_keys(plain.clone(), &[2, 1])).await);
            // What the second key decrypted came back under the first.
            assert!(resumed(&client, &with_keys(plain.clone(), &[2])).await);
            assert!(!resumed(&client, &with_keys(plain.clone(), &[1])).await);
            // A server that verifies clients does not take it from one that did not.
            let verifying = common(&[&issued], Some(trusting(&authority)), &[]);
            assert!(!resumed(&client, &with_keys(verifying.clone(), &[1])).await);
            assert!(resumed(&client, &with_keys(verifying, &[1])).await);
        }
    });
}

#[test]
fn resumption_can_be_switched_off() {
    run(async {
        let issued = Authority::new("root").issue(&["a.example"], &[]);
        for (stateless, stateful, version, expected) in [
            (true, true, 3, false),
            (true, true, 4, false),
            (true, false, 3, true),
            (true, false, 4, false),
            (false, true, 3, true),
            (false, true, 4, true),
        ] {
            let params = TlsParameters {
                tls_minimum_protocol_version: version,
                tls_maximum_protocol_version: version,
                ..Default::default()
            };
            let message = UpstreamTlsContext {
                sni: "a.example".into(),
                ..client_message(CommonTlsContext { tls_params: Some(params), ..common(&[], None, &[]) })
            };
            let (client, _) = client(&message).unwrap();
            let disabled = SessionTicketKeysType::DisableStatelessSessionResumption(stateless);
            let message = DownstreamTlsContext {
                session_ticket_keys_type: Some(disabled),
                disable_stateful_session_resumption: stateful,
                ..server_message(common(&[&issued], None, &[]))
            };
            let (server, _) = server(&message).unwrap();
            let mut last = false;
            for _ in 0..2 {
                let (near, far) = shake(&client, &server, &ConnectOptions::default()).await;
                let (mut near, mut far) = (near.unwrap().0, far.unwrap());
                tokio::io::AsyncWriteExt::write_all(&mut far.0, b"x").await.unwrap();
                tokio::io::AsyncReadExt::read_exact(&mut near, &mut [0]).await.unwrap();
                last = far.1.resumed;
            }
            assert_eq!(
                last,
                expected,
                "stateless off {stateless}, stateful off {stateful}, 1.{}",
                version - 1
            );
        }
    });
}

#[test]
fn keys_have_80_bytes() {
    let issued = Authority::new("root").issue(&["a.example"], &[]);
    let mut message = with_keys(common(&[&issued], None, &[]), &[1]);
    for (keys, expected) in [
        (vec![], "value must contain at least 1 item(s)"),
        (vec![inline("abc")], "Incorrect TLS session ticket key length. Length 3, expected length 80."),
        (vec![key(1), inline("")], "DataSource cannot be empty"),
    ] {
        let keys = SessionTicketKeysType::SessionTicketKeys(TlsSessionTicketKeys { keys });
        message.session_ticket_keys_type = Some(keys);
        let error = server(&message).unwrap_err().to_string();
        assert!(error.starts_with("tls.session_ticket_keys.keys") && error.ends_with(expected), "{error}");
    }
}

#[test]
fn chains_have_a_depth() {
    run(async {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "middle");
        let root = Authority::new("root");
        let key = KeyPair::generate().unwrap();
        let middle = params.signed_by(&key, &root.issuer).unwrap();
        let between = rcgen::Issuer::new(params, key);
        let mut leaf = CertificateParams::new(vec!["leaf.example".to_owned()]).unwrap();
        leaf.distinguished_name.push(DnType::CommonName, "leaf");
        let key = KeyPair::generate().unwrap();
        let leaf = leaf.signed_by(&key, &between).unwrap();
        let long =
            Issued { certificate: format!("{}{}", leaf.pem(), middle.pem()), key: key.serialize_pem() };
        let short = root.issue(&["leaf.example"], &[]);
        for (depth, issued, good) in
            [(0, &short, true), (0, &long, false), (1, &short, true), (1, &long, false), (2, &long, true)]
        {
            let (server, _) = server(&server_message(common(&[issued], None, &[]))).unwrap();
            let validation = CertificateValidationContext {
                max_verify_depth: Some(dhow_proto::google::protobuf::UInt32Value { value: depth }),
                ..trusting(&root)
            };
            let (client, _) = client(&client_message(common(&[], Some(validation), &[]))).unwrap();
            let (near, _) = shake(&client, &server, &ConnectOptions::default()).await;
            assert_eq!(near.is_ok(), good, "depth {depth}");
        }
    });
}
