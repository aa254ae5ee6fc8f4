//! `local_reply_config`: what becomes of the replies that the proxy makes itself before they are sent.

use std::borrow::Cow;

use dhow_base::{ConfigError, FieldPath};
use dhow_expr::LogFormat;
use dhow_http::{HeaderMap, KnownHeader};
use dhow_proto::envoy::config::core::v3::{DataSource, SubstitutionFormatString};
use dhow_proto::envoy::extensions::filters::network::http_connection_manager::v3 as pb;
use dhow_proxy_access_log::{LogFilter, Logged};
use dhow_proxy_api::{StreamFormat, StreamInfo};
use dhow_routing::HeaderMutations;

use crate::config::read_source;

/// `local_reply_config`.
#[derive(Debug)]
pub struct LocalReplyConfig {
    mappers: Box<[Mapper]>,
    body_format: Option<BodyFormat>,
}

/// `ResponseMapper`: changes the replies that its filter wants.
#[derive(Debug)]
struct Mapper {
    filter: LogFilter,
    status: Option<u16>,
    body: Option<Box<[u8]>>,
    body_format: Option<BodyFormat>,
    headers: HeaderMutations,
}

/// A format of bodies, with the content type of what it writes.
#[derive(Debug)]
struct BodyFormat {
    format: LogFormat,
    content_type: String,
}

impl LocalReplyConfig {
    /// Lowers the message.
    ///
    /// # Errors
    /// The first mapper or format that is not acceptable.
    pub(crate) fn lower(config: pb::LocalReplyConfig, path: &FieldPath) -> Result<Self, ConfigError> {
        let pb::LocalReplyConfig { mappers, body_format } = config;
        let mappers_path = path.field("mappers");
        let mappers = mappers.into_iter().enumerate();
        Ok(Self {
            mappers: mappers
                .map(|(i, mapper)| Mapper::lower(mapper, &mappers_path.index(i)))
                .collect::<Result<_, _>>()?,
            body_format: BodyFormat::lower(body_format, &path.field("body_format"))?,
        })
    }

    /// Changes a reply: the head, which has status and headers already, and the body. The first mapper that wants the reply
    /// as it was made has its way; the format sees what that left. The status is afterwards in `info` and in the head.
    pub(crate) fn rewrite(
        &self,
        info: &mut StreamInfo,
        request: Option<&HeaderMap>,
        response: &mut HeaderMap,
        body: &mut Cow<'static, [u8]>,
    ) {
        let mapper = {
            let context = StreamFormat { request, response: Some(&*response), ..StreamFormat::new(info) };
            self.mappers.iter().find(|mapper| mapper.filter.wants(&Logged { info, request }, &context))
        };
        let mut body_format = self.body_format.as_ref();
        let mut chose_type = false;
        if let Some(mapper) = mapper {
            if let Some(replacement) = &mapper.body {
                *body = Cow::Owned(replacement.to_vec());
            }
            let before = response.get_known(KnownHeader::ContentType).map(<[u8]>::to_vec);
            let context = StreamFormat { request, ..StreamFormat::new(info) };
            mapper.headers.apply_to_response(response, &context);
            chose_type = response.get_known(KnownHeader::ContentType) != before.as_deref();
            if let Some(status) = mapper.status {
                response.set_status(status);
                info.response_code = Some(status);
            }
            body_format = mapper.body_format.as_ref().or(body_format);
        }
        let Some(BodyFormat { format, content_type }) = body_format else { return };
        let mut formatted = Vec::new();
        let context = StreamFormat {
            request,
            response: Some(response),
            local_reply_body: body,
            ..StreamFormat::new(info)
        };
        format.append(&context, &mut Vec::new(), &mut formatted);
        if !chose_type && response.contains_known(KnownHeader::ContentType) {
            response.set_known(KnownHeader::ContentType, content_type.as_bytes());
        } else if !chose_type && !formatted.is_empty() {
            // Envoy tells the length first where nothing named a type before.
            response.set_known_number(KnownHeader::ContentLength, formatted.len() as u64);
            response.append_known(KnownHeader::ContentType, content_type.as_bytes());
        }
        *body = Cow::Owned(formatted);
    }
}

impl Mapper {
    fn lower(mapper: pb::ResponseMapper, path: &FieldPath) -> Result<Self, ConfigError> {
        let pb::ResponseMapper { filter, status_code, body, body_format_override, headers_to_add } = mapper;
        let filter_path = path.field("filter");
        let Some(filter) = filter else {
            return Err(ConfigError::new(filter_path, "value is required"));
        };
        let status = match status_code {
            None => None,
            Some(status) => match u16::try_from(status.value) {
                Ok(status @ 200..600) => Some(status),
                _ => {
                    let reason = "value must be inside range [200, 600)";
                    return Err(ConfigError::new(path.field("status_code"), reason));
                }
            },
        };
        let body = body.map(|body| read_source(&body, &path.field("body"))).transpose()?;
        Ok(Self {
            filter: LogFilter::lower(filter, &filter_path)?,
            status,
            body: body.map(Into::into),
            body_format: BodyFormat::lower(body_format_override, &path.field("body_format_override"))?,
            headers: HeaderMutations::compile(&headers_to_add, &path.field("headers_to_add"), &[], path)?,
        })
    }
}

impl BodyFormat {
    fn lower(
        message: Option<SubstitutionFormatString>,
        path: &FieldPath,
    ) -> Result<Option<Self>, ConfigError> {
        let Some(message) = message else { return Ok(None) };
        let read = |source: &DataSource, path: &FieldPath| {
            String::from_utf8(read_source(source, path)?)
                .map_err(|_| ConfigError::new(path.clone(), "a format must be UTF-8"))
        };
        let (format, content_type) = LogFormat::compile(&message, path, &read)?;
        Ok(Some(Self { format, content_type }))
    }
}
