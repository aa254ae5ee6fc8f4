//! Notices that a file was moved into place.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

/// What to look out for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchTarget {
    /// A file that is replaced by moving another one to its name.
    File(PathBuf),
    /// Anything that is moved to a name in the directory: the symbolic link through which Kubernetes swaps the files of
    /// a volume.
    Directory(PathBuf),
}

/// A watch, by inotify. Only moves count: a file that is written in place may be half written, which is why Envoy does
/// not look at it either.
#[derive(Debug)]
pub struct MoveWatch {
    /// An inotify descriptor is read like a pipe: `read` takes whole events, and epoll says when there are some. `None`
    /// once the kernel gave the watch up because the directory itself is gone.
    events: Option<pipe::Receiver>,
    /// The name that counts; `None` for any.
    file_name: Option<Vec<u8>>,
}

impl MoveWatch {
    /// Starts watching.
    ///
    /// # Errors
    /// A directory that does not exist or cannot be read; the limits of the kernel on watches.
    pub fn new(target: &WatchTarget) -> io::Result<Self> {
        let (directory, file_name) = match target {
            WatchTarget::Directory(directory) => (directory.as_path(), None),
            WatchTarget::File(path) => {
                let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
                let name = path.file_name().map(OsStr::as_bytes);
                let name = name
                    .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"))?;
                (directory.unwrap_or(Path::new(".")), Some(name.to_vec()))
            }
        };
        let descriptor = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        inotify::add_watch(&descriptor, directory, WatchFlags::MOVED_TO | WatchFlags::ONLYDIR)?;
        let events = pipe::Receiver::from_file_unchecked(File::from(descriptor))?;
        Ok(Self { events: Some(events), file_name })
    }

    /// Waits for the next move, or several at once. For ever, once the directory is gone.
    pub async fn moved(&mut self) -> io::Result<()> {
        while let Some(events) = &mut self.events {
            let mut buffer = [0; 4096]; // at least one event with the longest name fits
            let length = events.read(&mut buffer).await?;
            let (mut moved, mut gone) = (false, false);
            for event in Events(&buffer[..length]) {
                let counts = self.file_name.as_deref().is_none_or(|wanted| wanted == event.file_name);
                // When the queue overflowed, a move may have been among what was lost.
                moved |= event.flags.contains(ReadFlags::QUEUE_OVERFLOW);
                moved |= event.flags.contains(ReadFlags::MOVED_TO) && counts;
                gone |= event.flags.contains(ReadFlags::IGNORED);
            }
            if gone {
                self.events = None;
            }
            if moved {
                return Ok(());
            }
        }
        std::future::pending().await
    }
}

/// The events in what was read: each a watch, flags, a cookie and the length of the name, of four bytes each, and the
/// name, filled up with zeros.
struct Events<'a>(&'a [u8]);

struct Event<'a> {
    flags: ReadFlags,
    file_name: &'a [u8],
}

impl<'a> Iterator for Events<'a> {
    type Item = Event<'a>;

    fn next(&mut self) -> Option<Event<'a>> {
        let (_watch, rest) = self.0.split_first_chunk::<4>()?;
        let (flags, rest) = rest.split_first_chunk::<4>()?;
        let (_cookie, rest) = rest.split_first_chunk::<4>()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_ne_bytes(*length)).ok()?;
        let (padded, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        let end = padded.iter().position(|byte| *byte == 0).unwrap_or(padded.len());
        Some(Event {
            flags: ReadFlags::from_bits_retain(u32::from_ne_bytes(*flags)),
            file_name: &padded[..end],
        })
    }
}
