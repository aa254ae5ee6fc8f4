//! Files of JSON events: of health checks and of outlier detection.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::SystemTime;

use dhow_base::civil_date;
use dhow_net::StreamAddress;
use dhow_proto::envoy::config::core::v3::Metadata;
use dhow_proto::google::protobuf::{Struct, Value, value::Kind};
use parking_lot::Mutex;

/// The event files that are open; several writers with one path share its file.
#[derive(Debug, Default)]
pub(crate) struct EventLogs {
    files: Mutex<HashMap<String, Weak<EventFile>>>,
}

/// One file. Lines are written at once: there are few of them.
#[derive(Debug)]
pub(crate) struct EventFile {
    path: String,
    file: Mutex<File>,
}

impl EventLogs {
    /// Opens (creating, appending) a file, or gives the one that is open.
    pub(crate) fn open(&self, path: &str) -> io::Result<Arc<EventFile>> {
        let mut files = self.files.lock();
        if let Some(file) = files.get(path).and_then(Weak::upgrade) {
            return Ok(file);
        }
        let file = Arc::new(EventFile { path: path.to_owned(), file: Mutex::new(append_to(path)?) });
        files.insert(path.to_owned(), Arc::downgrade(&file));
        Ok(file)
    }

    /// Opens all files again by their paths, for rotation.
    pub(crate) fn reopen(&self) {
        let files: Vec<_> = self.files.lock().values().filter_map(Weak::upgrade).collect();
        for file in files {
            match append_to(&file.path) {
                Ok(fresh) => *file.file.lock() = fresh,
                Err(error) => tracing::error!("cannot reopen event log {}: {error}", file.path),
            }
        }
    }
}

impl EventFile {
    /// Appends a line.
    pub(crate) fn write(&self, mut line: String) {
        line.push('\n');
        if let Err(error) = self.file.lock().write_all(line.as_bytes()) {
            tracing::error!("cannot write event log {}: {error}", self.path);
        }
    }
}

fn append_to(path: impl AsRef<Path>) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// Appends a JSON string.
pub(crate) fn push_text(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => {
                out.push('\\');
                out.push(character);
            }
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            control if control.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(control));
            }
            plain => out.push(plain),
        }
    }
    out.push('"');
}

/// Appends an `envoy.config.core.v3.Address` with all its fields of primitive types.
pub(crate) fn push_address(out: &mut String, address: &StreamAddress) {
    match address {
        StreamAddress::Ip(ip) => {
            let _ = write!(
                out,
                "{{\"socket_address\":{{\"protocol\":\"TCP\",\"address\":\"{}\",\"port_value\":{},\
                 \"resolver_name\":\"\",\"ipv4_compat\":false,\"network_namespace_filepath\":\"\"}}}}",
                ip.ip(),
                ip.port()
            );
        }
        StreamAddress::Pipe(path) => {
            out.push_str("{\"pipe\":{\"path\":");
            push_text(out, path);
            out.push_str(",\"mode\":0}}");
        }
    }
}

/// Appends a timestamp with as many digits (0, 3, 6 or 9) behind the second as it needs.
pub(crate) fn push_time(out: &mut String, time: SystemTime) {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (seconds, nanos) = (since.as_secs(), since.subsec_nanos());
    let (year, month, day) = civil_date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    let _ = write!(out, "\"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    let _ = match nanos {
        0 => Ok(()),
        n if n % 1_000_000 == 0 => write!(out, ".{:03}", n / 1_000_000),
        n if n % 1_000 == 0 => write!(out, ".{:06}", n / 1_000),
        n => write!(out, ".{n:09}"),
    };
    out.push_str("Z\"");
}

/// Appends `,"metadata":{...}` unless there is none.
pub(crate) fn push_metadata(out: &mut String, metadata: &Metadata) {
    if metadata.filter_metadata.is_empty() {
        return;
    }
    out.push_str(",\"metadata\":{\"filter_metadata\":{");
    let mut sorted: Vec<_> = metadata.filter_metadata.iter().collect();
    sorted.sort_by_key(|(name, _)| *name);
    for (at, (name, fields)) in sorted.into_iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        push_text(out, name);
        out.push(':');
        push_struct(out, fields);
    }
    out.push_str("},\"typed_filter_metadata\":{}}");
}

fn push_struct(out: &mut String, fields: &Struct) {
    out.push('{');
    let mut sorted: Vec<_> = fields.fields.iter().collect();
    sorted.sort_by_key(|(name, _)| *name);
    for (at, (name, value)) in sorted.into_iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        push_text(out, name);
        out.push(':');
        push_value(out, value);
    }
    out.push('}');
}

fn push_value(out: &mut String, value: &Value) {
    match &value.kind {
        Some(Kind::NumberValue(number)) => {
            let _ = write!(out, "{number}");
        }
        Some(Kind::StringValue(text)) => push_text(out, text),
        Some(Kind::BoolValue(is)) => out.push_str(if *is { "true" } else { "false" }),
        Some(Kind::StructValue(fields)) => push_struct(out, fields),
        Some(Kind::ListValue(list)) => {
            out.push('[');
            for (at, value) in list.values.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                push_value(out, value);
            }
            out.push(']');
        }
        Some(Kind::NullValue(_)) | None => out.push_str("null"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_have_the_digits_that_they_need() {
        let shown = |nanos: u64| {
            let mut out = String::new();
            push_time(&mut out, SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos));
            out
        };
        assert_eq!(shown(0), "\"1970-01-01T00:00:00Z\"");
        assert_eq!(shown(86_400_000_000_000 + 1_000_000), "\"1970-01-02T00:00:00.001Z\"");
        assert_eq!(shown(1_000), "\"1970-01-01T00:00:00.000001Z\"");
        assert_eq!(shown(1), "\"1970-01-01T00:00:00.000000001Z\"");
    }

    #[test]
    fn texts_are_escaped() {
        let mut out = String::new();
        push_text(&mut out, "a\"\\\n\u{1}é");
        assert_eq!(out, "\"a\\\"\\\\\\n\\u0001é\"");
    }

    #[test]
    fn one_path_is_one_file() {
        let path = std::env::temp_dir().join(format!("dhow-event-log-{}", std::process::id()));
        let path = path.to_str().expect("a path of plain characters");
        let logs = EventLogs::default();
        let (first, second) = (logs.open(path).expect("writable"), logs.open(path).expect("writable"));
        assert!(Arc::ptr_eq(&first, &second));
        first.write("a".into());
        std::fs::remove_file(path).expect("it exists");
        logs.reopen();
        second.write("b".into());
        assert_eq!(std::fs::read_to_string(path).expect("made anew"), "b\n");
        std::fs::remove_file(path).expect("it exists");
    }
}
