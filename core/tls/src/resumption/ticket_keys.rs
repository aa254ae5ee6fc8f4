//! `TlsSessionTicketKeys`: the first key encrypts tickets, and all of them decrypt.
//!
//! A ticket is the key's name, an initialisation vector, the session under AES-256-CBC, and an HMAC-SHA256 over all of that, which is
//! the form that RFC 5077 recommends and Envoy uses. What is inside is this library's own description of a session, which Envoy
//! cannot read, nor the other way round: a ticket of the other one leads to a full handshake.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::cipher::{
    AES_256, AES_CBC_IV_LEN, DecryptionContext, PaddedBlockDecryptingKey, PaddedBlockEncryptingKey,
    UnboundCipherKey,
};
use aws_lc_rs::{hmac, iv};
use dhow_base::{ConfigError, ConfigWarning, FieldPath};
use rustls::server::ProducesTickets;

use crate::pb::TlsSessionTicketKeys;
use crate::source;

const NAME_LEN: usize = 16;
const SECRET_LEN: usize = 32;
const MAC_LEN: usize = 32;
/// The name, the key of the HMAC, the key of AES.
const KEY_LEN: usize = NAME_LEN + SECRET_LEN + SECRET_LEN;

/// Keys in the order of the configuration.
#[derive(Clone)]
pub(crate) struct TicketKeys {
    keys: Arc<[TicketKey]>,
}

struct TicketKey {
    name: [u8; NAME_LEN],
    mac: hmac::Key,
    encrypting: PaddedBlockEncryptingKey,
    decrypting: PaddedBlockDecryptingKey,
}

impl TicketKeys {
    pub(crate) fn lower(
        message: &TlsSessionTicketKeys,
        path: &FieldPath,
        warnings: &mut Vec<ConfigWarning>,
    ) -> Result<Self, ConfigError> {
        let TlsSessionTicketKeys { keys } = message;
        let mut lowered = Vec::with_capacity(keys.len());
        for (index, key) in keys.iter().enumerate() {
            let path = path.field("keys").index(index);
            let source = source::read(key, &path, warnings)?;
            if source.bytes.is_empty() {
                let reason = match source.name.as_str() {
                    "<inline>" => "DataSource cannot be empty".to_owned(),
                    file => format!("file {file} is empty"),
                };
                return Err(ConfigError::new(path, reason));
            }
            let bytes: &[u8; KEY_LEN] = source.bytes.as_slice().try_into().map_err(|_| {
                let length = source.bytes.len();
                let reason = format!(
                    "Incorrect TLS session ticket key length. Length {length}, expected length {KEY_LEN}."
                );
                ConfigError::new(path.clone(), reason)
            })?;
            let key = TicketKey::of(bytes);
            lowered.push(key.ok_or_else(|| ConfigError::new(path, "cannot be used as keys"))?);
        }
        if lowered.is_empty() {
            return Err(ConfigError::new(path.field("keys"), "value must contain at least 1 item(s)"));
        }
        Ok(Self { keys: lowered.into() })
    }
}

impl TicketKey {
    fn of(bytes: &[u8; KEY_LEN]) -> Option<Self> {
        let (name, secrets) = bytes.split_first_chunk::<NAME_LEN>()?;
        let (mac, aes) = secrets.split_at(SECRET_LEN);
        let unbound = || UnboundCipherKey::new(&AES_256, aes).ok();
        Some(Self {
            name: *name,
            mac: hmac::Key::new(hmac::HMAC_SHA256, mac),
            encrypting: PaddedBlockEncryptingKey::cbc_pkcs7(unbound()?).ok()?,
            decrypting: PaddedBlockDecryptingKey::cbc_pkcs7(unbound()?).ok()?,
        })
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let mut state = plain.to_vec();
        let context = self.encrypting.encrypt(&mut state).ok()?;
        let iv: &[u8] = (&context).try_into().ok()?;
        let mut ticket = [&self.name, iv, &state].concat();
        let mac = hmac::sign(&self.mac, &ticket);
        ticket.extend_from_slice(mac.as_ref());
        Some(ticket)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (signed, mac) = ticket.split_at_checked(ticket.len().checked_sub(MAC_LEN)?)?;
        let sealed = signed.strip_prefix(&self.name)?;
        hmac::verify(&self.mac, signed, mac).ok()?;
        let (iv, state) = sealed.split_at_checked(AES_CBC_IV_LEN)?;
        let context = DecryptionContext::Iv128(iv::FixedLength::try_from(iv).ok()?);
        let mut state = state.to_vec();
        let plain = self.decrypting.decrypt(&mut state, context).ok()?;
        Some(plain.to_vec())
    }
}

impl ProducesTickets for TicketKeys {
    fn enabled(&self) -> bool {
        true
    }

    /// Keys are good until the configuration has others.
    fn lifetime(&self) -> u32 {
        u32::MAX
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.keys.first()?.encrypt(plain)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.keys.iter().find_map(|key| key.decrypt(ticket))
    }
}

impl fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The secrets are not for logs.
        f.debug_struct("TicketKeys").field("keys", &self.keys.len()).finish()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Keys of one key, each of whose bytes is this one.
    pub(crate) fn key(byte: u8) -> TicketKeys {
        keys(&[byte])
    }

    fn keys(bytes: &[u8]) -> TicketKeys {
        let keys = bytes.iter().map(|byte| TicketKey::of(&[*byte; KEY_LEN]).unwrap());
        TicketKeys { keys: keys.collect() }
    }

    #[test]
    fn the_first_key_encrypts_and_all_decrypt() {
        let (one, two, both) = (key(1), key(2), keys(&[2, 1]));
        let ticket = one.encrypt(b"state").unwrap();
        assert_eq!(&ticket[..NAME_LEN], [1; NAME_LEN]);
        assert_eq!((ticket.len() - NAME_LEN - MAC_LEN) % 16, 0);
        assert_eq!(one.decrypt(&ticket), Some(b"state".to_vec()));
        assert_eq!(both.decrypt(&ticket), Some(b"state".to_vec()));
        assert_eq!(two.decrypt(&ticket), None);
        assert_eq!(&both.encrypt(b"state").unwrap()[..NAME_LEN], [2; NAME_LEN]);
    }

    #[test]
    fn a_ticket_that_was_tampered_with_is_none() {
        let one = key(1);
        let ticket = one.encrypt(b"state").unwrap();
        for index in 0..ticket.len() {
            let mut other = ticket.clone();
            other[index] ^= 1;
            assert_eq!(one.decrypt(&other), None, "{index}");
            assert_eq!(one.decrypt(&ticket[..index]), None, "{index}");
        }
    }
}
