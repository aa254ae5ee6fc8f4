//! Gives back the memory that was needed once: of code that ran at the start, and of what it allocated.

#![allow(unsafe_code)]

use std::fs;

use rustix::mm::{Advice, madvise};

/// Unmaps what is resident of the program's code and constants, and of its libraries', so that only what is used from now on counts.
///
/// Start-up reads and compiles the configuration, which touches most of the executable once; those pages would stay in
/// the resident set of an idle process for ever. What is needed again is mapped again from the page cache at its next use, at
/// the cost of a minor fault for every 64 KiB. Does nothing where the maps of the process cannot be read.
pub fn release_program_pages() {
    let Ok(maps) = fs::read_to_string("/proc/self/smaps") else { return };
    for (start, end) in program_mappings(&maps) {
        // SAFETY: the range is exactly one mapping of this process, found a moment ago, which is never unmapped because it holds
        // the running program or a library that it is linked with. It is private, backed by a file, not writable and without a
        // page of its own, so its pages carry no state: dropping them changes nothing but where the next access finds them.
        let outcome = unsafe { madvise(start as *mut _, end - start, Advice::LinuxDontNeed) };
        if let Err(error) = outcome {
            tracing::debug!("pages of the program stay resident: {error}");
        }
    }
}

/// Gives memory that was freed back to the system. The C library keeps it for the next allocations; after a large configuration
/// was read that is most of the process. Takes milliseconds; does nothing with other C libraries than glibc.
pub fn release_free_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        unsafe extern "C" {
            fn malloc_trim(pad: usize) -> std::ffi::c_int;
        }
        // SAFETY: glibc has this function with this signature; it takes the allocator's own locks and touches only memory that
        // is free.
        unsafe { malloc_trim(0) };
    }
}

/// Start and end of the mappings of `maps` that hold unchanged contents of executable files. Constants that were relocated when the
/// program was loaded are in pages of the process's own, which cannot be had from the file again.
fn program_mappings(maps: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut current = None;
    for line in maps.lines() {
        if let Some(anonymous) = line.strip_prefix("Anonymous:") {
            found.extend(current.take().filter(|_| anonymous.split_ascii_whitespace().next() == Some("0")));
        } else if !line.starts_with(|first: char| first.is_ascii_uppercase()) {
            current = unwritable_file(line);
        }
    }
    found
}

/// Start and end of the mapping that `line` begins, when nobody can write to it and it is private and that of a file.
fn unwritable_file(line: &str) -> Option<(usize, usize)> {
    let mut words = line.split_ascii_whitespace();
    let (range, rights) = (words.next()?, words.next()?);
    let file = words.nth(3)?;
    let (start, end) = range.split_once('-')?;
    let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
    let is_loaded = file.starts_with('/') && !file.starts_with("/dev/") && !file.starts_with("/memfd:");
    (matches!(rights, "r-xp" | "r--p") && is_loaded).then_some((start, end))
}

#[cfg(test)]
mod tests {
    use super::{program_mappings, release_free_memory, release_program_pages};

    #[test]
    fn only_unchanged_parts_of_files_that_nobody_writes_to_are_released() {
        let mapping = |range: &str, rights: &str, file: &str, anonymous: &str| {
            format!(
                "{range} {rights} 00000000 fe:00 12 {file}\nSize: 8 kB\nRss: 8 kB\nAnonymous:  {anonymous} kB\n\
                 VmFlags: rd ex mr\n"
            )
        };
        let maps = [
            mapping("1000-3000", "r--p", "/bin/x", "0"),
            mapping("3000-5000", "r-xp", "/bin/x", "0"),
            mapping("5000-6000", "r--p", "/bin/x", "4"),
            mapping("6000-7000", "rw-p", "/bin/x", "0"),
            mapping("7000-8000", "r--s", "/bin/x", "0"),
            mapping("8000-9000", "r-xp", "[vdso]", "0"),
            mapping("9000-a000", "r--p", "/dev/zero", "0"),
            mapping("a000-b000", "r-xp", "/lib/libc.so.6", "0"),
        ];
        assert_eq!(program_mappings(&maps.concat()), [(0x1000, 0x3000), (0x3000, 0x5000), (0xa000, 0xb000)]);
    }

    #[test]
    fn the_program_goes_on_after_memory_was_released() {
        let kept = vec![7_u8; 100_000];
        release_program_pages();
        release_free_memory();
        assert!(kept.iter().all(|byte| *byte == 7));
        assert_eq!((0..1000_u64).map(|number| number * 2).sum::<u64>(), 999_000);
    }
}
