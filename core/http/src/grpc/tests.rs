use std::time::Duration;

use bytes::Bytes;
use tokio::io::duplex;
use tokio::task::LocalSet;

use super::*;
use crate::HeaderMap;
use crate::h2::{Responder, ServerConnection, Settings, connect};

fn head(entries: &[(&str, &str)]) -> HeaderMap {
    let mut head = HeaderMap::new();
    for (name, value) in entries {
        head.append(name.as_bytes(), value.as_bytes());
    }
    head
}

#[test]
fn messages_come_out_however_the_body_is_cut() {
    let body = [encode_frame(b"one"), encode_frame(b""), encode_frame(&[7; 300])].concat();
    for size in 1..body.len() {
        let mut decoder = FrameDecoder::new(1000);
        let mut messages = Vec::new();
        for piece in body.chunks(size) {
            decoder.push(piece);
            while let Some(message) = decoder.next_message().unwrap() {
                messages.push(message);
            }
        }
        assert_eq!(messages, [Bytes::from_static(b"one"), Bytes::new(), Bytes::from(vec![7; 300])]);
        assert!(!decoder.is_within_message());
    }
}

#[test]
fn frames_that_are_not_taken() {
    let fail = |bytes: &[u8]| {
        let mut decoder = FrameDecoder::new(10);
        decoder.push(bytes);
        decoder.next_message().unwrap_err()
    };
    assert_eq!(fail(&encode_frame(&[0; 11])), FrameError::TooLarge { length: 11, limit: 10 });
    assert_eq!(fail(&[1, 0, 0, 0, 0]), FrameError::Compressed);
    assert_eq!(fail(&[9, 0, 0, 0, 0]), FrameError::Flag(9));
}

#[test]
fn the_status_is_read_from_trailers() {
    let status =
        GrpcStatus::from_trailers(&head(&[("grpc-status", "3"), ("grpc-message", "bad%20%C3%A9%zz%")]));
    assert_eq!(status, Some(GrpcStatus::new(GrpcCode::InvalidArgument, "bad \u{e9}%zz%")));
    assert_eq!(GrpcStatus::from_trailers(&head(&[("grpc-status", "99")])).unwrap().code, GrpcCode::Unknown);
    assert_eq!(GrpcStatus::from_trailers(&head(&[("grpc-status", "x")])).unwrap().code, GrpcCode::Unknown);
    assert_eq!(GrpcStatus::from_trailers(&head(&[])), None);
    assert_eq!(GrpcStatus::from_http(503).code, GrpcCode::Unavailable);
    assert_eq!(GrpcStatus::from_http(404).code, GrpcCode::Unimplemented);
}

/// Opens a call to a server that treats the stream like this.
async fn call<F, Fut>(serve: F) -> GrpcStream
where
    F: FnOnce(crate::h2::RecvBody, Responder) -> Fut + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let (near, far) = duplex(256 * 1024);
    tokio::task::spawn_local(async move {
        let mut server = ServerConnection::handshake(far, &Settings::default()).await.unwrap();
        let stream = server.accept().await.unwrap().unwrap();
        let mut request = HeaderMap::new();
        let (body, responder) = stream.into_parts(&mut request);
        assert_eq!(request.path(), b"/pkg.Service/Method");
        assert_eq!(request.get_str("te"), Some(&b"trailers"[..]));
        tokio::task::spawn_local(serve(body, responder));
        while server.accept().await.is_some() {}
    });
    let (sender, connection) = connect(near, &Settings::default()).await.unwrap();
    tokio::task::spawn_local(connection);
    GrpcStream::open(sender, &call_head("xds", "/pkg.Service/Method"), 1024).await.unwrap()
}

fn run<F: Future<Output = ()>>(test: F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        tokio::time::timeout(Duration::from_secs(20), test).await.expect("the test took more than 20 s");
    });
}

const OK: [(&str, &str); 2] = [(":status", "200"), ("content-type", "application/grpc")];

#[test]
fn messages_go_both_ways_until_the_status() {
    run(async {
        let mut stream = call(async |mut body, mut responder| {
            let mut send = responder.send_response(&head(&OK), false).unwrap();
            let mut decoder = FrameDecoder::new(1000);
            while let Some(data) = body.data().await {
                let data = data.unwrap();
                body.release(data.len());
                decoder.push(&data);
                while let Some(message) = decoder.next_message().unwrap() {
                    send.send(encode_frame(&message), false).await.unwrap();
                }
            }
            send.send_trailers(&head(&[("grpc-status", "0")])).unwrap();
        })
        .await;
        for text in ["a", "bb", ""] {
            stream.send(text.as_bytes()).await.unwrap();
            assert_eq!(stream.recv().await.unwrap().unwrap(), text);
        }
        stream.close_send().unwrap();
        assert!(stream.recv().await.is_none());
        assert!(stream.recv().await.is_none());
    });
}

#[test]
fn refusals_are_statuses() {
    run(async {
        let mut stream = call(async |_body, mut responder| {
            let trailers_only = head(&[OK[0], OK[1], ("grpc-status", "7"), ("grpc-message", "no")]);
            responder.send_response(&trailers_only, true).unwrap();
        })
        .await;
        assert_eq!(
            stream.recv().await.unwrap().unwrap_err(),
            GrpcStatus::new(GrpcCode::PermissionDenied, "no")
        );

        let mut stream = call(async |_body, mut responder| {
            responder.send_response(&head(&[(":status", "503")]), true).unwrap();
        })
        .await;
        assert_eq!(stream.recv().await.unwrap().unwrap_err().code, GrpcCode::Unavailable);

        let mut stream = call(async |_body, mut responder| {
            let mut send = responder.send_response(&head(&OK), false).unwrap();
            send.send_data(encode_frame(b"x").slice(..4), false).unwrap();
            send.send_trailers(&head(&[("grpc-status", "0")])).unwrap();
        })
        .await;
        assert_eq!(stream.recv().await.unwrap().unwrap_err().code, GrpcCode::Internal);

        let mut stream = call(async |_body, mut responder| {
            let mut send = responder.send_response(&head(&OK), false).unwrap();
            send.send_data(encode_frame(&[0; 2000]), false).unwrap();
            std::future::poll_fn(|cx| send.poll_reset(cx)).await;
        })
        .await;
        assert_eq!(stream.recv().await.unwrap().unwrap_err().code, GrpcCode::ResourceExhausted);
    });
}
