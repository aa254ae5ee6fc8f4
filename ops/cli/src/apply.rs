//! `dhow apply`: change the rules of the running mesh.

use dhow_up::{Outcome, Rules, UpError, Validate};

use crate::manifest_source::ManifestArg;
use crate::running_mesh::MeshArg;

/// Apply routing rules and other configuration to the running mesh.
///
/// An object takes the place of the one with its name; all of a file is applied, or nothing of it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    manifests: ManifestArg,
    #[command(flatten)]
    mesh: MeshArg,
}

pub(crate) fn run(args: &Args, validate: Validate) -> Result<(), UpError> {
    let (folder, _) = args.mesh.find()?;
    for (name, text) in args.manifests.read()? {
        let applied = Rules::of(&folder)?.apply(&name, text, validate)?;
        applied.warnings.iter().for_each(|warning| eprintln!("Warning: {warning}"));
        for change in applied.changes {
            let outcome = match change.outcome {
                Outcome::Created => "created",
                Outcome::Configured => "configured",
                Outcome::Unchanged => "unchanged",
                Outcome::Deleted => "deleted",
            };
            println!("{}/{} {outcome}", change.resource, change.name);
        }
    }
    Ok(())
}
