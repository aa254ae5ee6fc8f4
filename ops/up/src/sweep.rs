//! What remains to be done when `dhow up` is gone, however it went: end every process of its mesh and remove its folder.
//!
//! A process of its own waits for that, at the other end of a pipe that the kernel closes with `dhow up`.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::address::MeshNumber;
use crate::attach::MESH;
use crate::error::UpError;
use crate::state::MeshFolder;

/// How long killed processes may take to disappear. Only one that hangs in the kernel takes longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The process that sweeps up.
#[derive(Debug)]
pub(crate) struct Sweeper {
    child: Child,
}

impl Sweeper {
    /// Starts it. `dhow` is the program that has [`sweep_main`] as its hidden command `sweep`.
    ///
    /// It also holds the mesh's number, so that the next mesh does not get the addresses before they are free.
    pub(crate) fn start(dhow: &Path, mesh: &MeshFolder, number: &MeshNumber) -> Result<Self, UpError> {
        use std::os::unix::process::CommandExt;
        let failed = |cause: std::io::Error| UpError::Command {
            owner: "dhow up".to_owned(),
            command: dhow.display().to_string(),
            reason: cause.to_string(),
        };
        let child = Command::new(dhow)
            .args([OsStr::new("sweep"), OsStr::new(&mesh.id), mesh.path.as_os_str()])
            .stdin(Stdio::piped())
            // Nothing is written there: it is the one descriptor left by which a socket can be handed over.
            .stdout(number.share().map_err(failed)?)
            .stderr(Stdio::null())
            .current_dir("/")
            // A signal for the whole group, such as the terminal's, must not end it before its work is done.
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        Ok(Self { child })
    }

    /// Lets it do its work and waits for the end of it.
    pub(crate) fn finish(mut self) {
        drop(self.child.stdin.take());
        // It ends by itself; there is nobody to tell otherwise.
        let _ = self.child.wait();
    }
}

/// The hidden command `sweep MESH FOLDER`: waits for the end of its input, then ends the processes of the mesh and removes the folder.
pub fn sweep_main(mesh: &OsStr, folder: &Path) -> ExitCode {
    let mut input = std::io::stdin().lock();
    let mut buffer = [0; 64];
    while matches!(input.read(&mut buffer), Ok(1..)) {}
    let done = kill_all(mesh);
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            let _ = writeln!(std::io::stderr(), "{}: {error}", folder.display());
            ExitCode::FAILURE
        }
        _ if done => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// Kills every process that has `mesh` in its environment until there is none; false if some are left after all.
fn kill_all(mesh: &OsStr) -> bool {
    let mut tag = MESH.as_bytes().to_vec();
    tag.push(b'=');
    tag.extend_from_slice(mesh.as_encoded_bytes());
    let deadline = Instant::now() + PATIENCE;
    loop {
        // One that was started while we looked is found the next time.
        if kill_tagged(&tag) == 0 {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Kills the processes with `tag` in their environment, and says how many there were.
fn kill_tagged(tag: &[u8]) -> usize {
    let Ok(processes) = std::fs::read_dir("/proc") else { return 0 };
    let ids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    ids.filter_map(Pid::from_raw).filter(|id| kill_if_tagged(*id, tag)).count()
}

fn kill_if_tagged(id: Pid, tag: &[u8]) -> bool {
    // The descriptor stands for this very process: should it end now, the signal does not reach one that got its number.
    let Ok(process) = pidfd_open(id, PidfdFlags::empty()) else { return false };
    let Ok(environment) = std::fs::read(format!("/proc/{}/environ", id.as_raw_nonzero())) else {
        return false;
    };
    let tagged = environment.split(|byte| *byte == 0).any(|variable| variable == tag);
    tagged && pidfd_send_signal(process, Signal::KILL).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_processes_of_the_mesh_are_killed_and_their_children_too() {
        let name = format!("test-{}", std::process::id());
        let start = |mesh: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", "sleep 600 & echo $!; wait"]).env(MESH, mesh).stdout(Stdio::piped());
            let mut child = command.spawn().unwrap();
            let mut line = String::new();
            std::io::BufRead::read_line(
                &mut std::io::BufReader::new(child.stdout.take().unwrap()),
                &mut line,
            )
            .unwrap();
            (child, line.trim().to_owned())
        };
        let (mut ours, grandchild) = start(&name);
        let (mut other, other_grandchild) = start(&format!("{name}-other"));
        assert!(kill_all(OsStr::new(&name)));
        assert!(!ours.wait().unwrap().success());
        let state = |id: &str| std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        let gone = |stat: String| stat.is_empty() || stat.rsplit(") ").next().unwrap().starts_with('Z');
        assert!(gone(state(&grandchild)), "{}", state(&grandchild));
        assert!(other.try_wait().unwrap().is_none() && !gone(state(&other_grandchild)));
        assert!(kill_all(OsStr::new(&format!("{name}-other"))));
        other.wait().unwrap();
    }
}
