//! The certificates of all runs of this process: both targets of a scenario get the same ones, so that what they say of them can be
//! compared.

use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result};
use dhow_testkit::certs::{Flaw, Identity, TestCa};

/// Authorities, and who has a certificate of them.
#[derive(Debug)]
pub struct Certificates {
    /// Issued all that follow, but where something else is said.
    pub ca: TestCa,
    /// Issued the certificate of `foreign` alone.
    pub stranger: TestCa,
    /// What `ca` has revoked.
    pub revocation_list: String,
    identities: Vec<(&'static str, Identity)>,
}

impl Certificates {
    /// Those of this process, made on first use.
    pub fn shared() -> Result<Arc<Self>> {
        static SHARED: OnceLock<Arc<Certificates>> = OnceLock::new();
        if let Some(made) = SHARED.get() {
            return Ok(Arc::clone(made));
        }
        let made = Arc::new(Self::new()?);
        Ok(Arc::clone(SHARED.get_or_init(|| made)))
    }

    fn new() -> Result<Self> {
        let ca = TestCa::new("conformance CA")?;
        let stranger = TestCa::new("stranger CA")?;
        let between = ca.intermediate("between CA")?;
        let deeper = between.intermediate("deeper CA")?;
        let mut deep = between.issue("deep", &["deep.client.test"])?;
        deep.cert_pem.push_str(&between.cert_pem);
        let mut deepest = deeper.issue("deepest", &["deepest.client.test"])?;
        deepest.cert_pem.push_str(&deeper.cert_pem);
        deepest.cert_pem.push_str(&between.cert_pem);
        let spiffe = "spiffe://cluster.local/ns/default/sa/client";
        let many = [
            "a.client.test",
            "*.wild.test",
            "10.1.2.3",
            "::1",
            "https://client.test/x",
            "spiffe://other.local/ns/a/sa/b",
        ];
        let identities = vec![
            ("server", ca.issue("server", &["localhost", "*.example.test", "127.0.0.1"])?),
            ("second", ca.issue("second", &["second.test", "b.example.test"])?),
            ("wild", ca.issue("wild", &["*.wild.test", "*.example.test", "wild.test"])?),
            ("client", ca.issue("client", &[spiffe])?),
            ("named", ca.issue("named", &many)?),
            ("nameless", ca.issue("nameless", &[])?),
            ("foreign", stranger.issue("foreign", &[spiffe])?),
            ("expired", ca.issue_flawed("expired", &[spiffe], Flaw::Expired)?),
            ("revoked", ca.issue_flawed("revoked", &[spiffe], Flaw::Revoked)?),
            ("deep", deep),
            ("deepest", deepest),
        ];
        Ok(Self { revocation_list: ca.revocation_list()?, ca, stranger, identities })
    }

    /// The certificate of `name` with its key.
    pub fn identity(&self, name: &str) -> Result<&Identity> {
        let found = self.identities.iter().find(|(known, _)| *known == name);
        found
            .map(|(_, identity)| identity)
            .with_context(|| format!("nobody called `{name}` has a certificate"))
    }

    /// Whose certificate has this fingerprint.
    pub fn whose(&self, fingerprint: &[u8]) -> Option<&'static str> {
        self.identities
            .iter()
            .find(|(_, identity)| identity.fingerprint == fingerprint)
            .map(|(name, _)| *name)
    }
}
