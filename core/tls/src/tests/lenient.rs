//! Certificates as the usual `openssl` command lines make them.

use rcgen::{PublicKeyData, SigningKey};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::*;
use crate::TlsFailure;

/// One DER element.
fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let mut out = vec![tag];
    match content.len() {
        length @ 0..=127 => out.push(length as u8),
        length => {
            out.push(0x82);
            out.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
    }
    out.extend(content);
    out
}

fn pem(certificate: &[u8]) -> String {
    crate::CertificateFacts { der: certificate.to_vec(), ..Default::default() }.to_pem()
}

/// A certificate of version 1: `openssl x509 -req` without an extension file. Its validity is given by two dates.
fn version_1(authority: &Authority, dates: [&str; 2]) -> Issued {
    const ECDSA_WITH_SHA256: &[u8] = &[0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
    let root = authority.issuer.der();
    let (_, root) = X509Certificate::from_der(root).unwrap();
    let key = KeyPair::generate().unwrap();
    let name = root.subject().as_raw();
    let dates = dates.map(|date| der(0x18, &[date.as_bytes()]));
    let validity = der(0x30, &[&dates[0], &dates[1]]);
    let tbs =
        der(0x30, &[&[2, 1, 7], ECDSA_WITH_SHA256, name, &validity, name, &key.subject_public_key_info()]);
    let signature = authority.issuer.key().sign(&tbs).unwrap();
    let certificate = der(0x30, &[&tbs, ECDSA_WITH_SHA256, &der(3, &[&[0], &signature])]);
    Issued { certificate: pem(&certificate), key: key.serialize_pem() }
}

const NOW: [&str; 2] = ["20200101000000Z", "20990101000000Z"];

async fn outcome(
    issued: &Issued,
    trusted: &Authority,
    parameters: Option<TlsParameters>,
) -> Result<TlsInfo, String> {
    let (server, _) = server(&server_message(common(&[issued], None, &[]))).unwrap();
    let common = CommonTlsContext { tls_params: parameters, ..common(&[], Some(trusting(trusted)), &[]) };
    let (client, _) = client(&client_message(common)).unwrap();
    let (near, _far) = shake(&client, &server, &ConnectOptions::default()).await;
    near.map(|(_, info)| info).map_err(|error| {
        assert!(TlsFailure::of(&error).is_some_and(TlsFailure::is_verification), "{error}");
        error.to_string()
    })
}

#[test]
fn a_certificate_that_is_itself_trusted_is_accepted() {
    run(async {
        let authority = Authority::new("self-signed");
        let own = Issued { certificate: authority.pem(), key: authority.issuer.key().serialize_pem() };
        let info = outcome(&own, &authority, None).await.unwrap();
        assert!(info.peer_verified);
        assert!(outcome(&own, &Authority::new("self-signed"), None).await.is_err());
    });
}

#[test]
fn certificates_of_version_1_are_accepted_from_the_authority_itself() {
    run(async {
        let authority = Authority::new("root");
        let issued = version_1(&authority, NOW);
        for parameters in [None, Some(up_to_13())] {
            let info = outcome(&issued, &authority, parameters).await.unwrap();
            assert_eq!(info.peer.unwrap().serial, "07");
        }
        // Another authority with the same name signed with another key.
        assert!(outcome(&issued, &Authority::new("root"), None).await.is_err());
        let expired = version_1(&authority, ["20200101000000Z", "20210101000000Z"]);
        assert!(outcome(&expired, &authority, None).await.is_err());
    });
}

#[test]
fn a_server_with_the_wrong_key_for_a_certificate_of_version_1_is_refused() {
    let authority = Authority::new("root");
    let mut issued = version_1(&authority, NOW);
    issued.key = KeyPair::generate().unwrap().serialize_pem();
    let error = server(&server_message(common(&[&issued], None, &[]))).map(|_| ()).unwrap_err();
    assert!(error.to_string().ends_with("Cause: KEY_VALUES_MISMATCH"), "{error}");
}
