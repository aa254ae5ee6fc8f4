//! The manifests that `-f` names: a file, the files of a folder, or standard input.

use std::io::Read;
use std::path::{Path, PathBuf};

use dhow_up::UpError;

#[derive(Debug, clap::Args)]
pub(crate) struct ManifestArg {
    /// File with manifests, a folder of such files, or - for standard input.
    #[arg(short, long = "filename", value_name = "FILE", required = true)]
    filename: Vec<PathBuf>,
}

impl ManifestArg {
    /// The texts with what errors call them.
    pub(crate) fn read(&self) -> Result<Vec<(PathBuf, String)>, UpError> {
        let mut texts = Vec::new();
        for path in &self.filename {
            if path == Path::new("-") {
                let mut text = String::new();
                std::io::stdin().read_to_string(&mut text).map_err(|cause| file_error(path, cause))?;
                texts.push((PathBuf::from("stdin"), text));
            } else if path.is_dir() {
                texts.extend(read_folder(path)?);
            } else {
                texts.push((path.clone(), read(path)?));
            }
        }
        Ok(texts)
    }
}

fn read_folder(folder: &Path) -> Result<Vec<(PathBuf, String)>, UpError> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|cause| file_error(folder, cause))? {
        let path = entry.map_err(|cause| file_error(folder, cause))?.path();
        if path.is_file()
            && path.extension().is_some_and(|known| known == "yaml" || known == "yml" || known == "json")
        {
            paths.push(path);
        }
    }
    if paths.is_empty() {
        return Err(UpError::Apply(format!("{}: no .yaml, .yml or .json file in it", folder.display())));
    }
    paths.sort();
    paths.into_iter().map(|path| Ok((path.clone(), read(&path)?))).collect()
}

fn read(path: &Path) -> Result<String, UpError> {
    std::fs::read_to_string(path).map_err(|cause| file_error(path, cause))
}

fn file_error(path: &Path, cause: std::io::Error) -> UpError {
    UpError::File { path: path.to_owned(), cause }
}
