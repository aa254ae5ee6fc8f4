//! What the names of control headers begin with: `x-envoy`, unless `Bootstrap.header_prefix` says otherwise.
//!
//! It is set once for the process, before any configuration is read that names headers. While it is not set, parsing and writing of
//! headers look at one more word for names that are not known and for control headers, and at nothing for all others.

use std::sync::OnceLock;

use crate::KnownHeader;

/// What control headers begin with by default.
const DEFAULT: &str = "x-envoy";

/// The control headers under another prefix.
#[derive(Debug)]
struct Renamed {
    prefix: &'static str,
    /// In the order of [`KnownHeader::CONTROL_HEADERS`].
    names: Vec<&'static str>,
}

static RENAMED: OnceLock<Renamed> = OnceLock::new();

/// Makes control headers begin with another prefix (`Bootstrap.header_prefix`), from now on and for the rest of the process; empty
/// for the default one. Only the first call counts.
pub fn set_control_prefix(prefix: &str) {
    let prefix = prefix.to_ascii_lowercase();
    if !prefix.is_empty() && prefix != DEFAULT {
        RENAMED.get_or_init(|| Renamed::new(prefix));
    }
}

/// The prefix.
pub(crate) fn get() -> &'static str {
    RENAMED.get().map_or(DEFAULT, |renamed| renamed.prefix)
}

/// The names in the order of [`KnownHeader::CONTROL_HEADERS`], if they are not the default ones.
#[inline]
pub(crate) fn names() -> Option<&'static [&'static str]> {
    RENAMED.get().map(|renamed| renamed.names.as_slice())
}

/// The control header of a lower-case name under another prefix.
#[inline]
pub(crate) fn find(name: &[u8]) -> Option<KnownHeader> {
    RENAMED.get()?.find(name)
}

/// [`find`] of a name of any case, which is put into lower case if it is found.
#[inline]
pub(crate) fn take(name: &mut [u8]) -> Option<KnownHeader> {
    RENAMED.get()?.take(name)
}

impl Renamed {
    fn new(prefix: String) -> Self {
        // They live as long as the process, and are as few as there are control headers.
        let prefix: &'static str = prefix.leak();
        let rename = |known: &KnownHeader| -> &'static str {
            let plain = known.plain_name();
            format!("{prefix}{}", plain.strip_prefix(DEFAULT).unwrap_or(plain)).leak()
        };
        Self { prefix, names: KnownHeader::CONTROL_HEADERS.iter().map(rename).collect() }
    }

    fn find(&self, name: &[u8]) -> Option<KnownHeader> {
        name.strip_prefix(self.prefix.as_bytes())?;
        let at = self.names.iter().position(|known| known.as_bytes() == name)?;
        KnownHeader::CONTROL_HEADERS.get(at).copied()
    }

    fn take(&self, name: &mut [u8]) -> Option<KnownHeader> {
        let begins_alike = name
            .get(..self.prefix.len())
            .is_some_and(|begin| begin.eq_ignore_ascii_case(self.prefix.as_bytes()));
        let found = begins_alike.then(|| self.find(&name.to_ascii_lowercase()))??;
        name.make_ascii_lowercase();
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_headers_are_those_that_begin_with_the_default() {
        let all = KnownHeader::all().iter().copied();
        let (control, others): (Vec<_>, Vec<_>) =
            all.partition(|known| known.plain_name().starts_with(DEFAULT));
        assert_eq!(control, KnownHeader::CONTROL_HEADERS);
        assert_eq!(control.len() + others.len(), KnownHeader::all().len());
    }

    #[test]
    fn names_under_another_prefix_are_found_in_any_case() {
        let renamed = Renamed::new("x-mesh".to_owned());
        assert_eq!(
            renamed.names[KnownHeader::CONTROL_HEADERS.len() - 1],
            "x-mesh-upstream-stream-duration-ms"
        );
        assert_eq!(renamed.find(b"x-mesh-retry-on"), Some(KnownHeader::XEnvoyRetryOn));
        assert_eq!(renamed.find(b"x-envoy-retry-on"), None);
        assert_eq!(renamed.find(b"x-mesh-other"), None);
        let mut name = *b"X-Mesh-Retry-On";
        assert_eq!(renamed.take(&mut name), Some(KnownHeader::XEnvoyRetryOn));
        assert_eq!(&name, b"x-mesh-retry-on");
        let mut other = *b"X-Mesh-Other";
        assert_eq!((renamed.take(&mut other), &other), (None, b"X-Mesh-Other"));
    }
}
