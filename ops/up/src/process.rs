//! Child processes: started attached to this one, in groups of their own, with their output read line by line.

use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinHandle;

use crate::attach::{MESH, PARENT};
use crate::probe::Probe;

/// Longest line of output that is kept in one piece, in bytes.
const LONGEST_LINE: u64 = 16 * 1024;

/// How often a process that is not ready is asked, and one that is.
const ASK_UNREADY: Duration = Duration::from_millis(50);
const ASK_READY: Duration = Duration::from_secs(1);

/// How long the output of a process may stay open after its end, held by something that it left behind.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// What to run.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    /// Program and arguments; not empty.
    pub command: Vec<String>,
    pub environment: Vec<(String, String)>,
    pub probe: Probe,
}

/// Something that a process did. `unit` says which, `run` the how manieth start of it.
#[derive(Debug)]
pub(crate) struct Event {
    pub unit: usize,
    pub run: u32,
    pub what: What,
}

#[derive(Debug)]
pub(crate) enum What {
    /// A line of output, and whether it came as an error.
    Line(String, bool),
    Ready(bool),
    Ended(std::io::Result<ExitStatus>),
}

/// A process that was started.
#[derive(Debug)]
pub(crate) struct Running {
    group: Pid,
    probe: JoinHandle<()>,
}

impl Running {
    /// Starts a process, which `events` will tell about.
    ///
    /// To be called on the main thread: the kernel ends a child with the thread that started it.
    pub(crate) fn start(
        launch: &Launch,
        mesh: &str,
        unit: usize,
        run: u32,
        events: &UnboundedSender<Event>,
    ) -> std::io::Result<Self> {
        let mut child = Command::new(&launch.command[0])
            .args(&launch.command[1..])
            .envs(launch.environment.iter().map(|(name, value)| (name, value)))
            .env(PARENT, std::process::id().to_string())
            .env(MESH, mesh)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let group = child
            .id()
            .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?))
            .ok_or_else(|| std::io::Error::other("the process has no number"))?;
        let send = {
            let events = events.clone();
            // The receiver goes last.
            move |what| drop(events.send(Event { unit, run, what }))
        };
        let probe = tokio::spawn(ask_for_ever(launch.probe, send.clone()));
        tokio::spawn(async move {
            let output =
                child.stdout.take().map(|stream| tokio::spawn(read_lines(stream, false, send.clone())));
            let errors =
                child.stderr.take().map(|stream| tokio::spawn(read_lines(stream, true, send.clone())));
            let status = wait(&mut child, group).await;
            // Its last words explain its end, so they are told first.
            for reader in [output, errors].into_iter().flatten() {
                let _ = tokio::time::timeout(LAST_WORDS, reader).await;
            }
            send(What::Ended(status));
        });
        Ok(Self { group, probe })
    }

    /// Sends a signal to the process and all that it started.
    pub(crate) fn signal(&self, signal: Signal) {
        // It may be gone already.
        let _ = kill_process_group(self.group, signal);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.probe.abort();
    }
}

/// Waits for the end of `child`, and ends what it leaves behind in its group.
async fn wait(child: &mut Child, group: Pid) -> std::io::Result<ExitStatus> {
    let status = child.wait().await;
    let _ = kill_process_group(group, Signal::KILL);
    status
}

async fn read_lines(stream: impl AsyncRead + Unpin, error: bool, send: impl Fn(What)) {
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut limited = tokio::io::AsyncReadExt::take(&mut reader, LONGEST_LINE);
        match limited.read_until(b'\n', &mut line).await {
            Ok(1..) => send(What::Line(String::from_utf8_lossy(&line).trim_end().to_owned(), error)),
            _ => return,
        }
    }
}

async fn ask_for_ever(probe: Probe, send: impl Fn(What)) {
    let mut was_ready = false;
    loop {
        let ready = probe.ask().await;
        if ready != was_ready {
            send(What::Ready(ready));
            was_ready = ready;
        }
        tokio::time::sleep(if ready { ASK_READY } else { ASK_UNREADY }).await;
    }
}

/// The file that `program` names, searched for in `PATH` if it has no slash; the error says why it cannot be run.
pub(crate) fn resolve(program: &str) -> Result<(), String> {
    let executable = |path: &Path| {
        use std::os::unix::fs::PermissionsExt;
        path.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
    };
    if program.contains('/') {
        let path = Path::new(program);
        return match path.metadata() {
            Err(error) => Err(error.to_string()),
            Ok(_) if !executable(path) => Err("it is not an executable file".to_owned()),
            Ok(_) => Ok(()),
        };
    }
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&paths).any(|folder| executable(&folder.join(program)));
    if found { Ok(()) } else { Err("no such command in PATH".to_owned()) }
}
