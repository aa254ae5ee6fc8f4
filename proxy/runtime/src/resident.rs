//! Gives back the memory that was needed once: of code that ran at the start, and of what it allocated.

#![allow(unsafe_code)]

use std::fs;

use rustix::mm::{Advice, madvise};

/// Unmaps the pages of the program's code, so that only what runs from now on counts as resident.
///
/// Start-up reads and compiles the configuration, which touches most of the executable once; those pages would stay in
/// the resident set of an idle process for ever. What is needed again is mapped again from the page cache at its next use, at
/// the cost of a minor fault for every 64 KiB. Does nothing where the map of the process cannot be read.
pub fn release_code_pages() {
    let Ok(maps) = fs::read_to_string("/proc/self/maps") else { return };
    let here = release_code_pages as fn() as usize;
    let Some((start, end)) = maps.lines().find_map(|line| code_mapping(line, here)) else { return };
    // SAFETY: the range is exactly one mapping of this process, found a moment ago, which is never unmapped because it holds
    // the running program. It is private, backed by the program's file and not writable, so its pages carry no state of
    // their own: dropping them changes nothing but where the next access finds them.
    let outcome = unsafe { madvise(start as *mut _, end - start, Advice::LinuxDontNeed) };
    if let Err(error) = outcome {
        tracing::debug!("the pages of the code stay resident: {error}");
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

/// Start and end of the mapping that `line` of the process's map describes, when it holds code of a file and `address`.
fn code_mapping(line: &str, address: usize) -> Option<(usize, usize)> {
    let mut words = line.split_ascii_whitespace();
    let (range, rights) = (words.next()?, words.next()?);
    let file = words.nth(3)?;
    let (start, end) = range.split_once('-')?;
    let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
    (rights == "r-xp" && file.starts_with('/') && (start..end).contains(&address)).then_some((start, end))
}

#[cfg(test)]
mod tests {
    use super::{code_mapping, release_code_pages, release_free_memory};

    #[test]
    fn only_private_code_of_a_file_around_the_address_is_released() {
        let line = "1000-3000 r-xp 00000000 fe:00 12 /bin/x";
        assert_eq!(code_mapping(line, 0x2000), Some((0x1000, 0x3000)));
        assert_eq!(code_mapping(line, 0x3000), None);
        assert_eq!(code_mapping("1000-3000 rwxp 00000000 fe:00 12 /bin/x", 0x2000), None);
        assert_eq!(code_mapping("1000-3000 r-xp 00000000 00:00 0 [vdso]", 0x2000), None);
    }

    #[test]
    fn the_program_goes_on_after_memory_was_released() {
        let kept = vec![7_u8; 100_000];
        release_code_pages();
        release_free_memory();
        assert!(kept.iter().all(|byte| *byte == 7));
        assert_eq!((0..1000_u64).map(|number| number * 2).sum::<u64>(), 999_000);
    }
}
