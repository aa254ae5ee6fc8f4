//! Replies that the proxy makes itself.

use std::borrow::Cow;
use std::future::poll_fn;
use std::task::Poll;

use dhow_http::{HeaderName, KnownHeader, format_decimal};
use dhow_proxy_api::{LocalReply, LogMoment, Protocol, StreamFormat};
use dhow_proxy_runtime::{DeadlineTimer, OverloadAction, clock, overload};
use dhow_routing::{DirectResponse, SelectedRoute};

use super::exchange::{BoxedEnding, Ending, Exchange};
use super::filtering::FilteredResponse;
use super::filters::Encoded;
use crate::body::{BufferedBody, TransferError, poll_transfer};
use crate::downstream::Downstream;
use crate::response_headers;

impl Exchange {
    /// Sends a reply of our own instead of an upstream's. Boxed: requests that are forwarded need not have the room for it.
    pub(crate) fn reply<'a, D: Downstream>(
        &'a mut self,
        down: &'a mut D,
        timer: &'a mut DeadlineTimer,
        reply: LocalReply,
    ) -> BoxedEnding<'a> {
        Box::pin(self.send_reply(down, timer, reply, true))
    }

    /// Sends a reply of our own past the filters: the answer of one of them to a response.
    pub(crate) fn reply_as_is<'a, D: Downstream>(
        &'a mut self,
        down: &'a mut D,
        timer: &'a mut DeadlineTimer,
        reply: LocalReply,
    ) -> BoxedEnding<'a> {
        self.filters.response_body = None;
        Box::pin(self.send_reply(down, timer, reply, false))
    }

    async fn send_reply<D: Downstream>(
        &mut self,
        down: &mut D,
        timer: &mut DeadlineTimer,
        reply: LocalReply,
        filtered: bool,
    ) -> Ending {
        self.name_cluster();
        let manager = self.manager.clone();
        let LocalReply {
            status,
            mut body,
            content_type,
            flags,
            details,
            headers,
            grpc_status,
            close,
            verbatim,
        } = reply;
        self.info.flags = self.info.flags.union(flags);
        self.info.details = Some(details);
        // Such a status says that the message may not have ended where it seemed to.
        let close = close
            || (status == 400
                && self.info.protocol != Some(Protocol::Http2)
                && !manager.config.http1_stream_errors);
        self.write_reply_headers(status, &headers, verbatim);
        self.info.response_code = Some(status);
        if let Some(content_type) = content_type {
            self.response.set_known(KnownHeader::ContentType, content_type.as_bytes());
        }
        if let Some(rewriting) = manager.config.local_replies.as_ref().filter(|_| !verbatim) {
            rewriting.rewrite(&mut self.info, Some(&self.request), &mut self.response, &mut body);
        }
        let status = self.info.response_code.unwrap_or(status);
        let head_request = self.request.method() == b"HEAD";
        let body = if self.grpc_client && !verbatim {
            let is_json = || self.response.get_known(KnownHeader::ContentType) == Some(b"application/json");
            let message = match body.as_ref() {
                _ if head_request => b"",
                // JSON formats end their line.
                [line @ .., b'\n'] if is_json() => line,
                body => body,
            };
            self.describe_grpc_status(
                grpc_status.unwrap_or_else(|| LocalReply::grpc_status_of(status)),
                message,
            );
            Cow::Borrowed(&b""[..])
        } else {
            self.describe_body(&body);
            if head_request { Cow::Borrowed(&b""[..]) } else { body }
        };
        let mut source = BufferedBody::new(&body, None);
        let end = body.is_empty();
        if filtered {
            let encoded = self.encode_filters(end);
            if matches!(encoded, Encoded::Stopped(..)) {
                let stopped = self.encode_reply_stopped(timer, &mut source, end, encoded);
                match Box::pin(stopped).await {
                    Ok(()) => {}
                    Err(Some(reply)) => return self.reply_as_is(down, timer, *reply).await,
                    Err(None) => return Ending::Gone,
                }
            }
        }
        self.send_response_head(down, end, close);
        self.send_whole(down, timer, &mut source).await
    }

    /// Sends the body of a reply, behind its head.
    pub(super) async fn send_whole<D: Downstream>(
        &mut self,
        down: &mut D,
        timer: &mut DeadlineTimer,
        source: &mut BufferedBody<'_>,
    ) -> Ending {
        let (mut parts, deadlines) = self.parts();
        let sent = poll_fn(|cx| {
            let mut moved = 0;
            let polled = if parts.filters.response_body.is_some() {
                let mut filtered = FilteredResponse { source, parts: &mut parts };
                poll_transfer(cx, &mut filtered, down, &mut moved)
            } else {
                poll_transfer(cx, source, down, &mut moved)
            };
            parts.info.bytes_sent += moved;
            match polled {
                Poll::Ready(Ok(())) => Poll::Ready(Ok(())),
                Poll::Ready(Err(TransferError::Sink(reset))) => Poll::Ready(Err(Some(reset))),
                Poll::Ready(Err(TransferError::Source(_))) => Poll::Ready(Err(None)),
                Poll::Pending => deadlines.poll_expired(cx, timer).map(|_| Err(None)),
            }
        })
        .await;
        match sent {
            Ok(()) => Ending::Complete,
            Err(Some(reset)) if self.info.protocol == Some(Protocol::Http2) && reset.is_by_client() => {
                self.downstream_gone(&reset)
            }
            Err(_) => Ending::Gone,
        }
    }

    /// Starts the response head: the status, what the reply brings, and what the route says about responses. The route's
    /// formats see no response code yet, as in Envoy.
    fn write_reply_headers(&mut self, status: u16, headers: &[(HeaderName, Vec<u8>)], verbatim: bool) {
        self.response.clear();
        self.response.set_status(status);
        let forwards = self.info.route.as_ref().is_some_and(|route| route.forward().is_some());
        if forwards && !verbatim {
            self.apply_route_response_headers();
        }
        for (name, value) in headers {
            match name {
                HeaderName::Known(KnownHeader::ContentType) => self.response.set(name, value),
                _ => self.response.append_name(name, value),
            }
        }
        // Answers of filters to requests that the route would have answered itself are not the route's.
        if !forwards && !verbatim && self.info.details.as_deref() == Some("direct_response") {
            self.apply_route_response_headers();
        }
    }

    /// Sets type and length of the body of a reply; a type that is there already stays.
    fn describe_body(&mut self, body: &[u8]) {
        if body.is_empty() {
            self.response.remove_known(KnownHeader::ContentType);
            self.response.remove_known(KnownHeader::ContentLength);
            return;
        }
        self.response.set_known_number(KnownHeader::ContentLength, body.len() as u64);
        if !self.response.contains_known(KnownHeader::ContentType) {
            self.response.append_known(KnownHeader::ContentType, b"text/plain");
        }
    }

    /// Makes the reply a gRPC status in a response without body.
    fn describe_grpc_status(&mut self, code: u32, message: &[u8]) {
        self.response.set_status(200);
        self.response.set_known(KnownHeader::ContentType, b"application/grpc");
        if !self.response.contains_known(KnownHeader::GrpcStatus) {
            self.response.set_known_number(KnownHeader::GrpcStatus, code.into());
        }
        if !message.is_empty() {
            self.response.set_known(KnownHeader::GrpcMessage, &percent_encode(message));
        }
        self.response.remove_known(KnownHeader::ContentLength);
    }

    /// The reply of a direct-response route.
    pub(crate) fn direct_response(&self, direct: &DirectResponse) -> LocalReply {
        let reply = match &direct.body_format {
            None => LocalReply::new(direct.status, direct.body.to_vec(), "direct_response"),
            Some((format, content_type)) => {
                let mut body = Vec::new();
                let context = StreamFormat {
                    request: Some(&self.request),
                    local_reply_body: &direct.body,
                    ..StreamFormat::new(&self.info)
                };
                format.append(&context, &mut Vec::new(), &mut body);
                let reply = LocalReply::new(direct.status, body, "direct_response");
                match content_type {
                    Some(content_type) => reply.content_type(content_type.as_str()),
                    None => reply,
                }
            }
        };
        // Such a status says where something is; it is where the client asked.
        if matches!(direct.status, 201 | 300..=399) {
            let (scheme, authority) = (self.request.scheme(), self.request.authority());
            let location = [scheme, b"://", authority, self.request.path()].concat();
            return reply.header(KnownHeader::Location, location);
        }
        reply
    }

    /// Adds what the selected route, its virtual host and its table say about response headers.
    fn apply_route_response_headers(&mut self) {
        if let Some(route) = self.info.route.clone() {
            self.apply_response_headers_of(&route);
        }
    }

    /// The same for the route that the request was forwarded by, which need not be the selected one: an internal redirect that
    /// was not followed leaves the one it would have led to.
    pub(crate) fn apply_response_headers_of(&mut self, route: &SelectedRoute) {
        let context = StreamFormat { request: Some(&self.request), ..StreamFormat::new(&self.info) };
        route.apply_response_headers(&mut self.response, &context);
    }

    /// Sends the response head as the connection manager leaves it.
    pub(crate) fn send_response_head<D: Downstream>(&mut self, down: &mut D, end: bool, close: bool) {
        let manager = self.manager.clone();
        let upgraded = self.is_upgraded();
        response_headers::remove_hop_by_hop(&mut self.response, upgraded);
        response_headers::finalize(&manager.config, &self.request, &mut self.response, &manager.dates);
        // A request that the codec could not read has no status to tell.
        if let Some(proxy_status) = manager.config.proxy_status.as_ref().filter(|_| !self.request.is_empty())
        {
            proxy_status.apply(&self.info, &mut self.response);
        }
        // A reply that closes was made before the end of the request was looked at, even if it had arrived.
        let request_complete = down.request_complete() && !(close && self.info.request_complete.is_none());
        if !request_complete {
            manager.stats.manager.downstream_rq_response_before_rq_complete().inc();
        }
        let drains = manager.draining.ends_connection(|| manager.worker.random()) && down.begin_drain();
        if drains {
            manager.stats.manager.downstream_cx_drain_close().inc();
        }
        self.info.response_code = self.response.status();
        if let Some(status) = self.info.response_code.filter(|_| !self.info.health_check) {
            manager.stats.codes.charge_class(status);
            manager.stats.listener_codes.charge_class(status);
        }
        self.info.first_downstream_tx = Some(clock::now());
        self.response_started = true;
        if !self.waited {
            down.linger();
        }
        let close = close || self.ends_keepalive(down.protocol());
        down.send_head(&mut self.response, end, close);
        if upgraded && manager.config.log_moments.tunnel {
            self.log(LogMoment::TunnelEstablished);
        }
    }

    /// Whether a connection of HTTP/1 ends with this response because of overload. One of HTTP/2 is told so when a stream begins.
    fn ends_keepalive(&self, protocol: Protocol) -> bool {
        let manager = &self.manager;
        let ends = protocol != Protocol::Http2
            && overload().applies(OverloadAction::DisableHttpKeepalive, || manager.worker.random())
            && !self.info.connection.bypass_overload_manager;
        if ends {
            manager.stats.manager.downstream_cx_overload_disable_keepalive().inc();
        }
        ends
    }

    /// Sets `x-envoy-upstream-service-time` and its like to a number of milliseconds.
    pub(crate) fn set_response_number(&mut self, name: KnownHeader, number: u64) {
        let mut digits = [0; 20];
        self.response.set_known(name, format_decimal(number, &mut digits));
    }
}

/// A gRPC status message: printable ASCII but `%` as it is, other bytes as `%XX`.
fn percent_encode(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len());
    for byte in message {
        match byte {
            b' '..=b'~' if *byte != b'%' => out.push(*byte),
            _ => out.extend_from_slice(format!("%{byte:02X}").as_bytes()),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::percent_encode;

    #[test]
    fn grpc_messages_are_percent_encoded() {
        assert_eq!(percent_encode(b"no healthy upstream"), b"no healthy upstream");
        assert_eq!(percent_encode("100% ü\n".as_bytes()), b"100%25 %C3%BC%0A");
    }
}
