//! The key schedule of TLS 1.3 with less work: HKDF (RFC 5869) over HMAC keys that keep the digests of their padded halves.
//!
//! The library's own takes each key apart again for every secret derived from it, and repeats the extraction before it, which is a
//! fifth of a handshake's instructions with SHA-384. What is computed is the same.

use std::sync::{LazyLock, OnceLock};

use aws_lc_rs::hmac;
use rustls::crypto::aws_lc_rs::cipher_suite as suites;
use rustls::crypto::hmac::Tag;
use rustls::crypto::tls13::{Hkdf, HkdfExpander, OkmBlock, OutputLengthError};
use rustls::{SupportedCipherSuite, Tls13CipherSuite};

/// The most bytes that a digest has.
const MAX_DIGEST: usize = OkmBlock::MAX_LEN;

static SHA256: KeySchedule = KeySchedule::over(hmac::HMAC_SHA256);
static SHA384: KeySchedule = KeySchedule::over(hmac::HMAC_SHA384);

/// The suites of TLS 1.3 with this key schedule.
pub(crate) fn tls13_suites() -> [SupportedCipherSuite; 3] {
    static SUITES: LazyLock<[SupportedCipherSuite; 3]> = LazyLock::new(|| {
        [
            with_schedule(suites::TLS13_AES_128_GCM_SHA256, &SHA256),
            with_schedule(suites::TLS13_AES_256_GCM_SHA384, &SHA384),
            with_schedule(suites::TLS13_CHACHA20_POLY1305_SHA256, &SHA256),
        ]
    });
    *SUITES
}

/// Called once for each suite of the process, as suites live forever.
fn with_schedule(suite: SupportedCipherSuite, schedule: &'static KeySchedule) -> SupportedCipherSuite {
    let SupportedCipherSuite::Tls13(known) = suite else { return suite };
    let Tls13CipherSuite { common, hkdf_provider: _, aead_alg, quic } = known;
    let common = rustls::CipherSuiteCommon { ..*common };
    let suite = Tls13CipherSuite { common, hkdf_provider: schedule, aead_alg: *aead_alg, quic: *quic };
    SupportedCipherSuite::Tls13(Box::leak(Box::new(suite)))
}

/// HKDF over one digest.
struct KeySchedule {
    algorithm: hmac::Algorithm,
    /// The early secret of connections without a pre-shared key, which is the same for all of them.
    early: OnceLock<hmac::Key>,
}

impl KeySchedule {
    const fn over(algorithm: hmac::Algorithm) -> Self {
        Self { algorithm, early: OnceLock::new() }
    }

    fn zeroes(&self) -> &'static [u8] {
        &[0; MAX_DIGEST][..self.algorithm.tag_len()]
    }

    fn extract(&self, salt: Option<&[u8]>, secret: &[u8]) -> hmac::Key {
        let salt = hmac::Key::new(self.algorithm, salt.unwrap_or_else(|| self.zeroes()));
        hmac::Key::new(self.algorithm, signed(&salt, &[secret]).as_ref())
    }
}

impl Hkdf for KeySchedule {
    fn extract_from_zero_ikm(&self, salt: Option<&[u8]>) -> Box<dyn HkdfExpander> {
        let key = match salt {
            None => self.early.get_or_init(|| self.extract(None, self.zeroes())).clone(),
            Some(_) => self.extract(salt, self.zeroes()),
        };
        Box::new(Expander(key))
    }

    fn extract_from_secret(&self, salt: Option<&[u8]>, secret: &[u8]) -> Box<dyn HkdfExpander> {
        Box::new(Expander(self.extract(salt, secret)))
    }

    fn expander_for_okm(&self, okm: &OkmBlock) -> Box<dyn HkdfExpander> {
        Box::new(Expander(hmac::Key::new(self.algorithm, okm.as_ref())))
    }

    fn hmac_sign(&self, key: &OkmBlock, message: &[u8]) -> Tag {
        signed(&hmac::Key::new(self.algorithm, key.as_ref()), &[message])
    }
}

/// A pseudo-random key.
struct Expander(hmac::Key);

impl Expander {
    fn expand(&self, info: &[&[u8]], output: &mut [u8]) {
        let mut last = Tag::new(&[]);
        for (index, chunk) in (1..=u8::MAX).zip(output.chunks_mut(self.hash_len())) {
            let mut context = hmac::Context::with_key(&self.0);
            context.update(last.as_ref());
            info.iter().for_each(|part| context.update(part));
            context.update(&[index]);
            last = Tag::new(context.sign().as_ref());
            chunk.copy_from_slice(&last.as_ref()[..chunk.len()]);
        }
    }
}

impl HkdfExpander for Expander {
    fn expand_slice(&self, info: &[&[u8]], output: &mut [u8]) -> Result<(), OutputLengthError> {
        if output.len() > usize::from(u8::MAX) * self.hash_len() {
            return Err(OutputLengthError);
        }
        self.expand(info, output);
        Ok(())
    }

    fn expand_block(&self, info: &[&[u8]]) -> OkmBlock {
        let mut block = [0; MAX_DIGEST];
        let block = &mut block[..self.hash_len()];
        self.expand(info, block);
        OkmBlock::new(block)
    }

    fn hash_len(&self) -> usize {
        self.0.algorithm().tag_len()
    }
}

fn signed(key: &hmac::Key, message: &[&[u8]]) -> Tag {
    let mut context = hmac::Context::with_key(key);
    message.iter().for_each(|part| context.update(part));
    Tag::new(context.sign().as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the library computes for the same.
    fn library(suite: SupportedCipherSuite) -> &'static dyn Hkdf {
        suite.tls13().expect("a suite of TLS 1.3").hkdf_provider
    }

    fn pairs() -> [(&'static dyn Hkdf, &'static dyn Hkdf); 2] {
        [
            (&SHA256, library(suites::TLS13_AES_128_GCM_SHA256)),
            (&SHA384, library(suites::TLS13_AES_256_GCM_SHA384)),
        ]
    }

    /// Every output of an expander, in bytes.
    fn outputs(expander: &dyn HkdfExpander) -> Vec<u8> {
        let mut all = expander.expand_block(&[b"label", b"", b"context"]).as_ref().to_vec();
        for length in [0, 1, 12, 16, 32, 48, 49, 200] {
            let mut output = vec![0; length];
            expander.expand_slice(&[b"in", b"fo"], &mut output).unwrap();
            all.extend(output);
        }
        all
    }

    #[test]
    fn secrets_are_those_of_the_library() {
        for (ours, theirs) in pairs() {
            let long = [7_u8; 300];
            for salt in [None, Some(&b"salt"[..]), Some(&long[..])] {
                assert_eq!(
                    outputs(&*ours.extract_from_zero_ikm(salt)),
                    outputs(&*theirs.extract_from_zero_ikm(salt))
                );
                assert_eq!(
                    outputs(&*ours.extract_from_secret(salt, &long)),
                    outputs(&*theirs.extract_from_secret(salt, &long))
                );
            }
            let okm = theirs.extract_from_secret(None, b"secret").expand_block(&[b"x"]);
            assert_eq!(outputs(&*ours.expander_for_okm(&okm)), outputs(&*theirs.expander_for_okm(&okm)));
            assert_eq!(ours.hmac_sign(&okm, &long).as_ref(), theirs.hmac_sign(&okm, &long).as_ref());
        }
    }

    #[test]
    fn more_than_255_blocks_are_refused() {
        let expander = SHA256.extract_from_secret(None, b"secret");
        let length = 255 * expander.hash_len();
        assert!(expander.expand_slice(&[], &mut vec![0; length]).is_ok());
        assert!(expander.expand_slice(&[], &mut vec![0; length + 1]).is_err());
    }

    #[test]
    fn a_vector_of_the_rfc_comes_out() {
        let expander = SHA256.extract_from_secret(Some(&(0..=0x0c).collect::<Vec<u8>>()), &[0x0b; 22]);
        let mut output = [0; 42];
        expander.expand_slice(&[&(0xf0..=0xf9).collect::<Vec<u8>>()], &mut output).unwrap();
        let hex: String = output.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
        );
    }
}
