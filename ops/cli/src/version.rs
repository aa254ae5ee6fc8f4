//! `dhow version`, with the output of `istioctl version`.

use dhow_up::UpError;
use serde_json::json;

/// Print the version of this program, and of the running mesh.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print only the version numbers.
    #[arg(short, long)]
    short: bool,
    /// Ask the running mesh as well; `--remote=false` does not.
    #[arg(long, default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    remote: bool,
    /// Format of the output.
    #[arg(short, long, value_enum)]
    output: Option<Output>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Output {
    Json,
    Yaml,
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

pub(crate) fn run(args: &Args) -> Result<(), UpError> {
    // All parts of a mesh on this machine are started from one program, so its version is theirs.
    let proxies: usize =
        if args.remote { dhow_up::running().iter().map(|(_, mesh)| mesh.proxies.len()).sum() } else { 0 };
    print!("{}", text(args, proxies));
    Ok(())
}

fn text(args: &Args, proxies: usize) -> String {
    match args.output {
        Some(Output::Json) => {
            let mut versions = json!({"clientVersion": {"version": VERSION}});
            if proxies > 0 {
                versions["meshVersion"] = json!([{"Component": "dhowd", "Info": {"version": VERSION}}]);
            }
            format!("{versions:#}\n")
        }
        Some(Output::Yaml) => {
            let mesh = format!("meshVersion:\n- Component: dhowd\n  Info:\n    version: {VERSION}\n");
            format!("clientVersion:\n  version: {VERSION}\n{}", if proxies > 0 { &mesh } else { "" })
        }
        None if proxies == 0 && args.short => format!("{VERSION}\n"),
        None if proxies == 0 => format!("client version: {VERSION}\n"),
        None => format!(
            "client version: {VERSION}\ncontrol plane version: {VERSION}\ndata plane version: {VERSION} ({proxies} proxies)\n"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_mesh_is_counted() {
        let args = Args { short: false, remote: true, output: None };
        assert_eq!(text(&args, 0), format!("client version: {VERSION}\n"));
        assert!(text(&args, 7).ends_with(&format!("data plane version: {VERSION} (7 proxies)\n")));
        let json: serde_json::Value =
            serde_json::from_str(&text(&Args { output: Some(Output::Json), ..args }, 7)).unwrap();
        assert_eq!(json["clientVersion"]["version"], VERSION);
    }
}
