//! Child processes that cannot outlive the test.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group, set_parent_process_death_signal};

use crate::poll::poll_until;

/// What to start, before it is started.
#[derive(Debug, Clone)]
pub struct ChildSpec {
    program: PathBuf,
    args: Vec<OsString>,
    envs: Vec<(OsString, OsString)>,
    cwd: Option<PathBuf>,
    log: PathBuf,
}

impl ChildSpec {
    /// Runs `program` with its standard output and error appended to the file `log`.
    pub fn new(program: impl Into<PathBuf>, log: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), args: Vec::new(), envs: Vec::new(), cwd: None, log: log.into() }
    }

    /// Adds one argument.
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds several arguments.
    pub fn args<I: IntoIterator<Item = impl Into<OsString>>>(mut self, args: I) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets one environment variable of the child.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.envs.push((name.into(), value.into()));
        self
    }

    /// Sets the folder that the child starts in.
    pub fn current_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.cwd = Some(dir.into());
        self
    }

    /// Starts the process as leader of a process group of its own.
    ///
    /// The kernel kills it when the thread that called this ends, so start it from the thread that owns the guard.
    pub fn spawn(self) -> io::Result<ChildGuard> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .envs(self.envs)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0);
        if let Some(dir) = &self.cwd {
            command.current_dir(dir);
        }
        die_with_parent(&mut command);
        let child = command
            .spawn()
            .map_err(|e| io::Error::new(e.kind(), format!("cannot start {}: {e}", self.program.display())))?;
        Ok(ChildGuard { child, log: self.log })
    }
}

/// Asks the kernel to kill the child when its parent dies, even by SIGKILL.
#[allow(unsafe_code)]
fn die_with_parent(command: &mut Command) {
    // SAFETY: the closure runs between fork and exec and only makes one prctl system call, which is async-signal-safe, and
    // touches no memory that another thread could have been holding a lock on.
    unsafe {
        command.pre_exec(|| set_parent_process_death_signal(Some(Signal::KILL)).map_err(io::Error::from));
    }
}

/// A running child process; dropping it kills its whole process group and reaps it.
#[derive(Debug)]
pub struct ChildGuard {
    child: Child,
    log: PathBuf,
}

impl ChildGuard {
    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The file that standard output and error go to.
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// What the process has written so far, with undecodable bytes replaced.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The exit status if the process has ended.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits up to `limit` for the process to end by itself.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        poll_until(limit, || self.exited()).ok()
    }

    /// Sends SIGTERM and waits up to `limit`; the guard's drop kills what is left.
    pub fn terminate(&mut self, limit: Duration) -> Option<ExitStatus> {
        if self.exited().is_none()
            && let Some(pid) = self.pid()
        {
            // The process may have ended in between; the wait below finds out.
            let _ = kill_process(pid, Signal::TERM);
        }
        self.wait(limit)
    }

    /// Waits up to `limit` until the process accepts connections on `address`, or explains why it never will.
    pub fn wait_listening(&mut self, address: SocketAddr, limit: Duration) -> Result<(), String> {
        let outcome = poll_until(limit, || {
            if let Some(status) = self.exited() {
                return Some(Err(format!(
                    "ended with {status} before it listened on {address}:\n{}",
                    self.log()
                )));
            }
            std::net::TcpStream::connect(address).ok().map(|_| Ok(()))
        });
        outcome.unwrap_or_else(|e| Err(format!("does not listen on {address}: {e}:\n{}", self.log())))
    }

    fn pid(&self) -> Option<Pid> {
        Pid::from_raw(i32::try_from(self.child.id()).ok()?)
    }
}

impl Drop for ChildGuard {
    fn drop(&mut self) {
        if let Some(pid) = self.pid() {
            // The group may be gone already; then there is nothing to kill.
            let _ = kill_process_group(pid, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tempdir::TempDir;

    #[test]
    fn dropping_the_guard_kills_the_whole_group() {
        let dir = TempDir::new("process-test").unwrap();
        let log = dir.path().join("log");
        let child =
            ChildSpec::new("/bin/sh", &log).args(["-c", "sleep 600 & echo $!; wait"]).spawn().unwrap();
        let grandchild: u32 = poll_until(Duration::from_secs(5), || child.log().trim().parse().ok()).unwrap();
        let stat = PathBuf::from(format!("/proc/{grandchild}/stat"));
        assert!(stat.exists());
        drop(child);
        let gone = || {
            let text = std::fs::read_to_string(&stat).unwrap_or_default();
            (text.is_empty() || text.contains(") Z ")).then_some(())
        };
        poll_until(Duration::from_secs(5), gone).unwrap();
    }

    #[test]
    fn a_child_that_ends_early_is_reported_with_its_output() {
        let dir = TempDir::new("process-test").unwrap();
        let mut child = ChildSpec::new("/bin/sh", dir.path().join("log"))
            .args(["-c", "echo no such flag; exit 3"])
            .spawn()
            .unwrap();
        let error = child.wait_listening(([127, 0, 0, 1], 1).into(), Duration::from_secs(5)).unwrap_err();
        assert!(error.contains("exit status: 3") && error.contains("no such flag"), "{error}");
    }
}
