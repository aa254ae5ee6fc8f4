//! What the HTTP codecs count: `http1.*` and `http2.*` of all downstream connections, and the same of each cluster.

use dhow_stats::stat_group;

stat_group! {
    /// What HTTP/1 connections count, by Envoy's names; they exist from the first connection on.
    pub struct Http1CodecStats {
        counters {
            dropped_headers_with_underscores = "http1.dropped_headers_with_underscores",
            metadata_not_supported_error = "http1.metadata_not_supported_error",
            requests_rejected_with_underscores_in_headers =
                "http1.requests_rejected_with_underscores_in_headers",
            response_flood = "http1.response_flood",
        }
    }
}

stat_group! {
    /// What HTTP/2 connections count, by Envoy's names; they exist from the first connection on.
    pub struct Http2CodecStats {
        counters {
            cookies_total_bytes_too_large = "http2.cookies_total_bytes_too_large",
            dropped_headers_with_underscores = "http2.dropped_headers_with_underscores",
            goaway_sent = "http2.goaway_sent",
            header_list_size_too_large = "http2.header_list_size_too_large",
            header_overflow = "http2.header_overflow",
            headers_cb_no_stream = "http2.headers_cb_no_stream",
            inbound_empty_frames_flood = "http2.inbound_empty_frames_flood",
            inbound_priority_frames_flood = "http2.inbound_priority_frames_flood",
            inbound_window_update_frames_flood = "http2.inbound_window_update_frames_flood",
            keepalive_timeout = "http2.keepalive_timeout",
            metadata_empty_frames = "http2.metadata_empty_frames",
            nghttp2_downstream_connections = "http2.nghttp2_downstream_connections",
            nghttp2_upstream_connections = "http2.nghttp2_upstream_connections",
            oghttp2_downstream_connections = "http2.oghttp2_downstream_connections",
            oghttp2_upstream_connections = "http2.oghttp2_upstream_connections",
            outbound_control_flood = "http2.outbound_control_flood",
            outbound_flood = "http2.outbound_flood",
            requests_rejected_with_underscores_in_headers = "http2.requests_rejected_with_underscores_in_headers",
            rx_messaging_error = "http2.rx_messaging_error",
            rx_reset = "http2.rx_reset",
            stream_refused_errors = "http2.stream_refused_errors",
            trailers = "http2.trailers",
            tx_flush_timeout = "http2.tx_flush_timeout",
            tx_reset = "http2.tx_reset",
        }
        gauges {
            deferred_stream_close = "http2.deferred_stream_close",
            outbound_control_frames_active = "http2.outbound_control_frames_active",
            outbound_frames_active = "http2.outbound_frames_active",
            pending_send_bytes = "http2.pending_send_bytes",
            streams_active = "http2.streams_active",
        }
        histograms {
            cookie_count = "http2.cookie_count": Unspecified,
            cookie_size = "http2.cookie_size": Bytes,
            header_count = "http2.header_count": Unspecified,
            header_list_size = "http2.header_list_size": Bytes,
        }
    }
}
