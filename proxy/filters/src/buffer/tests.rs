//! What the filter does to single streams.

use bytes::BytesMut;
use dhow_proto::envoy::extensions::filters::http::buffer::v3::Buffer;
use dhow_proxy_api::{BodyPart, DataVerdict};
use dhow_stats::Store;

use crate::fixtures::{Stream, configure, lines, request, summary};

#[test]
fn a_request_goes_on_with_its_length_once_it_is_whole() {
    let factory = configure::<Buffer>("max_request_bytes: 10", &Store::new()).unwrap();
    let mut stream = Stream::new(0);
    let mut filter = stream.create(&*factory).unwrap();
    let mut head = request("/", &[]);
    let verdict = stream.with(|stream| filter.decode_headers(&mut head, false, stream));
    assert_eq!(summary(&verdict), "hold");
    assert_eq!(stream.control.request_buffer_limit, 10);
    for (text, end_stream) in [("abc", false), ("de", true)] {
        let (mut data, mut held) = (BytesMut::from(text), BytesMut::new());
        let part = BodyPart { data: &mut data, held: &mut held, end_stream };
        let verdict = stream.with(|stream| filter.decode_data(&mut head, part, stream));
        assert_eq!(matches!(verdict, DataVerdict::Continue), end_stream);
    }
    assert!(lines(&head).contains(&"content-length: 5".to_owned()));
}
