//! `AccessLog` messages lowered.

use std::cell::RefCell;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use dhow_base::{ConfigError, FieldPath};
use dhow_expr::{FormatContext, JsonFormat, LogFormat};
use dhow_proto::envoy::config::accesslog::v3 as pb;
use dhow_proto::envoy::config::core::v3::{DataSource, SubstitutionFormatString};
use dhow_proto::envoy::extensions::access_loggers::file::v3::{FileAccessLog, file_access_log};
use dhow_proto::envoy::extensions::access_loggers::stream::v3::{
    StderrAccessLog, StdoutAccessLog, stderr_access_log, stdout_access_log,
};
use dhow_proto::google::protobuf::Any;
use dhow_proto::{Message, SourceData};

use crate::file::{LogFile, LogWriter};
use crate::filter::{LogFilter, Logged};

const FILE: &str = "envoy.extensions.access_loggers.file.v3.FileAccessLog";
const STDOUT: &str = "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog";
const STDERR: &str = "envoy.extensions.access_loggers.stream.v3.StderrAccessLog";

/// A configured access log.
#[derive(Clone)]
pub struct AccessLog {
    filter: Option<Arc<LogFilter>>,
    format: Arc<LogFormat>,
    file: Arc<LogFile>,
    writer: Arc<LogWriter>,
}

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl AccessLog {
    /// Logs a stream or connection that ended, if the filter wants it.
    pub fn log(&self, context: &dyn FormatContext, logged: &Logged<'_>) {
        if self.filter.as_ref().is_some_and(|filter| !filter.wants(logged, context)) {
            return;
        }
        SCRATCH.with_borrow_mut(|scratch| {
            self.writer.log(&self.file, |out| self.format.append(context, scratch, out));
        });
    }
}

impl fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessLog").field("filter", &self.filter).finish_non_exhaustive()
    }
}

/// Lowers the access logs of a connection manager, TCP proxy or listener.
///
/// # Errors
/// The first log that is not acceptable: an unknown type, a format that does not compile, a file that cannot be opened.
pub fn lower(
    logs: Vec<pb::AccessLog>,
    writer: &Arc<LogWriter>,
    path: &FieldPath,
) -> Result<Vec<AccessLog>, ConfigError> {
    logs.into_iter().enumerate().map(|(i, log)| lower_one(log, writer, &path.index(i))).collect()
}

fn lower_one(
    log: pb::AccessLog,
    writer: &Arc<LogWriter>,
    path: &FieldPath,
) -> Result<AccessLog, ConfigError> {
    let pb::AccessLog { name, filter, config_type } = log;
    let Some(pb::access_log::ConfigType::TypedConfig(config)) = config_type else {
        let reason = format!("Didn't find a registered implementation for '{name}' with type URL: ''");
        return Err(ConfigError::new(path.clone(), reason));
    };
    let config_path = path.field("typed_config");
    let (file, format) = match dhow_proto::any::type_name(&config.type_url) {
        FILE => lower_file(&config, &config_path)?,
        STDOUT => {
            let StdoutAccessLog { access_log_format } = unpack(&config, &config_path)?;
            let format =
                access_log_format.map(|stdout_access_log::AccessLogFormat::LogFormat(format)| format);
            ("/dev/stdout".to_owned(), compile(format, &config_path)?)
        }
        STDERR => {
            let StderrAccessLog { access_log_format } = unpack(&config, &config_path)?;
            let format =
                access_log_format.map(|stderr_access_log::AccessLogFormat::LogFormat(format)| format);
            ("/dev/stderr".to_owned(), compile(format, &config_path)?)
        }
        type_name => {
            let reason =
                format!("Didn't find a registered implementation for '{name}' with type URL: '{type_name}'");
            return Err(ConfigError::new(config_path, reason));
        }
    };
    let filter = filter.map(|filter| LogFilter::lower(filter, &path.field("filter"))).transpose()?;
    let open = writer.open(Path::new(&file)).map_err(|error| {
        ConfigError::new(config_path.field("path"), format!("unable to open file '{file}': {error}"))
    })?;
    Ok(AccessLog {
        filter: filter.map(Arc::new),
        format: Arc::new(format),
        file: open,
        writer: writer.clone(),
    })
}

fn lower_file(config: &Any, path: &FieldPath) -> Result<(String, LogFormat), ConfigError> {
    use file_access_log::AccessLogFormat as Choice;
    let FileAccessLog { path: file, access_log_format } = unpack(config, path)?;
    #[allow(deprecated, reason = "deprecated fields are still accepted, with a warning from the loader")]
    let format = match access_log_format {
        None => LogFormat::default_access_log(),
        Some(Choice::Format(text)) if text.is_empty() => LogFormat::default_access_log(),
        Some(Choice::Format(text)) => {
            let format = dhow_expr::Format::parse(&text).map_err(|e| e.under(&path.field("format")))?;
            LogFormat::Text(format)
        }
        Some(Choice::JsonFormat(fields)) => {
            LogFormat::Json(JsonFormat::compile(&fields, false, &path.field("json_format"))?)
        }
        Some(Choice::TypedJsonFormat(fields)) => {
            LogFormat::Json(JsonFormat::compile(&fields, false, &path.field("typed_json_format"))?)
        }
        Some(Choice::LogFormat(format)) => compile(Some(format), path)?,
    };
    Ok((file, format))
}

fn compile(format: Option<SubstitutionFormatString>, path: &FieldPath) -> Result<LogFormat, ConfigError> {
    match format {
        None => Ok(LogFormat::default_access_log()),
        Some(format) => {
            LogFormat::compile(&format, &path.field("log_format"), &read_source).map(|(format, _)| format)
        }
    }
}

fn read_source(source: &DataSource, path: &FieldPath) -> Result<String, ConfigError> {
    let reason = "the format is not valid UTF-8";
    String::from_utf8(SourceData::read(source, path)?.bytes)
        .map_err(|_| ConfigError::new(path.clone(), reason))
}

fn unpack<M: Message + Default>(config: &Any, path: &FieldPath) -> Result<M, ConfigError> {
    M::decode(config.value.as_slice()).map_err(|error| ConfigError::new(path.clone(), error.to_string()))
}
