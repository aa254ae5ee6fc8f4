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
    for byte in path {
        if !(*byte == b'/' && out.last() == Some(&b'/')) {
            out.push(*byte);
        }
    }
    out.extend_from_slice(query);
    out
}

/// Whether normalisation could change the path: a dot segment, a backslash or an escape. A cheap scan that spares the
/// usual path the copy.
pub(crate) fn needs_normalization(path: &[u8]) -> bool {
    let (path, _) = split_query(path);
    path.iter().any(|b| *b == b'%' || *b == b'\\') || path.windows(2).any(|w| w == b"/.")
}

/// Normalises dot segments, turns backslashes into slashes and decodes escapes of unreserved characters. `None` when an
/// escape is malformed or encodes NUL, or when the path climbs above the root with nothing left.
pub(crate) fn normalize(full: &[u8]) -> Option<Vec<u8>> {
    let (path, query) = split_query(full);
    let mut decoded = Vec::with_capacity(path.len());
    let mut at = 0;
    while at < path.len() {
        match path[at] {
            b'\\' => decoded.push(b'/'),
            b'%' => {
                let escape = path.get(at + 1..at + 3)?;
                let byte = hex(escape[0])? << 4 | hex(escape[1])?;
                match byte {
                    0 => return None,
                    b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => decoded.push(byte),
                    _ => decoded.extend_from_slice(&path[at..at + 3]),
                }
                at += 2;
            }
            byte => decoded.push(byte),
        }
        at += 1;
    }
    let mut out = remove_dot_segments(&decoded);
    out.extend_from_slice(query);
    Some(out)
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
        assert_eq!(normal("/a%0"), None);
        assert_eq!(normal("/a%00"), None);
        assert_eq!(normal("/a%zz"), None);
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
    }
}
