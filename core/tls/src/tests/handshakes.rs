use std::cell::Cell;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use dhow_net::SecureStream;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::subject_alt_name_matcher::SanType as NameKind;
use super::*;
use crate::TlsFailure;
use crate::validation::{OtherNames, Validation};
use crate::verifier::UpstreamVerifier;

fn text_of(side: Side) -> String {
    side.map(|(_, info)| format!("{info:?}")).unwrap_err().to_string()
}

#[test]
fn data_crosses_and_both_sides_know_the_session() {
    run(async {
        let authority = Authority::new("root");
        let (server, _) = server(&server_message(common(
            &[&authority.issue(&["a.example"], &[])],
            None,
            &["h2", "http/1.1"],
        )))
        .unwrap();
        let message = UpstreamTlsContext {
            sni: "a.example".into(),
            ..client_message(CommonTlsContext {
                tls_params: Some(up_to_13()),
                ..common(&[], Some(trusting(&authority)), &["http/1.1"])
            })
        };
        let (client, _) = client(&message).unwrap();
        let (near, far) = shake(&client, &server, &ConnectOptions::default()).await;
        let (mut near, near_info) = near.unwrap();
        let (mut far, far_info) = far.unwrap();
        for info in [&near_info, &far_info] {
            assert_eq!(info.server_name.as_deref(), Some("a.example"));
            assert_eq!(info.alpn.as_deref(), Some(&b"http/1.1"[..]));
            assert_eq!(info.version, "TLSv1.3");
            assert_eq!(info.group, "X25519MLKEM768");
            assert_eq!(info.cipher, "TLS_AES_128_GCM_SHA256");
        }
        let peer = near_info.peer.unwrap();
        // The last attribute of the name comes first.
        assert_eq!(peer.subject, "O=Dhow\\, Tests,CN=a.example");
        assert_eq!(peer.issuer, "CN=root");
        assert_eq!(peer.dns_names, ["a.example"]);
        assert_eq!(peer.fingerprint.len(), 64);
        assert!(peer.not_before < peer.not_after);
        assert!(near_info.peer_verified && !far_info.peer_verified);
        assert_eq!(far_info.local.unwrap().fingerprint, peer.fingerprint);
        assert!(peer.to_pem().starts_with("-----BEGIN CERTIFICATE-----\n"));

        let sent = vec![b'x'; 300_000];
        let mut received = vec![0; sent.len()];
        let (written, read) = tokio::join!(
            async {
                near.write_all(&sent).await?;
                near.flush().await
            },
            far.read_exact(&mut received)
        );
        written.unwrap();
        read.unwrap();
        assert_eq!(sent, received);
        near.shutdown().await.unwrap();
        assert_eq!(far.read(&mut [0; 16]).await.unwrap(), 0);
        far.write_all(b"after").await.unwrap();
        let mut answer = [0; 5];
        near.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"after");
    });
}

#[test]
fn clients_stay_at_tls_12_by_default() {
    run(async {
        let issued = Authority::new("root").issue(&["a.example"], &[]);
        let (server, _) = server(&server_message(common(&[&issued], None, &[]))).unwrap();
        let (client, _) = client(&client_message(common(&[], None, &[]))).unwrap();
        let (near, far) = shake(&client, &server, &ConnectOptions::default()).await;
        let info = near.unwrap().1;
        assert_eq!((info.version, info.cipher), ("TLSv1.2", "ECDHE-ECDSA-AES128-GCM-SHA256"));
        assert_eq!((info.server_name, info.peer_verified), (None, false));
        assert_eq!(far.unwrap().1.server_name, None);
    });
}

#[test]
fn the_certificate_is_chosen_by_the_server_name() {
    run(async {
        let authority = Authority::new("root");
        let [first, exact, wildcard] = [&["first.example"], &["b.example"], &["*.wild.example"]]
            .map(|names| authority.issue(names, &[]));
        let (server, _) = server(&server_message(common(&[&first, &exact, &wildcard], None, &[]))).unwrap();
        let (client, _) = client(&client_message(common(&[], None, &[]))).unwrap();
        for (asked, expected) in [
            ("b.example", "b.example"),
            ("x.wild.example", "*.wild.example"),
            ("y.x.wild.example", "first.example"),
            ("other", "first.example"),
            ("outbound_.9080_._.reviews.default.svc.cluster.local", "first.example"),
        ] {
            let options = ConnectOptions { server_name: Some(asked.into()), ..Default::default() };
            let (near, far) = shake(&client, &server, &options).await;
            assert_eq!(near.unwrap().1.peer.unwrap().dns_names, [expected], "{asked}");
            let far = far.unwrap().1;
            assert_eq!(far.server_name.as_deref(), Some(asked));
            assert_eq!(far.local.unwrap().dns_names, [expected]);
        }
    });
}

#[test]
fn a_protocol_that_is_not_shared_is_no_obstacle() {
    run(async {
        let issued = Authority::new("root").issue(&["a"], &[]);
        let (server, _) = server(&server_message(common(&[&issued], None, &["h2"]))).unwrap();
        let (client, _) = client(&client_message(common(&[], None, &["foo"]))).unwrap();
        let (near, far) = shake(&client, &server, &ConnectOptions::default()).await;
        assert_eq!((near.unwrap().1.alpn, far.unwrap().1.alpn), (None, None));
        let options = ConnectOptions { alpn_override: vec![b"h2".to_vec()], ..Default::default() };
        let (near, _) = shake(&client, &server, &options).await;
        assert_eq!(near.unwrap().1.alpn.as_deref(), Some(&b"h2"[..]));
    });
}

#[test]
fn client_certificates_are_required_and_verified() {
    run(async {
        let authority = Authority::new("root");
        let identity = "spiffe://cluster.local/ns/default/sa/reviews";
        let mut message =
            server_message(common(&[&authority.issue(&["s"], &[])], Some(trusting(&authority)), &[]));
        message.require_client_certificate = Some(dhow_proto::google::protobuf::BoolValue { value: true });
        let (server, _) = server(&message).unwrap();

        let (anonymous, _) = client(&client_message(common(&[], None, &[]))).unwrap();
        let (_, far) = shake(&anonymous, &server, &ConnectOptions::default()).await;
        let error = far.unwrap_err();
        assert!(TlsFailure::of(&error).unwrap().is_missing_certificate());
        assert!(error.to_string().contains("PEER_DID_NOT_RETURN_A_CERTIFICATE"), "{error}");

        let (known, _) =
            client(&client_message(common(&[&authority.issue(&[], &[identity])], None, &[]))).unwrap();
        let (near, far) = shake(&known, &server, &ConnectOptions::default()).await;
        let info = far.unwrap().1;
        assert!(info.peer_verified);
        assert_eq!(info.peer.unwrap().uris, [identity]);
        assert_eq!(near.unwrap().1.local.unwrap().uris, [identity]);

        let stranger = Authority::new("other").issue(&[], &[identity]);
        let (stranger, _) = client(&client_message(common(&[&stranger], None, &[]))).unwrap();
        let (_, far) = shake(&stranger, &server, &ConnectOptions::default()).await;
        assert!(TlsFailure::of(&far.unwrap_err()).unwrap().is_verification());
    });
}

#[test]
fn upstream_certificates_are_verified_as_configured() {
    run(async {
        let authority = Authority::new("root");
        let issued = authority.issue(&["a.example", "*.wild.example"], &["spiffe://x/a"]);
        let (server, _) = server(&server_message(common(&[&issued], None, &[]))).unwrap();
        let accepts = async |validation: CertificateValidationContext, options: ConnectOptions| {
            let (client, _) = client(&client_message(common(&[], Some(validation), &[]))).unwrap();
            shake(&client, &server, &options).await.0
        };
        let plain = ConnectOptions::default;
        assert!(accepts(trusting(&authority), plain()).await.is_ok());
        let failure = text_of(accepts(trusting(&Authority::new("other")), plain()).await);
        let start = "TLS_error:|268435581:SSL_routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:";
        assert!(failure.starts_with(start) && failure.ends_with(":TLS_error_end"), "{failure}");
        assert!(!failure.contains(' '), "{failure}");

        for (kind, text, good) in [
            (NameKind::Dns, "a.example", true),
            (NameKind::Dns, "b.wild.example", true),
            (NameKind::Dns, "b.example", false),
            (NameKind::Uri, "spiffe://x/a", true),
            (NameKind::Uri, "spiffe://x/b", false),
            (NameKind::Uri, "a.example", false),
        ] {
            let validation = with_names(&authority, vec![name(kind, text)]);
            assert_eq!(accepts(validation, plain()).await.is_ok(), good, "{text}");
        }
        let either =
            with_names(&authority, vec![name(NameKind::Dns, "x"), name(NameKind::Uri, "spiffe://x/a")]);
        assert!(accepts(either, plain()).await.is_ok());

        for (names, good) in
            [(vec!["a.example"], true), (vec!["b.example"], false), (vec!["b", "a.example"], true)]
        {
            let verify_names = names.into_iter().map(str::to_owned).collect();
            let options = ConnectOptions { verify_names, ..plain() };
            assert_eq!(accepts(trusting(&authority), options).await.is_ok(), good);
        }
        let untrusted =
            CertificateValidationContext { trust_chain_verification: 1, ..trusting(&Authority::new("o")) };
        assert!(accepts(untrusted, plain()).await.is_ok());
    });
}

#[test]
fn pins_are_compared() {
    run(async {
        let issued = Authority::new("root").issue(&["a"], &[]);
        let (server, _) = server(&server_message(common(&[&issued], None, &[]))).unwrap();
        let connect = async |validation: CertificateValidationContext| {
            let (client, _) = client(&client_message(common(&[], Some(validation), &[]))).unwrap();
            shake(&client, &server, &ConnectOptions::default()).await.0
        };
        let facts = connect(CertificateValidationContext::default()).await.unwrap().1.peer.unwrap();
        let hashes = |hash: &str| CertificateValidationContext {
            verify_certificate_hash: vec![hash.to_owned()],
            ..Default::default()
        };
        let keys = |hash: &str| CertificateValidationContext {
            verify_certificate_spki: vec![hash.to_owned()],
            ..Default::default()
        };
        assert!(connect(hashes(&facts.fingerprint)).await.unwrap().1.peer_verified);
        assert!(connect(hashes(&"00".repeat(32))).await.is_err());
        assert!(connect(keys(&facts.spki_hash)).await.is_ok());
        assert!(connect(keys(&facts.fingerprint)).await.is_err());
    });
}

#[test]
fn sessions_are_resumed_unless_that_is_switched_off() {
    run(async {
        let issued = Authority::new("root").issue(&["a"], &[]);
        for (keys, resumed) in [(None, true), (Some(0), false)] {
            let (server, _) = server(&server_message(common(&[&issued], None, &[]))).unwrap();
            let mut message = client_message(common(&[], None, &[]));
            message.max_session_keys = keys.map(|value| dhow_proto::google::protobuf::UInt32Value { value });
            let (client, _) = client(&message).unwrap();
            for expected in [false, resumed] {
                let (near, far) = shake(&client, &server, &ConnectOptions::default()).await;
                assert_eq!((near.unwrap().1.resumed, far.unwrap().1.resumed), (expected, expected));
            }
        }
    });
}

#[test]
fn a_server_name_can_be_demanded() {
    run(async {
        let issued = Authority::new("root").issue(&["a"], &[]);
        let mut message = server_message(common(&[&issued], None, &[]));
        message.require_sni = Some(dhow_proto::google::protobuf::BoolValue { value: true });
        let (server, _) = server(&message).unwrap();
        let (client, _) = client(&client_message(common(&[], None, &[]))).unwrap();
        let named = ConnectOptions { server_name: Some("a".into()), ..Default::default() };
        assert!(shake(&client, &server, &named).await.1.is_ok());
        assert!(shake(&client, &server, &ConnectOptions::default()).await.1.is_err());
    });
}

#[test]
fn clear_text_is_not_taken_for_tls() {
    run(async {
        let issued = Authority::new("root").issue(&["a"], &[]);
        let (server, _) = server(&server_message(common(&[&issued], None, &[]))).unwrap();
        let (mut near, far) = UnixStream::pair().unwrap();
        near.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let failure = text_of(server.accept(Transport::Unix(far)).await);
        assert!(failure.contains("HTTP_REQUEST"), "{failure}");
        let mut answer = Vec::new();
        near.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"", "an alert means nothing to this client");

        let (mut near, far) = UnixStream::pair().unwrap();
        near.write_all(b"SSH-2.0-OpenSSH\r\n").await.unwrap();
        let failure = text_of(server.accept(Transport::Unix(far)).await);
        assert!(failure.contains("WRONG_VERSION_NUMBER"), "{failure}");
        let (near, far) = UnixStream::pair().unwrap();
        drop(near);
        let error = server.accept(Transport::Unix(far)).await.map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    });
}

/// A clear-text stream that counts what reaches it.
struct Counting {
    stream: UnixStream,
    writes: Arc<AtomicUsize>,
}

impl SecureStream for Counting {
    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_read_ready(cx)
    }

    fn reset_on_close(&self) {
        // A Unix socket has no resets.
    }

    fn local_address(&self) -> Option<SocketAddr> {
        None
    }
}

impl AsyncRead for Counting {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counting {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[test]
fn head_and_body_leave_as_one_record_in_one_write() {
    run(async {
        let issued = Authority::new("root").issue(&["a"], &[]);
        let (server, _) = server(&server_message(common(&[&issued], None, &[]))).unwrap();
        let (client, _) = client(&client_message(common(&[], None, &[]))).unwrap();
        let (near, far) = UnixStream::pair().unwrap();
        let writes = Arc::new(AtomicUsize::new(0));
        let far = Counting { stream: far, writes: writes.clone() };
        let options = ConnectOptions::default();
        let (near, far) = tokio::join!(
            client.connect(Transport::Unix(near), &options),
            server.accept(Transport::Secure(Box::new(far)))
        );
        let (mut near, mut far) = (near.unwrap().0, far.unwrap().0);
        let before = writes.load(Ordering::Relaxed);
        let (head, body) = (vec![b'h'; 200], vec![b'b'; 1024]);
        let slices = [IoSlice::new(&head), IoSlice::new(&body)];
        let written = std::future::poll_fn(|cx| far.poll_write_vectored(cx, &slices)).await.unwrap();
        assert_eq!(written, 1224);
        assert_eq!(writes.load(Ordering::Relaxed) - before, 1);
        // One record: it is decrypted, and can be read, as a whole.
        let mut buffer = [0; 4096];
        std::future::poll_fn(|cx| near.poll_read_ready(cx)).await.unwrap();
        let read = std::future::poll_fn(|cx| near.poll_read(cx, &mut buffer)).await.unwrap();
        assert_eq!(read, 1224);
        let idle = Cell::new(true);
        tokio::select! {
            biased;
            _ = std::future::poll_fn(|cx| near.poll_read_ready(cx)) => idle.set(false),
            () = tokio::task::yield_now() => {}
        }
        assert!(idle.get(), "nothing more is there to read");
    });
}

#[test]
fn an_expired_certificate_is_accepted_where_the_time_does_not_matter() {
    let authority = Authority::new("root");
    let leaf = CertificateDer::from_pem_slice(authority.issue(&["a"], &[]).certificate.as_bytes()).unwrap();
    // Centuries after the end of what tests issue.
    let late = UnixTime::since_unix_epoch(Duration::from_secs(100_000_000_000));
    for allowed in [false, true] {
        let context =
            CertificateValidationContext { allow_expired_certificate: allowed, ..trusting(&authority) };
        let validation = Validation::lower(&context, &FieldPath::root(), &mut Vec::new()).unwrap();
        let provider = Arc::new(default_provider());
        let verifier = UpstreamVerifier::new(Arc::new(validation), OtherNames::default(), provider).unwrap();
        let name = ServerName::try_from("a").unwrap();
        assert_eq!(verifier.verify_server_cert(&leaf, &[], &name, &[], late).is_ok(), allowed);
    }
}
