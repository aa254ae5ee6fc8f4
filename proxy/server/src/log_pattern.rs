//! The form of a log line: `--log-format` and `application_log_config.log_format`, in spdlog's syntax with Envoy's additions.

use std::fmt::Write as _;
use std::time::SystemTime;

use dhow_proto::google::protobuf::{Struct, Value, value::Kind};

/// Envoy's default.
pub(crate) const DEFAULT: &str = "[%Y-%m-%d %T.%e][%t][%l][%n] [%g:%#] %v";

/// What a line is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line<'a> {
    /// When it was written.
    pub(crate) time: SystemTime,
    /// Level, as Envoy names it.
    pub(crate) level: &'a str,
    /// Component.
    pub(crate) logger: &'a str,
    /// Number of the thread.
    pub(crate) thread: u64,
    /// Source file.
    pub(crate) file: &'a str,
    /// Line in the source file.
    pub(crate) line: u32,
    /// The text.
    pub(crate) message: &'a str,
}

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(String),
    Flag(char),
}

/// A compiled form.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LogPattern {
    parts: Vec<Part>,
    escape: bool,
}

impl LogPattern {
    /// Compiles a form. What is not a flag stands for itself. With `escape`, control characters of messages are written as C writes them.
    pub(crate) fn compile(format: &str, escape: bool) -> Self {
        let mut parts = Vec::new();
        let mut text = String::new();
        let mut rest = format.chars();
        while let Some(next) = rest.next() {
            if next != '%' {
                text.push(next);
                continue;
            }
            match rest.next() {
                None => text.push('%'),
                Some('%') => text.push('%'),
                Some(flag) if is_flag(flag) => {
                    if !text.is_empty() {
                        parts.push(Part::Text(std::mem::take(&mut text)));
                    }
                    parts.push(Part::Flag(flag));
                }
                Some(other) => text.extend(['%', other]),
            }
        }
        if !text.is_empty() {
            parts.push(Part::Text(text));
        }
        Self { parts, escape }
    }

    /// Compiles the form of a JSON line: each value of the struct is a form.
    ///
    /// # Errors
    /// Envoy's words for flags that could break the JSON.
    pub(crate) fn compile_json(fields: &Struct) -> Result<Self, String> {
        let mut text = String::new();
        print_json(&Kind::StructValue(fields.clone()), &mut text);
        for flag in ["%v", "%_"] {
            if text.contains(flag) {
                return Err(format!("INVALID_ARGUMENT: Usage of {flag} is unavailable for JSON log formats"));
            }
        }
        Ok(Self::compile(&text, false))
    }

    /// Writes a line, with its line break.
    pub(crate) fn write(&self, line: &Line<'_>, out: &mut String) {
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Flag(flag) => self.write_flag(*flag, line, out),
            }
        }
        out.push('\n');
    }

    fn write_flag(&self, flag: char, line: &Line<'_>, out: &mut String) {
        let since = line.time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let (seconds, nanos) = (since.as_secs(), since.subsec_nanos());
        let (year, month, day) = dhow_base::civil_date(seconds / 86_400);
        let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        let base_name = || line.file.rsplit('/').next().unwrap_or_default();
        let _ = match flag {
            'v' if self.escape => {
                escape(line.message, out);
                Ok(())
            }
            'v' => out.write_str(line.message),
            '_' => out.write_str(&line.message.replace('\n', "\\n")),
            'j' => {
                let quoted = serde_json::Value::from(line.message).to_string();
                out.write_str(&quoted[1..quoted.len() - 1])
            }
            'l' => out.write_str(line.level),
            'L' => out.write_str(&line.level[..1].to_ascii_uppercase()),
            'n' => out.write_str(line.logger),
            't' => write!(out, "{}", line.thread),
            'P' => write!(out, "{}", std::process::id()),
            'g' => out.write_str(line.file),
            's' => out.write_str(base_name()),
            '#' => write!(out, "{}", line.line),
            '@' => write!(out, "{}:{}", line.file, line.line),
            'Y' => write!(out, "{year:04}"),
            'C' => write!(out, "{:02}", year % 100),
            'm' => write!(out, "{month:02}"),
            'd' => write!(out, "{day:02}"),
            'D' => write!(out, "{month:02}/{day:02}/{:02}", year % 100),
            'H' => write!(out, "{hour:02}"),
            'M' => write!(out, "{minute:02}"),
            'S' => write!(out, "{second:02}"),
            'T' | 'X' => write!(out, "{hour:02}:{minute:02}:{second:02}"),
            'R' => write!(out, "{hour:02}:{minute:02}"),
            'e' => write!(out, "{:03}", nanos / 1_000_000),
            'f' => write!(out, "{:06}", nanos / 1_000),
            'F' => write!(out, "{nanos:09}"),
            'E' => write!(out, "{seconds}"),
            'z' => out.write_str("+00:00"),
            _ => Ok(()),
        };
    }
}

fn is_flag(flag: char) -> bool {
    "v_jlLntPgs#@YCmdDHMSTXRefFEz".contains(flag)
}

fn escape(message: &str, out: &mut String) {
    for c in message.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '"' => out.push_str("\\\""),
            '\'' => out.push_str("\\'"),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => {
                let _ = write!(out, "\\{:03o}", u32::from(c));
            }
            c => out.push(c),
        }
    }
}

/// A struct as one line of JSON, its fields in order of their names.
fn print_json(value: &Kind, out: &mut String) {
    let inner = |value: &Value, out: &mut String| match &value.kind {
        Some(kind) => print_json(kind, out),
        None => out.push_str("null"),
    };
    match value {
        Kind::StructValue(Struct { fields }) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(name, _)| *name);
            out.push('{');
            for (at, (name, value)) in fields.into_iter().enumerate() {
                out.push_str(if at == 0 { "" } else { "," });
                let _ = write!(out, "{}:", serde_json::Value::from(name.as_str()));
                inner(value, out);
            }
            out.push('}');
        }
        Kind::ListValue(list) => {
            out.push('[');
            for (at, value) in list.values.iter().enumerate() {
                out.push_str(if at == 0 { "" } else { "," });
                inner(value, out);
            }
            out.push(']');
        }
        Kind::StringValue(text) => {
            let _ = write!(out, "{}", serde_json::Value::from(text.as_str()));
        }
        Kind::NumberValue(number) => {
            let _ = write!(out, "{number}");
        }
        Kind::BoolValue(value) => {
            let _ = write!(out, "{value}");
        }
        Kind::NullValue(_) => out.push_str("null"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn line(message: &str) -> Line<'_> {
        Line {
            time: SystemTime::UNIX_EPOCH + Duration::new(86_400 + 3_661, 7_008_009),
            level: "warning",
            logger: "main",
            thread: 7,
            file: "proxy/server/src/x.rs",
            line: 12,
            message,
        }
    }

    fn written(format: &str, escape: bool, message: &str) -> String {
        let mut out = String::new();
        LogPattern::compile(format, escape).write(&line(message), &mut out);
        out
    }

    #[test]
    fn the_default_is_envoys() {
        let expected = "[1970-01-02 01:01:01.007][7][warning][main] [proxy/server/src/x.rs:12] hi\n";
        assert_eq!(written(DEFAULT, false, "hi"), expected);
    }

    #[test]
    fn flags_and_texts_mix() {
        assert_eq!(written("100%% %q %L %s %f%", false, ""), "100% %q W x.rs 007008%\n");
        assert_eq!(written("%_", false, "a\nb"), "a\\nb\n");
        assert_eq!(written("%j", false, "a\n\"b"), "a\\n\\\"b\n");
        assert_eq!(written("%v", true, "a\n\u{1}"), "a\\n\\001\n");
    }

    #[test]
    fn json_lines_have_sorted_fields_and_no_raw_message() {
        let fields = |json: &str| {
            dhow_proto::load_json::<Struct>(json, &dhow_proto::LoadOptions::default()).unwrap().message
        };
        let pattern =
            LogPattern::compile_json(&fields(r#"{"Message": "%j", "Level": "%l", "n": 1}"#)).unwrap();
        let mut out = String::new();
        pattern.write(&line("say \"x\""), &mut out);
        assert_eq!(out, "{\"Level\":\"warning\",\"Message\":\"say \\\"x\\\"\",\"n\":1}\n");
        let error = LogPattern::compile_json(&fields(r#"{"m": "%v"}"#)).unwrap_err();
        assert!(error.contains("Usage of %v is unavailable for JSON log formats"), "{error}");
    }
}
