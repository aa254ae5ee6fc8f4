//! The child's side of being started by `dhow up`: a child ends with its parent, even when that one is killed.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use rustix::process::{Signal, getppid, set_parent_process_death_signal};

/// Variable with the process id of the `dhow up` that a process belongs to.
pub(crate) const PARENT: &str = "DHOW_UP_PARENT";

/// Variable by which all processes of a mesh, and whatever they start, are found again.
pub(crate) const MESH: &str = "DHOW_UP_MESH";

/// First words of the line with which [`exec`] reports that a command cannot be started.
pub(crate) const CANNOT_START: &str = "dhow: cannot start ";

/// Exit code of [`exec`] when a command cannot be started, as in shells.
pub(crate) const CANNOT_START_CODE: u8 = 126;

/// Asks the kernel to end this process when the `dhow up` that started it ends; does nothing in any other process. To be called first in `main`.
pub fn attach() {
    let Some(parent) = std::env::var(PARENT).ok().and_then(|id| id.parse::<i32>().ok()) else { return };
    let is_child = || getppid().is_some_and(|actual| actual.as_raw_nonzero().get() == parent);
    // Otherwise it was started by a process of the mesh; whoever sweeps up after `dhow up` finds it by its environment.
    if is_child() {
        // The kernel refuses only what is not a signal.
        let _ = set_parent_process_death_signal(Some(Signal::KILL));
        if !is_child() {
            std::process::exit(1);
        }
    }
}

/// Turns this process into `command`, which stays attached to `dhow up` although it knows nothing of it. Returns only when that fails.
pub fn exec(command: Vec<OsString>) -> ExitCode {
    let Some((program, arguments)) = command.split_first() else { return ExitCode::from(CANNOT_START_CODE) };
    let error = Command::new(program).args(arguments).exec();
    eprintln!("{CANNOT_START}{}: {error}", program.to_string_lossy());
    ExitCode::from(CANNOT_START_CODE)
}
