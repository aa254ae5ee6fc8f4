//! Path normalisation as Envoy does it: RFC 3986 dot segments, escaped slashes, repeated slashes.

/// Splits the query (with its `?`) from a path.
fn split_query(path: &[u8]) -> (&[u8], &[u8]) {
    let at = path.iter().position(|b| *b == b'?').unwrap_or(path.len());
    path.split_at(at)
}

/// Whether the path has `%2F` or `%5C` in any case before the query.
pub(crate) fn has_escaped_slash(path: &[u8]) -> bool {
    let (path, _) = split_query(path);
    path.windows(3).any(|w| w[0] == b'%' && escaped_slash(w).is_some())
}

fn escaped_slash(triplet: &[u8]) -> Option<u8> {
    match (triplet[1], triplet[2]) {
        (b'2', b'F' | b'f') => Some(b'/'),
        (b'5', b'C' | b'c') => Some(b'\\'),
        _ => None,
    }
}

/// Replaces `%2F` by `/` and `%5C` by `\` before the query.
pub(crate) fn unescape_slashes(full: &[u8]) -> Vec<u8> {
    let (path, query) = split_query(full);
    let mut out = Vec::with_capacity(full.len());
    let mut at = 0;
    while at < path.len() {
        let slash =
            (path[at] == b'%' && at + 2 < path.len()).then(|| escaped_slash(&path[at..at + 3])).flatten();
        match slash {
            Some(slash) => {
                out.push(slash);
                at += 3;
            }
            None => {
                out.push(path[at]);
                at += 1;
            }
        }
    }
    out.extend_from_slice(query);
    out
}

/// Whether two slashes follow each other before the query.
pub(crate) fn has_double_slash(path: &[u8]) -> bool {
    split_query(path).0.windows(2).any(|w| w == b"//")
}

/// Replaces runs of slashes before the query by one.
pub(crate) fn merge_slashes(full: &[u8]) -> Vec<u8> {
    let (path, query) = split_query(full);
    let mut out = Vec::with_capacity(full.len());
    if path.len() > 1 && path.iter().all(|b| *b == b'/') {
        // Envoy keeps the first and the last slash and joins what is between them.
        out.extend_from_slice(b"//");
        out.extend_from_slice(query);
        return out;
    }
    for byte in path {
        if !(*byte == b'/' && out.last() == Some(&b'/')) {
            out.push(*byte);
        }
    }
    out.extend_from_slice(query);
    out
}

/// Bytes that an URL path carries only in escaped form.
const fn is_escaped(byte: u8) -> bool {
    matches!(byte, 0..=b' ' | b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}' | 0x7f..)
}

/// Whether normalisation could change the path: a dot segment, a backslash, an escape or what is missing one. A cheap scan
/// that spares the usual path the copy.
pub(crate) fn needs_normalization(path: &[u8]) -> bool {
    let (path, _) = split_query(path);
    path.iter().any(|b| matches!(*b, b'%' | b'\\') || is_escaped(*b)) || path.windows(2).any(|w| w == b"/.")
}

/// Normalises dot segments, turns backslashes into slashes, decodes escapes of unreserved characters and escapes what an URL
/// does not carry. A `%` that begins no escape stays as it is. `None` when an escape encodes NUL.
pub(crate) fn normalize(full: &[u8]) -> Option<Vec<u8>> {
    let (path, query) = split_query(full);
    let mut decoded = Vec::with_capacity(path.len());
    let mut at = 0;
    let mut segment = 0;
    while at < path.len() {
        match path[at] {
            b'/' => {
                decoded.push(b'/');
                segment = at + 1;
            }
            // Servers that know path parameters take `..;a` for `..`; so a dot segment loses them here.
            b';' if matches!(&path[segment..at], b"." | b"..") => {
                let rest = &path[at..];
                at += rest.iter().position(|b| *b == b'/').unwrap_or(rest.len()) - 1;
            }
            b'\\' => decoded.push(b'/'),
            b'%' => match escape(&path[at..]) {
                Some(0) => return None,
                Some(byte @ (b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~')) => {
                    decoded.push(byte);
                    at += 2;
                }
                Some(_) => {
                    decoded.extend_from_slice(&path[at..at + 3]);
                    at += 2;
                }
                None => decoded.push(b'%'),
            },
            byte if is_escaped(byte) => {
                const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
                let (high, low) = (DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]);
                decoded.extend_from_slice(&[b'%', high, low]);
            }
            byte => decoded.push(byte),
        }
        at += 1;
    }
    let mut out = remove_dot_segments(&decoded);
    out.extend_from_slice(query);
    Some(out)
}

/// The byte that an escape at the start of `text` stands for.
fn escape(text: &[u8]) -> Option<u8> {
    Some(hex(*text.get(1)?)? << 4 | hex(*text.get(2)?)?)
}

fn hex(digit: u8) -> Option<u8> {
    (digit as char).to_digit(16).map(|d| d as u8)
}

fn remove_dot_segments(path: &[u8]) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::with_capacity(path.len());
    let mut segments = path.strip_prefix(b"/").unwrap_or(path).split(|b| *b == b'/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            b"." if last => out.push(b'/'),
            b"." => {}
            b".." => {
                let parent = out.iter().rposition(|b| *b == b'/').unwrap_or(0);
                out.truncate(parent);
                if last {
                    out.push(b'/');
                }
            }
            _ => {
                out.push(b'/');
                out.extend_from_slice(segment);
            }
        }
    }
    if out.is_empty() {
        out.push(b'/');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(path: &str) -> Option<String> {
        normalize(path.as_bytes()).map(|p| String::from_utf8(p).unwrap())
    }

    #[test]
    fn dot_segments_go() {
        for (path, expected) in [
            ("/a/b/../c", "/a/c"),
            ("/a/./b", "/a/b"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/../a", "/a"),
            ("/a/.", "/a/"),
            ("/a//b", "/a//b"),
            ("/%2e%2E/a", "/a"),
            ("/a\\b", "/a/b"),
            ("/a/%41?x=/../y", "/a/A?x=/../y"),
            ("/a%2fb", "/a%2fb"),
        ] {
            assert_eq!(normal(path).as_deref(), Some(expected), "{path}");
        }
        assert_eq!(normal("/a%00"), None);
    }

    #[test]
    fn what_is_no_escape_stays_and_what_needs_one_gets_it() {
        for (path, expected) in [
            ("/a%0", "/a%0"),
            ("/a%", "/a%"),
            ("/a%zz/../b", "/b"),
            ("/%%41", "/%A"),
            ("/a\"<>^`{|}b", "/a%22%3C%3E%5E%60%7B%7C%7Db"),
            ("/{a?{b", "/%7Ba?{b"),
            ("/a/..;/b", "/b"),
            ("/a/.;x=1/b", "/a/b"),
            ("/a/..;x", "/"),
            ("/a/..;a;b/../c?d;e", "/c?d;e"),
            ("/a/...;/b/.c;/d", "/a/...;/b/.c;/d"),
            // Only what came as dots is taken for a dot segment.
            ("/a/%2e%2e;/b", "/a/..;/b"),
            ("/%7b", "/%7b"),
        ] {
            assert!(needs_normalization(path.as_bytes()), "{path}");
            assert_eq!(normal(path).as_deref(), Some(expected), "{path}");
        }
    }

    #[test]
    fn usual_paths_need_no_normalization() {
        assert!(!needs_normalization(b"/a/b.txt?x=/../"));
        assert!(needs_normalization(b"/a/../b"));
        assert!(needs_normalization(b"/a%20b"));
    }

    #[test]
    fn slashes_are_unescaped_and_merged_before_the_query_only() {
        assert!(has_escaped_slash(b"/a%2fb"));
        assert!(!has_escaped_slash(b"/a?b=%2f"));
        assert_eq!(unescape_slashes(b"/a%2Fb%5cc?d=%2f"), b"/a/b\\c?d=%2f");
        assert!(has_double_slash(b"/a//b"));
        assert_eq!(merge_slashes(b"//a///b?c=//d"), b"/a/b?c=//d");
        assert_eq!(merge_slashes(b"///?a"), b"//?a");
    }
}
