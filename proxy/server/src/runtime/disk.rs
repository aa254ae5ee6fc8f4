//! The directory of a `disk_layer`: each file is a value, its path the key.

use std::fs;
use std::path::Path;

use dhow_proto::LoadOptions;
use dhow_proto::google::protobuf::{Struct, Value};
use dhow_runtime_config::Layer;

/// Directories within directories; a loop of symbolic links ends here.
const MAX_DEPTH: usize = 16;

/// Reads a directory with everything below.
///
/// # Errors
/// A file that cannot be read or is not YAML, or directories nested too deeply. The layer counts as a whole or not at all.
pub(super) fn read_directory(name: &str, directory: &Path) -> Result<Layer, String> {
    let mut layer = Layer::new(name);
    walk(directory, "", 1, &mut layer)?;
    Ok(layer)
}

fn walk(directory: &Path, prefix: &str, depth: usize, layer: &mut Layer) -> Result<(), String> {
    if depth > MAX_DEPTH {
        return Err(format!("Walk recursion depth exceeded {MAX_DEPTH}"));
    }
    let failed = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
    for entry in fs::read_dir(directory).map_err(|error| failed(directory, error))? {
        let path = entry.map_err(|error| failed(directory, error))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let key = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") };
        // Follows symbolic links, which volumes of Kubernetes consist of.
        let kind = fs::metadata(&path).map_err(|error| failed(&path, error))?;
        if kind.is_dir() {
            walk(&path, &key, depth + 1, layer)?;
        } else if kind.is_file() {
            let content = fs::read_to_string(&path).map_err(|error| failed(&path, error))?;
            layer.add_file(&key, &content, parse_value).map_err(|error| format!("{key}: {error}"))?;
        }
    }
    Ok(())
}

/// A file's text as YAML. The reader of messages wants a mapping, so the text becomes the value of one.
fn parse_value(text: &str) -> Result<Value, String> {
    if text.trim().is_empty() {
        return Ok(Value::default());
    }
    let indented: String = text.lines().map(|line| format!("  {line}\n")).collect();
    let loaded = dhow_proto::load_yaml::<Struct>(&format!("value:\n{indented}"), &LoadOptions::default())
        .map_err(|error| error.to_string())?;
    Ok(loaded.message.fields.into_values().next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use dhow_runtime_config::{Fraction, RuntimeValues, Snapshot};

    fn read(files: &[(&str, &str)]) -> Result<Snapshot, String> {
        let root = dhow_testkit::TempDir::new("runtime-disk").unwrap();
        for (name, content) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        read_directory("d", root.path()).map(|layer| Snapshot::new(vec![layer]))
    }

    #[test]
    fn files_are_values_and_paths_are_keys() {
        let files = [
            ("health_check/min_interval", "# ms\n7\n"),
            ("fraction", "numerator: 5\ndenominator: MILLION\n"),
            ("flag", "true\n"),
            ("number", "2.50"),
            ("empty", ""),
            ("text", "hello  \n"),
        ];
        let snapshot = read(&files).unwrap();
        assert_eq!(snapshot.number("health_check.min_interval"), Some(7));
        assert_eq!(snapshot.fraction("fraction"), Some(Fraction { numerator: 5, denominator: 1_000_000 }));
        assert_eq!((snapshot.boolean("flag"), snapshot.double("number")), (Some(true), Some(2.5)));
        assert_eq!(snapshot.get("text").unwrap().text(), "hello");
        assert_eq!(snapshot.get("empty").unwrap().text(), "");
    }

    #[test]
    fn a_file_that_is_not_yaml_spoils_the_layer() {
        assert!(read(&[("good", "1"), ("bad", "foo: [1")]).is_err());
    }

    #[test]
    fn directories_have_a_limit() {
        let nested = |depth: usize| format!("{}key", "d/".repeat(depth));
        assert!(read(&[(&nested(MAX_DEPTH - 1), "1")]).is_ok());
        assert!(read(&[(&nested(MAX_DEPTH), "1")]).is_err());
    }
}
