//! `dhow delete`: remove rules from the running mesh.

use dhow_up::{Rules, UpError};

use crate::manifest_source::ManifestArg;
use crate::running_mesh::MeshArg;

/// Remove routing rules and other configuration from the running mesh.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    manifests: ManifestArg,
    #[command(flatten)]
    mesh: MeshArg,
}

pub(crate) fn run(args: &Args) -> Result<(), UpError> {
    let (folder, _) = args.mesh.find()?;
    let mut not_found = Vec::new();
    for (name, text) in args.manifests.read()? {
        let (changes, missing) = Rules::of(&folder)?.delete(&name, text)?;
        changes.iter().for_each(|change| println!("{} \"{}\" deleted", change.resource, change.name));
        not_found.extend(missing);
    }
    if not_found.is_empty() { Ok(()) } else { Err(UpError::Apply(not_found.join("; "))) }
}
