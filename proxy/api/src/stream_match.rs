//! The facts of a stream as matching trees ask for them.

use std::any::Any;
use std::borrow::Cow;
use std::net::SocketAddr;

use dhow_expr::{CelExpression, FilterStateObject};
use dhow_http::HeaderMap;
use dhow_matching::generic::{CertificateName, MatchData};
use dhow_proto::google::protobuf::Struct;
use dhow_runtime_config::{Current, RuntimeValues};

use crate::stream_format::StreamFormat;

impl MatchData for StreamFormat<'_> {
    fn request_headers(&self) -> Option<&HeaderMap> {
        self.request
    }

    fn response_headers(&self) -> Option<&HeaderMap> {
        self.response
    }

    fn destination(&self) -> Option<SocketAddr> {
        self.info.connection.local_address.as_ip()
    }

    fn source(&self) -> Option<SocketAddr> {
        self.info.client_address.as_ip()
    }

    fn direct_source(&self) -> Option<SocketAddr> {
        self.info.connection.direct_remote_address().as_ip()
    }

    fn server_name(&self) -> Option<&str> {
        self.info.connection.requested_server_name.as_deref()
    }

    fn transport_protocol(&self) -> Option<&str> {
        Some(if self.info.connection.tls.is_expected() { "tls" } else { "raw_buffer" })
    }

    fn certificate(&self, name: CertificateName) -> Option<Cow<'_, str>> {
        let peer = self.info.connection.tls.session()?.peer.as_ref()?;
        Some(match name {
            CertificateName::UriSans => peer.uris.join(",").into(),
            CertificateName::DnsSans => peer.dns_names.join(",").into(),
            CertificateName::Subject => peer.subject.as_str().into(),
        })
    }

    fn dynamic_metadata(&self, namespace: &str) -> Option<&Struct> {
        self.info.dynamic_metadata.get(namespace)
    }

    fn filter_state(&self, key: &str, field: &str, out: &mut Vec<u8>) -> bool {
        let Some(object) = self.info.filter_state.get(key) else { return false };
        if field.is_empty() { object.append_text(out) } else { object.append_field(field, out) }
    }

    fn expression_holds(&self, expression: &(dyn Any + Send + Sync)) -> Option<bool> {
        let Some(expression) = expression.downcast_ref::<CelExpression>() else { return Some(false) };
        match self.response {
            Some(_) => Some(expression.holds(self)),
            None => expression.holds_already(self),
        }
    }

    fn runtime(&self) -> &dyn RuntimeValues {
        &Current
    }
}
