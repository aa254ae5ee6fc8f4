use std::future::poll_fn;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::LocalSet;

use super::head::{HeadKind, HeadReader};
use super::hpack::{Decoder, Encoder};
use super::*;
use crate::{HeaderMap, KnownHeader};

fn head(entries: &[(&str, &str)]) -> HeaderMap {
    let mut head = HeaderMap::new();
    for (name, value) in entries {
        head.append(name.as_bytes(), value.as_bytes());
    }
    head
}

fn get() -> HeaderMap {
    head(&[(":method", "GET"), (":path", "/p?q"), (":scheme", "http"), (":authority", "h")])
}

fn text(head: &HeaderMap) -> String {
    let line =
        |(_, name, value): (_, &[u8], &[u8])| format!("{}: {}", name.escape_ascii(), value.escape_ascii());
    head.iter().map(line).collect::<Vec<_>>().join("|")
}

/// Runs a test on one thread, with a deadline instead of waiting for ever.
fn run<F: Future<Output = ()>>(test: F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        tokio::time::timeout(Duration::from_secs(20), test).await.expect("the test took more than 20 s");
    });
}

async fn pair(settings: Settings) -> (Sender, ServerConnection<DuplexStream>) {
    let (near, far) = duplex(256 * 1024);
    let client_settings = settings.clone();
    let client = tokio::task::spawn_local(async move { connect(near, &client_settings).await.unwrap() });
    let server = ServerConnection::handshake(far, &settings).await.unwrap();
    let (sender, connection) = client.await.unwrap();
    tokio::task::spawn_local(connection);
    (sender, server)
}

/// Accepts one stream and keeps the connection moving in a task of its own.
async fn accept_one(mut server: ServerConnection<DuplexStream>) -> (HeaderMap, RecvBody, Responder) {
    let stream = server.accept().await.unwrap().unwrap();
    tokio::task::spawn_local(async move { while server.accept().await.is_some() {} });
    let mut head = HeaderMap::new();
    let (body, responder) = stream.into_parts(&mut head);
    (head, body, responder)
}

#[test]
fn a_request_and_its_response_cross_with_bodies_and_trailers() {
    run(async {
        let (mut sender, server) = pair(Settings::default()).await;
        let request = head(&[
            (":method", "POST"),
            (":path", "/p"),
            (":scheme", "https"),
            (":authority", "h"),
            ("connection", "close"),
            ("transfer-encoding", "chunked"),
            ("content-type", "x"),
            ("cookie", "a=1"),
            ("cookie", "b=2"),
            ("x-other", "y"),
        ]);
        let (mut response, mut send) = sender.send_request(&request, false).unwrap();
        send.send(Bytes::from_static(b"hello"), false).await.unwrap();
        send.send_trailers(&head(&[("t", "1")])).unwrap();
        let (received, mut body, mut responder) = accept_one(server).await;
        let expected = ":method: POST|:path: /p|:scheme: https|:authority: h|content-type: x|x-other: y|cookie: a=1; b=2";
        assert_eq!(text(&received), expected);
        let data = body.data().await.unwrap().unwrap();
        body.release(data.len());
        assert_eq!(data, "hello");
        assert!(body.data().await.is_none());
        let mut trailers = HeaderMap::new();
        assert!(body.trailers(&mut trailers).await.unwrap());
        assert_eq!(text(&trailers), "t: 1");

        responder.send_informational(&head(&[(":status", "103"), ("link", "z")])).unwrap();
        let mut send = responder.send_response(&head(&[(":status", "200"), ("server", "s")]), false).unwrap();
        send.send(Bytes::from_static(b"world"), true).await.unwrap();
        let mut answer = HeaderMap::new();
        assert!(poll_fn(|cx| response.poll_informational(cx, &mut answer)).await.unwrap());
        assert_eq!(text(&answer), ":status: 103|link: z");
        let mut body = response.response(&mut answer).await.unwrap();
        assert_eq!(text(&answer), ":status: 200|server: s");
        assert_eq!(body.data().await.unwrap().unwrap(), "world");
        assert!(body.data().await.is_none());
        assert!(!body.trailers(&mut trailers).await.unwrap());
        assert!(body.is_end());
    });
}

#[test]
fn the_peer_is_held_back_until_data_is_released() {
    run(async {
        let settings = Settings { stream_window: 70_000, connection_window: 70_000, ..Settings::default() };
        let (mut sender, server) = pair(settings).await;
        let (_response, mut send) = sender.send_request(&get(), false).unwrap();
        let (_, mut body, _responder) = accept_one(server).await;
        let mut sent = 0;
        let send_all = async {
            while sent < 200_000 {
                let count = poll_fn(|cx| send.poll_capacity(cx, 200_000 - sent)).await.unwrap();
                send.send_data(Bytes::from(vec![b'x'; count]), false).unwrap();
                sent += count;
            }
        };
        let mut received = 0;
        let receive = async {
            while received < 70_000 {
                received += body.data().await.unwrap().unwrap().len();
            }
            // Nothing more arrives while nothing is released: the window is used up.
            let more = tokio::time::timeout(Duration::from_millis(50), body.data()).await;
            assert!(more.is_err(), "data beyond the window");
            body.release(received);
            while received < 200_000 {
                let data = body.data().await.unwrap().unwrap();
                body.release(data.len());
                received += data.len();
            }
        };
        tokio::join!(send_all, receive);
        assert_eq!(received, 200_000);
    });
}

#[test]
fn resets_are_told_apart() {
    run(async {
        for (code, expected) in [
            (ResetCode::RefusedStream, StreamError::RemoteRefused),
            (ResetCode::Cancel, StreamError::RemoteReset(8)),
            (ResetCode::InternalError, StreamError::RemoteReset(2)),
        ] {
            let (mut sender, server) = pair(Settings::default()).await;
            let (mut response, mut send) = sender.send_request(&get(), false).unwrap();
            let (_, _body, mut responder) = accept_one(server).await;
            responder.reset(code);
            let error = response.response(&mut HeaderMap::new()).await.unwrap_err();
            assert_eq!(error, expected);
            assert_eq!(poll_fn(|cx| send.poll_reset(cx)).await, expected);
        }
        let (mut sender, server) = pair(Settings::default()).await;
        let (_response, mut send) = sender.send_request(&get(), false).unwrap();
        let (_, mut body, mut responder) = accept_one(server).await;
        send.cancel();
        assert_eq!(poll_fn(|cx| responder.poll_reset(cx)).await, StreamError::RemoteReset(8));
        assert_eq!(body.data().await.unwrap().unwrap_err(), StreamError::RemoteReset(8));
    });
}

#[test]
fn a_goaway_shows_on_the_sender_and_open_streams_end_well() {
    run(async {
        let (mut sender, mut server) = pair(Settings::default()).await;
        let (mut response, _send) = sender.send_request(&get(), true).unwrap();
        let stream = server.accept().await.unwrap().unwrap();
        let (_body, mut responder) = stream.into_parts(&mut HeaderMap::new());
        server.graceful_shutdown();
        let driver = tokio::task::spawn_local(async move { while server.accept().await.is_some() {} });
        while !sender.clone().is_draining() {
            tokio::task::yield_now().await;
        }
        responder.send_response(&head(&[(":status", "204")]), true).unwrap();
        let mut answer = HeaderMap::new();
        response.response(&mut answer).await.unwrap();
        assert_eq!(answer.status(), Some(204));
        assert!(sender.send_request(&get(), true).is_err());
        driver.await.unwrap();
    });
}

#[test]
fn a_connection_that_ends_ends_its_streams() {
    run(async {
        let (mut sender, mut server) = pair(Settings::default()).await;
        let (mut response, _send) = sender.send_request(&get(), true).unwrap();
        let stream = server.accept().await.unwrap().unwrap();
        drop(stream);
        drop(server);
        let error = response.response(&mut HeaderMap::new()).await.unwrap_err();
        assert!(
            matches!(error, StreamError::ConnectionTermination(_) | StreamError::RemoteReset(_)),
            "{error:?}"
        );
        while !sender.clone().is_draining() {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn pings_are_answered() {
    run(async {
        let (near, far) = duplex(64 * 1024);
        tokio::task::spawn_local(async move {
            let mut server = ServerConnection::handshake(far, &Settings::default()).await.unwrap();
            while server.accept().await.is_some() {}
        });
        let (_sender, mut connection) = connect(near, &Settings::default()).await.unwrap();
        let mut pinger = connection.take_pinger().unwrap();
        assert!(connection.take_pinger().is_none());
        tokio::task::spawn_local(connection);
        pinger.ping().unwrap();
        poll_fn(|cx| pinger.poll_pong(cx)).await.unwrap();
    });
}

#[test]
fn heads_that_http2_cannot_carry_are_refused() {
    let request = |entries: &[(&str, &str)]| head::check(&head(entries), HeadKind::Request).unwrap_err();
    assert_eq!(request(&[(":method", ""), (":path", "/")]), HeadError::Method);
    assert_eq!(request(&[(":method", "GET"), (":path", "\u{1}"), (":authority", "h")]), HeadError::Path);
    assert_eq!(request(&[(":method", "GET"), (":path", "/"), (":authority", "a b")]), HeadError::Authority);
    let invalid = [(":method", "GET"), (":path", "/"), (":authority", "h"), ("x y", "z")];
    assert_eq!(request(&invalid), HeadError::Field);
    assert_eq!(head::check(&head(&[("x", "y")]), HeadKind::Response), Err(HeadError::Status));
}

/// What the server announces, frame by frame, as measured on Envoy 1.40.0.
#[test]
fn the_preface_is_that_of_envoy() {
    run(async {
        let (mut near, far) = duplex(64 * 1024);
        tokio::task::spawn_local(async move {
            let mut server = ServerConnection::handshake(far, &Settings::default()).await.unwrap();
            while server.accept().await.is_some() {}
        });
        near.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
        let mut settings = Vec::new();
        let mut window = None;
        while window.is_none() {
            let mut header = [0; 9];
            near.read_exact(&mut header).await.unwrap();
            let mut payload = vec![0; u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize];
            near.read_exact(&mut payload).await.unwrap();
            match header[3] {
                4 if header[4] == 0 => settings.extend(payload.chunks(6).map(|s| {
                    (u16::from_be_bytes([s[0], s[1]]), u32::from_be_bytes([s[2], s[3], s[4], s[5]]))
                })),
                8 => window = Some(u32::from_be_bytes(payload.try_into().unwrap())),
                _ => {}
            }
        }
        assert!(settings.contains(&(1, 4096)), "{settings:?}");
        assert!(settings.contains(&(3, 1024)), "{settings:?}");
        assert!(settings.contains(&(4, 16 * 1024 * 1024)), "{settings:?}");
        assert_eq!(window, Some(24 * 1024 * 1024 - 65_535));
    });
}

/// Counts the writes that reach the socket.
#[test]
fn responses_of_one_turn_leave_in_few_writes() {
    struct Counting(DuplexStream, std::rc::Rc<std::cell::Cell<usize>>);
    impl tokio::io::AsyncRead for Counting {
        fn poll_read(
            mut self: std::pin::Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
            buffer: &mut tokio::io::ReadBuf<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            std::pin::Pin::new(&mut self.0).poll_read(cx, buffer)
        }
    }
    impl tokio::io::AsyncWrite for Counting {
        fn poll_write(
            mut self: std::pin::Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
            bytes: &[u8],
        ) -> std::task::Poll<std::io::Result<usize>> {
            self.1.set(self.1.get() + 1);
            std::pin::Pin::new(&mut self.0).poll_write(cx, bytes)
        }
        fn poll_flush(
            mut self: std::pin::Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            std::pin::Pin::new(&mut self.0).poll_flush(cx)
        }
        fn poll_shutdown(
            mut self: std::pin::Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            std::pin::Pin::new(&mut self.0).poll_shutdown(cx)
        }
    }
    run(async {
        let (near, far) = duplex(1024 * 1024);
        let writes = std::rc::Rc::new(std::cell::Cell::new(0));
        let counting = Counting(far, writes.clone());
        tokio::task::spawn_local(async move {
            let mut server = ServerConnection::handshake(counting, &Settings::default()).await.unwrap();
            while let Some(Ok(stream)) = server.accept().await {
                tokio::task::spawn_local(async move {
                    let (_body, mut responder) = stream.into_parts(&mut HeaderMap::new());
                    let mut send = responder.send_response(&head(&[(":status", "200")]), false).unwrap();
                    send.send(Bytes::from(vec![b'x'; 1024]), true).await.unwrap();
                });
            }
        });
        let (mut sender, connection) = connect(near, &Settings::default()).await.unwrap();
        tokio::task::spawn_local(connection);
        // The first exchange carries the settings and their acknowledgements too.
        let mut first = sender.send_request(&get(), true).unwrap().0;
        let mut body = first.response(&mut HeaderMap::new()).await.unwrap();
        while body.data().await.is_some() {}
        let before = writes.get();
        let responses: Vec<_> = (0..8).map(|_| sender.send_request(&get(), true).unwrap().0).collect();
        for mut response in responses {
            let mut answer = HeaderMap::new();
            let mut body = response.response(&mut answer).await.unwrap();
            assert_eq!(body.data().await.unwrap().unwrap().len(), 1024);
        }
        let used = writes.get() - before;
        assert!(used <= 2, "{used} writes for eight responses");
    });
}

#[test]
fn known_headers_keep_their_ids_over_the_conversion() {
    let request = head(&[
        (":method", "GET"),
        (":path", "/"),
        (":authority", "h"),
        ("user-agent", "u"),
        ("x-envoy-retry-on", "5xx"),
    ]);
    let mut block = Vec::new();
    head::write(&request, HeadKind::Request, &mut Encoder::new(), &mut block);
    let mut reader = HeadReader::new(HeaderMap::new(), HeadKind::Request, 1000);
    Decoder::new().decode(&block, |known, name, value| reader.field(known, name, value)).unwrap();
    let back = reader.finish().head;
    assert_eq!(back.get_known(KnownHeader::UserAgent), Some(&b"u"[..]));
    assert_eq!(back.get_known(KnownHeader::XEnvoyRetryOn), Some(&b"5xx"[..]));
}

#[test]
fn bodies_of_any_size_cross_a_narrow_wire_both_ways() {
    run(async {
        let (near, far) = duplex(3000);
        let client =
            tokio::task::spawn_local(async move { connect(near, &Settings::default()).await.unwrap() });
        let server = ServerConnection::handshake(far, &Settings::default()).await.unwrap();
        let (mut sender, connection) = client.await.unwrap();
        tokio::task::spawn_local(connection);
        let (mut response, mut send) = sender.send_request(&get(), false).unwrap();
        let body: Vec<u8> = (0..300_000u32).map(|at| (at * 7 / 5) as u8).collect();
        let sent = Bytes::from(body.clone());
        tokio::task::spawn_local(async move { send.send(sent, true).await.unwrap() });
        let (_, mut received, mut responder) = accept_one(server).await;
        let mut back = responder.send_response(&head(&[(":status", "200")]), false).unwrap();
        tokio::task::spawn_local(async move {
            while let Some(data) = received.data().await {
                let data = data.unwrap();
                received.release(data.len());
                for part in data.chunks(5000) {
                    back.send(Bytes::copy_from_slice(part), false).await.unwrap();
                }
            }
            back.send_trailers(&head(&[("t", "1")])).unwrap();
        });
        let mut answer = response.response(&mut HeaderMap::new()).await.unwrap();
        let mut echoed = Vec::new();
        while let Some(data) = answer.data().await {
            let data = data.unwrap();
            answer.release(data.len());
            echoed.extend_from_slice(&data);
        }
        assert!(echoed == body, "{} bytes came back", echoed.len());
        assert!(answer.trailers(&mut HeaderMap::new()).await.unwrap());
    });
}

#[test]
fn heads_longer_than_a_frame_are_continued() {
    run(async {
        let (mut sender, server) = pair(Settings::default()).await;
        let long = "\u{fe}".repeat(20_000);
        let mut request = get();
        request.append(b"x-long", long.as_bytes());
        let (_response, _send) = sender.send_request(&request, true).unwrap();
        let (received, ..) = accept_one(server).await;
        assert_eq!(received.get_str("x-long"), Some(long.as_bytes()));
    });
}

#[test]
fn streams_beyond_the_peers_limit_wait_for_those_before() {
    run(async {
        let settings = Settings { max_concurrent_streams: 1, ..Settings::default() };
        let (mut sender, mut server) = pair(settings).await;
        let (first, _) = sender.send_request(&get(), true).unwrap();
        sender.ready().await.unwrap();
        let (mut second, _) = sender.send_request(&get(), true).unwrap();
        let waiting = poll_fn(|cx| std::task::Poll::Ready(sender.poll_ready(cx).is_pending())).await;
        assert!(waiting, "the second stream is on the wire");
        let stream = server.accept().await.unwrap().unwrap();
        assert_eq!(stream.id(), 1);
        // Nobody wants the first one's answer any more.
        drop(first);
        let (_body, mut responder) = stream.into_parts(&mut HeaderMap::new());
        let next = async { server.accept().await.unwrap().unwrap() };
        let gone = poll_fn(|cx| responder.poll_reset(cx));
        let (next, gone) = tokio::join!(next, gone);
        assert_eq!((next.id(), gone), (3, StreamError::RemoteReset(8)));
        let (_body, mut responder) = next.into_parts(&mut HeaderMap::new());
        responder.send_response(&head(&[(":status", "204")]), true).unwrap();
        tokio::task::spawn_local(async move { while server.accept().await.is_some() {} });
        let mut answer = HeaderMap::new();
        second.response(&mut answer).await.unwrap();
        assert_eq!(answer.status(), Some(204));
        sender.ready().await.unwrap();
    });
}

#[test]
fn data_beyond_the_window_is_kept_and_sent_in_order() {
    run(async {
        let settings = Settings { stream_window: 65_535, connection_window: 65_535, ..Settings::default() };
        let (mut sender, server) = pair(settings).await;
        let (_response, mut send) = sender.send_request(&get(), false).unwrap();
        for part in 0..10u8 {
            send.send_data(Bytes::from(vec![part; 20_000]), false).unwrap();
        }
        send.send_trailers(&head(&[("t", "1")])).unwrap();
        drop(send);
        let (_, mut body, _responder) = accept_one(server).await;
        let mut received = Vec::new();
        while let Some(data) = body.data().await {
            let data = data.unwrap();
            body.release(data.len());
            received.extend_from_slice(&data);
        }
        let expected: Vec<u8> = (0..10u8).flat_map(|part| vec![part; 20_000]).collect();
        assert!(received == expected, "{} bytes", received.len());
        assert!(body.trailers(&mut HeaderMap::new()).await.unwrap());
    });
}
