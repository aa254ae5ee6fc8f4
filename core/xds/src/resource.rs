//! Resources as the two sides hold them, and the name that is written inside a resource's body.

use std::sync::Arc;

use crate::messages::Any;

/// A resource as a server offers it: encoded once, shared by every session that sends it.
#[derive(Clone, Debug, PartialEq)]
pub struct Resource {
    /// The name by which it is subscribed to.
    pub name: Arc<str>,
    /// A digest of the content: equal versions mean equal bodies. Never empty.
    pub version: Arc<str>,
    /// The message, packed.
    pub body: Arc<Any>,
}

/// A resource as a client receives it.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedResource {
    /// Its name: from the envelope in the delta protocol, from the body in the state of the world.
    pub name: String,
    /// The version of this resource (delta) or of the whole response (state of the world).
    pub version: String,
    /// The message, packed.
    pub body: Any,
}

/// What a response asks a client to apply.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Update {
    /// New and changed resources, in the order of the response. In the state of the world unchanged ones are among them.
    pub added: Vec<NamedResource>,
    /// Names that no longer exist. In the state of the world they are worked out from absence, for the types where
    /// absence deletes.
    pub removed: Vec<String>,
    /// `version_info` (state of the world) or `system_version_info` (delta, for operators only).
    pub system_version: String,
    /// Whether the update came by the state-of-the-world protocol.
    pub is_state_of_the_world: bool,
}

/// The name inside an encoded resource. Every resource type of xDS with a name keeps it in field 1 as a string
/// (`name`, `cluster_name`), so the body need not be decoded to route it. `None` when the bytes are malformed before
/// the name is found, or there is none.
pub fn name_in_body(body: &[u8]) -> Option<&str> {
    let mut rest = body;
    let mut name = None;
    while !rest.is_empty() {
        let key = varint(&mut rest)?;
        let value = match key & 7 {
            0 => {
                varint(&mut rest)?;
                continue;
            }
            1 => take(&mut rest, 8)?,
            2 => {
                let length = usize::try_from(varint(&mut rest)?).ok()?;
                take(&mut rest, length)?
            }
            5 => take(&mut rest, 4)?,
            _ => return None,
        };
        if key == (1 << 3 | 2) {
            // The last occurrence of a singular field counts.
            name = Some(std::str::from_utf8(value).ok()?);
        } else if name.is_some() && key >> 3 != 1 {
            // Encoders write fields in ascending order; what follows the name is the bulk of the resource.
            break;
        }
    }
    name
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (first, tail) = rest.split_first()?;
        *rest = tail;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (value, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::name_in_body;

    #[test]
    fn the_name_is_field_one() {
        assert_eq!(name_in_body(b"\x0a\x03abc\x12\x01x"), Some("abc"));
        assert_eq!(name_in_body(b"\x10\x05\x0a\x03abc"), Some("abc"), "after another field");
    }

    #[test]
    fn malformed_or_nameless_bodies_have_none() {
        assert_eq!(name_in_body(b""), None);
        assert_eq!(name_in_body(b"\x12\x01x"), None);
        assert_eq!(name_in_body(b"\x0a\x09abc"), None, "length beyond the end");
        assert_eq!(name_in_body(b"\x0a\x01\xff"), None, "not UTF-8");
        assert_eq!(name_in_body(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), None, "endless varint");
    }
}
