//! Access-log files: workers fill buffers of their own, one thread writes.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dhow_stats::{Store, stat_group};

stat_group! {
    /// `filesystem.*`.
    struct FileStats {
        counters { flushed_by_timer, reopen_failed, write_buffered, write_completed, write_failed }
        gauges { write_total_buffered }
    }
}

enum Message {
    Write(Arc<LogFile>, Vec<u8>),
    Flush(Sender<()>),
}

/// The writer of all access-log files of the process.
///
/// A worker collects lines in a buffer of its own and hands it over when it is full or when the flush interval has
/// passed (`--file-flush-interval-msec`); the thread here is the only one that touches files. Dropping the last owner
/// flushes and ends the thread.
#[derive(Debug)]
pub struct LogWriter {
    messages: Mutex<Option<Sender<Message>>>,
    files: Mutex<HashMap<PathBuf, Weak<LogFile>>>,
    flush_interval: Duration,
    /// A worker hands its buffer over when it holds this many bytes.
    flush_bytes: usize,
    stats: FileStats,
    join: Mutex<Option<JoinHandle<()>>>,
}

/// One open file; several logs with the same path share it.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    file: Mutex<File>,
}

thread_local! {
    static PENDING: RefCell<Vec<(Arc<LogFile>, Vec<u8>)>> = const { RefCell::new(Vec::new()) };
}

impl LogWriter {
    /// Starts the writer thread. A worker hands over what it holds of a file at every interval, and once it holds `flush_bytes`
    /// (`--file-flush-min-size-kb`).
    ///
    /// # Errors
    /// When the thread cannot be made.
    pub fn start(flush_interval: Duration, flush_bytes: usize, store: &Store) -> io::Result<Arc<Self>> {
        let (sender, receiver) = channel();
        let stats: FileStats = store.scope("filesystem.").group();
        let counted = stats.clone();
        let join = std::thread::Builder::new().name("AccessLogFlush".into()).spawn(move || {
            write_all(&receiver, flush_interval, &counted);
        })?;
        Ok(Arc::new(Self {
            messages: Mutex::new(Some(sender)),
            files: Mutex::default(),
            flush_interval,
            flush_bytes,
            stats,
            join: Mutex::new(Some(join)),
        }))
    }

    /// Interval after which workers hand over what they hold.
    pub fn flush_interval(&self) -> Duration {
        self.flush_interval
    }

    /// Opens (creating, appending) a log file, or gives the one that is open.
    ///
    /// # Errors
    /// The error of opening it.
    pub fn open(&self, path: &Path) -> io::Result<Arc<LogFile>> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = files.get(path).and_then(Weak::upgrade) {
            return Ok(file);
        }
        let file = Arc::new(LogFile { path: path.to_owned(), file: Mutex::new(open_append(path)?) });
        files.insert(path.to_owned(), Arc::downgrade(&file));
        Ok(file)
    }

    /// Adds a line (with its line break) that `fill` writes to this worker's buffer of the file.
    pub fn log(&self, file: &Arc<LogFile>, fill: impl FnOnce(&mut Vec<u8>)) {
        let full = PENDING.with_borrow_mut(|pending| {
            let at = pending.iter().position(|(f, _)| Arc::ptr_eq(f, file)).unwrap_or_else(|| {
                pending.push((file.clone(), Vec::new()));
                pending.len() - 1
            });
            let buffer = &mut pending[at].1;
            fill(buffer);
            self.stats.write_buffered().inc();
            (buffer.len() >= self.flush_bytes).then(|| std::mem::take(buffer))
        });
        if let Some(bytes) = full {
            self.send(Message::Write(file.clone(), bytes));
        }
    }

    /// Hands over what this worker holds. Workers call it at the flush interval and when they end.
    pub fn flush_worker(&self) {
        let pending = PENDING.take();
        for (file, bytes) in pending {
            if !bytes.is_empty() {
                self.send(Message::Write(file, bytes));
            }
        }
    }

    /// Waits until everything that was handed over is written.
    pub fn sync(&self) {
        let (done, wait) = channel();
        self.send(Message::Flush(done));
        let _ = wait.recv_timeout(Duration::from_secs(10));
    }

    /// Opens all files again by their paths (SIGUSR1, `/reopen_logs`), for rotation.
    pub fn reopen(&self) {
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        for file in files.values().filter_map(Weak::upgrade) {
            match open_append(&file.path) {
                Ok(fresh) => *file.file.lock().unwrap_or_else(PoisonError::into_inner) = fresh,
                Err(error) => {
                    self.stats.reopen_failed().inc();
                    tracing::error!("cannot reopen access log {}: {error}", file.path.display());
                }
            }
        }
    }

    fn send(&self, message: Message) {
        if let Message::Write(_, bytes) = &message {
            self.stats.write_total_buffered().add(bytes.len() as u64);
        }
        if let Some(sender) = &*self.messages.lock().unwrap_or_else(PoisonError::into_inner) {
            // The thread ends only after the sender is gone.
            let _ = sender.send(message);
        }
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        *self.messages.lock().unwrap_or_else(PoisonError::into_inner) = None;
        if let Some(join) = self.join.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = join.join();
        }
    }
}

fn open_append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

fn write_all(messages: &Receiver<Message>, flush_interval: Duration, stats: &FileStats) {
    let mut due = Instant::now() + flush_interval;
    loop {
        match messages.recv_timeout(due.saturating_duration_since(Instant::now())) {
            Ok(Message::Write(file, bytes)) => {
                let mut open = file.file.lock().unwrap_or_else(PoisonError::into_inner);
                match open.write_all(&bytes) {
                    Ok(()) => stats.write_completed().inc(),
                    Err(error) => {
                        stats.write_failed().inc();
                        tracing::error!("cannot write access log {}: {error}", file.path.display());
                    }
                }
                stats.write_total_buffered().sub(bytes.len() as u64);
            }
            Ok(Message::Flush(done)) => {
                let _ = done.send(());
            }
            Err(RecvTimeoutError::Timeout) => {
                // Workers keep the same interval.
                stats.flushed_by_timer().inc();
                due += flush_interval;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}
