//! A thread that scans a directory again when the kernel reports a change in it.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;

use crate::Directory;

/// Quiet time after a change before the directory is read: an editor or `cp` writes in several steps.
const QUIET: Duration = Duration::from_millis(40);
/// Longest wait while changes keep coming.
const LONGEST: Duration = Duration::from_millis(300);
/// Time between scans without a report, for file systems that report nothing.
const FALLBACK: Duration = Duration::from_secs(5);

/// A running watch; it ends when this is dropped.
#[derive(Debug)]
pub struct Watcher {
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // Closing the pipe's end wakes the thread up.
        self.stop = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the watch of the configuration directory ended with a panic");
        }
    }
}

/// Watches a directory that has been scanned, on a thread of its own. `publish` is called after every scan that changed
/// something, with the directory as it is then.
///
/// # Errors
/// When the kernel gives no inotify instance or no thread.
pub fn watch(directory: Directory, publish: impl FnMut(&Directory) + Send + 'static) -> io::Result<Watcher> {
    let events = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    let (stopped, stop) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let mut watched = Watched { events, folders: BTreeSet::new(), directory, publish };
    watched.follow();
    let thread = std::thread::Builder::new()
        .name("config-watch".to_owned())
        .spawn(move || watched.run(stopped.as_fd()))?;
    Ok(Watcher { stop: Some(stop), thread: Some(thread) })
}

struct Watched<F> {
    events: OwnedFd,
    folders: BTreeSet<PathBuf>,
    directory: Directory,
    publish: F,
}

impl<F: FnMut(&Directory)> Watched<F> {
    fn run(mut self, stopped: BorrowedFd<'_>) {
        // Something may have changed between the first scan and the first watch.
        self.scan();
        loop {
            match self.wait(stopped, FALLBACK) {
                Wait::Stopped => return,
                Wait::TimedOut => self.scan(),
                Wait::Changed => {
                    let deadline = Instant::now() + LONGEST;
                    loop {
                        let left = deadline.saturating_duration_since(Instant::now()).min(QUIET);
                        match self.wait(stopped, left) {
                            Wait::Stopped => return,
                            Wait::TimedOut => break,
                            Wait::Changed => {}
                        }
                    }
                    self.scan();
                }
            }
        }
    }

    fn scan(&mut self) {
        let mut changed = false;
        // A folder that was new in this scan was not watched while it was read; it is read once more.
        loop {
            match self.directory.scan() {
                Ok(different) => changed |= different,
                Err(error) => {
                    tracing::error!(folder = %self.directory.root().display(), %error, "cannot be listed; what was read before stays live");
                    return;
                }
            }
            if !self.follow() {
                break;
            }
        }
        if changed {
            (self.publish)(&self.directory);
        }
    }

    /// Watches the folders of the last scan. The answer says whether any is new.
    fn follow(&mut self) -> bool {
        let flags = inotify::WatchFlags::CLOSE_WRITE
            | inotify::WatchFlags::MODIFY
            | inotify::WatchFlags::CREATE
            | inotify::WatchFlags::DELETE
            | inotify::WatchFlags::MOVED_FROM
            | inotify::WatchFlags::MOVED_TO
            | inotify::WatchFlags::DELETE_SELF
            | inotify::WatchFlags::MOVE_SELF
            | inotify::WatchFlags::ONLYDIR;
        let mut any_new = false;
        // The kernel forgets a folder that was removed, also when one of the same name takes its place, so every folder
        // is named again each time; naming a watched one changes nothing.
        for folder in self.directory.folders() {
            match inotify::add_watch(&self.events, folder, flags) {
                Ok(_) => any_new |= !self.folders.contains(folder),
                Err(error) => {
                    tracing::warn!(folder = %folder.display(), %error, "cannot be watched; changes are found every 5 s");
                }
            }
        }
        self.folders.clone_from(self.directory.folders());
        any_new
    }

    fn wait(&mut self, stopped: BorrowedFd<'_>, timeout: Duration) -> Wait {
        let timeout = Timespec::try_from(timeout).ok();
        let mut sources =
            [PollFd::new(&self.events, PollFlags::IN), PollFd::from_borrowed_fd(stopped, PollFlags::IN)];
        match poll(&mut sources, timeout.as_ref()) {
            Ok(0) => return Wait::TimedOut,
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Wait::Changed,
            Err(error) => {
                tracing::error!(%error, "the configuration directory cannot be watched any longer");
                return Wait::Stopped;
            }
        }
        let [events, stop] = sources.map(|source| source.revents());
        if !stop.is_empty() {
            return Wait::Stopped;
        }
        if events.is_empty() { Wait::TimedOut } else { self.drain() }
    }

    fn drain(&mut self) -> Wait {
        let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.events, &mut buffer);
        while reader.next().is_ok() {}
        Wait::Changed
    }
}

enum Wait {
    Stopped,
    TimedOut,
    Changed,
}
