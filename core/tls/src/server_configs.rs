//! rustls' configurations of one server. Hellos want different ones: suites of equal preference in the client's order, a protocol of
//! ALPN or none, tickets that are good for as long as those of their version.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::crypto::CryptoProvider;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, NoServerSessionStorage};
use rustls::{CipherSuite, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion, version};

use crate::identity::Selection;
use crate::key_schedule::tls13_suites;
use crate::parameters::Parameters;
use crate::resumption::{Sessions, TLS13_LIFETIME, Tickets};

/// Orders of suites beside the usual one for which configurations are kept. Clients have few.
const MAX_ORDERS: usize = 16;

/// What the configurations are made of.
#[derive(Debug)]
pub(crate) struct Recipe {
    pub parameters: Parameters,
    /// Looks at certificates of clients, where they are asked for.
    pub verifier: Option<Arc<dyn ClientCertVerifier>>,
    pub selection: Arc<Selection>,
    pub alpn: Vec<Vec<u8>>,
    /// `prefer_client_ciphers`.
    pub client_order: bool,
    /// The tickets of TLS 1.2; those of TLS 1.3 differ in their time only.
    pub tickets: Option<Tickets>,
    pub sessions: Option<Arc<Sessions>>,
}

/// The configurations of a server.
#[derive(Debug)]
pub(crate) struct ServerConfigs {
    recipe: Recipe,
    /// For clients that offer TLS 1.3, whose suites the server takes in the client's order, as BoringSSL does where the processor
    /// has instructions for AES.
    tls13: Option<Configs>,
    /// For other clients, with the suites as configured.
    tls12: Configs,
    /// ... and with suites of equal preference in another order.
    reordered: Mutex<Vec<(Vec<CipherSuite>, Configs)>>,
}

/// With ALPN and, for clients that offer nothing that is configured, which Envoy serves without a protocol, without it.
#[derive(Clone, Debug)]
struct Configs {
    plain: Arc<ServerConfig>,
    with_alpn: Arc<ServerConfig>,
}

impl ServerConfigs {
    pub(crate) fn new(recipe: Recipe) -> Result<Self, String> {
        let has_tls13 =
            recipe.parameters.versions.iter().any(|known| known.version == version::TLS13.version);
        let provider = &recipe.parameters.provider;
        let tls13_tickets = recipe.tickets.as_ref().map(|tickets| tickets.lasting(TLS13_LIFETIME));
        let tls13 = has_tls13.then(|| recipe.make(provider.clone(), true, tls13_tickets)).transpose()?;
        let tls12 = recipe.make(provider.clone(), recipe.client_order, recipe.tickets.clone())?;
        Ok(Self { recipe, tls13, tls12, reordered: Mutex::default() })
    }

    /// The configuration for a client.
    pub(crate) fn for_hello(&self, hello: &ClientHello<'_>) -> Arc<ServerConfig> {
        let ours = &self.recipe.alpn;
        let common =
            hello.alpn().is_some_and(|mut offered| offered.any(|p| ours.iter().any(|ours| ours == p)));
        let offered = hello.cipher_suites();
        // The library does not tell which versions are offered. Hardly anybody lists suites of TLS 1.3 without offering the version,
        // and who does gets suites in the order asked for, and tickets for as long as those of that version.
        let knows_tls13 = || tls13_suites().iter().any(|suite| offered.contains(&suite.suite()));
        let configs = match &self.tls13 {
            Some(configs) if knows_tls13() => configs.clone(),
            _ => self.in_order(offered),
        };
        if common { configs.with_alpn } else { configs.plain }
    }

    /// The configuration whose suites of equal preference are in the client's order.
    fn in_order(&self, offered: &[CipherSuite]) -> Configs {
        if self.recipe.client_order {
            return self.tls12.clone();
        }
        let suites = ordered(&self.recipe.parameters.tls12_suites, offered);
        let names: Vec<CipherSuite> = suites.iter().map(SupportedCipherSuite::suite).collect();
        let usual = self.recipe.parameters.tls12_suites.iter().flatten();
        if usual.map(SupportedCipherSuite::suite).eq(names.iter().copied()) {
            return self.tls12.clone();
        }
        let mut reordered = self.reordered.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, configs)) = reordered.iter().find(|(known, _)| *known == names) {
            return configs.clone();
        }
        if reordered.len() >= MAX_ORDERS {
            return self.tls12.clone();
        }
        let kept = self.tls13.iter().flat_map(|_| tls13_suites());
        let provider = CryptoProvider {
            cipher_suites: kept.chain(suites).collect(),
            ..(*self.recipe.parameters.provider).clone()
        };
        // What could fail does not depend on the order, and did not fail before.
        let configs = self.recipe.make(Arc::new(provider), false, self.recipe.tickets.clone());
        let configs = configs.unwrap_or_else(|_| self.tls12.clone());
        reordered.push((names, configs.clone()));
        configs
    }
}

/// The suites in groups of equal preference, within which those that the client lists first come first.
fn ordered(groups: &[Vec<SupportedCipherSuite>], offered: &[CipherSuite]) -> Vec<SupportedCipherSuite> {
    let position = |suite: &SupportedCipherSuite| {
        offered.iter().position(|known| *known == suite.suite()).unwrap_or(usize::MAX)
    };
    let mut suites = Vec::with_capacity(groups.iter().map(Vec::len).sum());
    for group in groups {
        let begin = suites.len();
        suites.extend_from_slice(group);
        suites[begin..].sort_by_key(position);
    }
    suites
}

impl Recipe {
    fn make(
        &self,
        provider: Arc<CryptoProvider>,
        client_order: bool,
        tickets: Option<Tickets>,
    ) -> Result<Configs, String> {
        let versions: &[&SupportedProtocolVersion] = &self.parameters.versions;
        let builder = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .map_err(|error| error.to_string())?;
        let builder = match &self.verifier {
            Some(verifier) => builder.with_client_cert_verifier(verifier.clone()),
            None => builder.with_no_client_auth(),
        };
        let mut plain = builder.with_cert_resolver(self.selection.clone());
        plain.ignore_client_order = !client_order;
        match tickets {
            Some(tickets) => plain.ticketer = Arc::new(tickets),
            // What the server remembers is for clients of TLS 1.2 only.
            None => plain.send_tls13_tickets = 0,
        }
        plain.session_storage = match &self.sessions {
            Some(sessions) => sessions.clone(),
            None => Arc::new(NoServerSessionStorage {}),
        };
        if self.alpn.is_empty() {
            let plain = Arc::new(plain);
            return Ok(Configs { with_alpn: plain.clone(), plain });
        }
        let mut with_alpn = plain.clone();
        with_alpn.alpn_protocols.clone_from(&self.alpn);
        Ok(Configs { plain: Arc::new(plain), with_alpn: Arc::new(with_alpn) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::TLS12_SUITES;

    #[test]
    fn groups_keep_their_order_and_their_suites_take_the_clients() {
        let groups: Vec<Vec<SupportedCipherSuite>> =
            TLS12_SUITES.iter().map(|group| group.to_vec()).collect();
        let names = |suites: Vec<SupportedCipherSuite>| -> Vec<CipherSuite> {
            suites.iter().map(SupportedCipherSuite::suite).collect()
        };
        let usual = names(groups.concat());
        assert_eq!(names(ordered(&groups, &[])), usual);
        // What OpenSSL offers.
        let offered = [usual[4], usual[5], usual[1], usual[3], usual[0], usual[2]];
        let expected = [usual[1], usual[0], usual[3], usual[2], usual[4], usual[5]];
        assert_eq!(names(ordered(&groups, &offered)), expected);
        // A suite that is not offered comes last.
        assert_eq!(names(ordered(&groups, &[usual[1]]))[..2], [usual[1], usual[0]]);
    }
}
