//! Percent-encoding: the sign-in form and the session cookie.

use std::fmt::Write as _;

use http::{HeaderMap, header};

const SESSION: &str = "session";

/// The decoded value of `field` in an `application/x-www-form-urlencoded` body.
pub(crate) fn field(body: &str, field: &str) -> Option<String> {
    body.split('&').find_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(name) == field).then(|| decode(value))
    })
}

/// The signed-in user according to the session cookie.
///
/// The cookie is not signed: in the sample anybody may be anybody, which is also true of its sign-in form.
pub(crate) fn session_user(headers: &HeaderMap) -> Option<String> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == SESSION)
        .map(|(_, value)| decode(value))
        .filter(|user| !user.is_empty())
}

/// The `set-cookie` value that starts the session of `user`.
pub(crate) fn session_cookie(user: &str) -> String {
    let mut cookie = format!("{SESSION}=");
    for byte in user.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            cookie.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(cookie, "%{byte:02X}");
        }
    }
    cookie.push_str("; HttpOnly; Path=/");
    cookie
}

/// The `set-cookie` value that ends a session.
pub(crate) fn session_end() -> String {
    format!("{SESSION}=; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0; HttpOnly; Path=/")
}

/// Decodes `%XX` and `+`; what is not an escape stays as it is.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digits = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        match (bytes[at], digits.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
            }
            (byte, _) => {
                out.push(if byte == b'+' { b' ' } else { byte });
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn form_fields_are_decoded() {
        assert_eq!(field("username=ja%2Bson+b&passwd=x", "username").unwrap(), "ja+son b");
        assert_eq!(field("username=jason", "passwd"), None);
        assert_eq!(decode("50%"), "50%");
        assert_eq!(decode("%zz%4"), "%zz%4");
    }

    #[test]
    fn a_session_survives_its_cookie() {
        for user in ["jason", "j\u{e4}son; admin=1", "50% off"] {
            let cookie = session_cookie(user);
            let pair = cookie.split(';').next().unwrap();
            let mut headers = HeaderMap::new();
            headers.insert(header::COOKIE, HeaderValue::from_str(&format!("a=b; {pair}; c=d")).unwrap());
            assert_eq!(session_user(&headers).as_deref(), Some(user));
        }
    }

    #[test]
    fn an_ended_session_has_no_user() {
        let mut headers = HeaderMap::new();
        headers.insert(header::COOKIE, HeaderValue::from_static("session="));
        assert_eq!(session_user(&headers), None);
    }
}
