//! `--admin-address-path`.

use std::fmt::Display;
use std::io;
use std::path::Path;

/// Writes the address that the admin interface listens on (`ip:port` or a path, no newline) to a file, for those who asked for port 0.
///
/// # Errors
/// When the file cannot be written.
pub fn write_address_file(path: &Path, address: &impl Display) -> io::Result<()> {
    std::fs::write(path, address.to_string())
}
