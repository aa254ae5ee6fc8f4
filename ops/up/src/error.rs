//! Why a mesh cannot come up, or why rules cannot be applied to it; each is one line for the terminal.

use std::path::PathBuf;

/// What went wrong, in one line.
#[derive(Debug, thiserror::Error)]
pub enum UpError {
    /// A file or folder cannot be read or written.
    #[error("{path}: {cause}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        cause: std::io::Error,
    },
    /// A manifest is not YAML, or not a manifest.
    #[error("{file}:{line}: {reason}")]
    Manifest {
        /// Path of the file as the user named it.
        file: String,
        /// Line in it, from 1.
        line: usize,
        /// What is wrong there.
        reason: String,
    },
    /// The folder has nothing to run.
    #[error("{folder}: nothing to run: {reason}")]
    Nothing {
        /// The folder.
        folder: String,
        /// What is missing.
        reason: &'static str,
    },
    /// No command is known for an image.
    #[error(
        "{at}: no command is known for the image {image} of {object}; give one with --image {short}=COMMAND"
    )]
    UnmappedImage {
        /// File and line of the object.
        at: String,
        /// The image.
        image: String,
        /// The image's name without registry and tag.
        short: String,
        /// Kind and name of the object.
        object: String,
    },
    /// A command cannot be started.
    #[error("{owner}: cannot start {command}: {reason}")]
    Command {
        /// Pod and container, or part of the mesh.
        owner: String,
        /// The program.
        command: String,
        /// Why.
        reason: String,
    },
    /// A part of the mesh itself ended before it was ready.
    #[error("{part} did not start: {reason}")]
    Part {
        /// The part.
        part: String,
        /// Its last words, or how it ended.
        reason: String,
    },
    /// Somebody else listens on the gateway's port.
    #[error("port {port} of 127.0.0.1 is already taken; choose another one with --gateway-port")]
    GatewayPort {
        /// The port.
        port: u16,
    },
    /// Addresses for the pods cannot be had.
    #[error("{0}")]
    Addresses(String),
    /// The rules to apply are not valid, or there is no mesh to apply them to.
    #[error("{0}")]
    Apply(String),
}

impl UpError {
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |cause| Self::File { path, cause }
    }
}
