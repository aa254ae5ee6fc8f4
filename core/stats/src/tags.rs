//! Tag extraction: which parts of a name become labels, and what the name is without them.
//!
//! The rules are Envoy's default ones. They are written as patterns over the dot-separated parts of a name: `*` is any one part (an
//! address with its dots is one), `**` one or more parts, as few as will do. `$` is a part that becomes the tag's value and leaves the name, `$@` the same for
//! a listener's address or whatever stat prefix it has instead (`admin` is none), and of `$worker_` the number becomes the value and
//! `worker` stays.

use fancy_regex::Regex;

use crate::ecmascript;

/// A name without its tags, and the tags in the order in which they were found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tagged {
    /// The name with the tags' parts taken out.
    pub name: String,
    /// Tag name (`envoy.cluster_name`) and value.
    pub tags: Vec<(String, String)>,
}

/// A tag from `stats_config.stats_tags` or the command line.
#[derive(Clone, Debug)]
pub enum CustomTag {
    /// The same value on every stat.
    Fixed {
        /// Tag name.
        name: String,
        /// Value.
        value: String,
    },
    /// The first group is taken out of the name; the second group, or the first if there is no second, is the value.
    Regex {
        /// Tag name.
        name: String,
        /// Expression, searched in the name.
        regex: Regex,
    },
    /// One of Envoy's default tags, kept although the default tags are off.
    Default {
        /// Tag name, such as `envoy.cluster_name`.
        name: String,
    },
}

/// The rules of a store.
#[derive(Clone, Debug)]
pub struct TagRules {
    /// Tags of the configuration, applied before the default ones.
    pub custom: Vec<CustomTag>,
    /// Whether a tag of the configuration takes the place of the default one of its name even where it finds nothing
    /// (`allow_default_tag_overrides`).
    pub override_default: bool,
    /// Whether Envoy's default rules apply (`use_all_default_tags`).
    pub use_default: bool,
}

impl Default for TagRules {
    fn default() -> Self {
        Self { custom: Vec::new(), override_default: false, use_default: true }
    }
}

/// Default rules over parts, in Envoy's order; the response code rules, which look inside the last part, come before them.
const PATTERNS: &[(&str, &str)] = &[
    ("envoy.mongo_callsite", "mongo.*.collection.*.callsite.$.**"),
    ("envoy.mongo_collection", "mongo.*.collection.$.**"),
    ("envoy.mongo_cmd", "mongo.*.cmd.$.**"),
    ("envoy.grpc_bridge_method", "cluster.*.grpc.*.$.**"),
    ("envoy.http_user_agent", "http.*.user_agent.$.**"),
    ("envoy.virtual_cluster", "vhost.*.vcluster.$.**"),
    ("envoy.fault_downstream_cluster", "http.*.fault.$.**"),
    ("envoy.ssl_cipher", "listener.*.ssl.ciphers.$"),
    ("envoy.tls_certificate", "listener.*.ssl.certificate.$.**"),
    ("envoy.grpc_bridge_service", "cluster.*.grpc.$.**"),
    ("envoy.tcp_prefix", "tcp.$.**"),
    ("envoy.udp_prefix", "udp.$.**"),
    ("envoy.clientssl_prefix", "auth.clientssl.$.**"),
    ("envoy.ratelimit_prefix", "ratelimit.$.**"),
    ("envoy.ssl_cipher", "cluster.*.ssl.ciphers.$"),
    ("envoy.tls_certificate", "cluster.*.ssl.certificate.$.**"),
    ("envoy.cluster_name", "cluster.$.**"),
    ("envoy.http_conn_manager_prefix", "listener.**.http.$.**"),
    ("envoy.rds_route_config", "http.*.rds.$.**"),
    ("envoy.scoped_rds_config", "http.*.scoped_rds.$.**"),
    ("envoy.http_conn_manager_prefix", "http.$.**"),
    ("envoy.worker_id", "listener_manager.$worker_.**"),
    ("envoy.worker_id", "listener.*.$worker_.**"),
    ("envoy.worker_id", "server.$worker_.**"),
    ("envoy.worker_id", "thread_local_cluster_manager.$worker_.**"),
    ("envoy.listener_address", "listener.$@.**"),
    ("envoy.virtual_host", "vhost.$.**"),
    ("envoy.route", "vhost.*.route.$.**"),
    ("envoy.mongo_prefix", "mongo.$.**"),
    ("envoy.thrift_prefix", "thrift.$.**"),
    ("envoy.redis_prefix", "redis.$.**"),
    ("envoy.google_grpc_client_prefix", "grpc.$.**"),
    ("envoy.local_http_ratelimit_prefix", "$.http_local_rate_limit.**"),
    ("envoy.local_network_ratelimit_prefix", "local_rate_limit.$.**"),
    ("envoy.local_listener_ratelimit_prefix", "listener_local_ratelimit.$.**"),
    ("envoy.dns_filter_prefix", "dns_filter.$.**"),
    ("envoy.connection_limit_prefix", "connection_limit.$.**"),
    ("envoy.rbac_prefix", "$.rbac.**"),
    ("envoy.ext_authz_prefix", "ext_authz.$.**"),
    ("envoy.proxy_protocol_version", "proxy_proto.versions.$.**"),
    ("envoy.proxy_protocol_prefix", "proxy_proto.$.**"),
];

impl TagRules {
    /// Splits a full name into what is counted and the tags.
    pub fn extract(&self, full: &str) -> Tagged {
        let mut found = Extraction { full, taken: Vec::new(), tags: Vec::new() };
        for tag in &self.custom {
            if let CustomTag::Fixed { name, value } = tag {
                found.tags.push((name.clone(), value.clone()));
            }
        }
        let wanted = |tag: &str| {
            if self.use_default {
                !self.override_default || !self.custom.iter().any(|custom| custom.name() == tag)
            } else {
                self.custom.iter().any(|custom| matches!(custom, CustomTag::Default { name } if name == tag))
            }
        };
        // As in Envoy, expressions that may match anywhere come before those that ask for a first part.
        self.regexes(false, &mut found);
        found.response_codes(wanted);
        self.regexes(true, &mut found);
        found.defaults(wanted);
        found.finish()
    }

    fn regexes(&self, anchored: bool, found: &mut Extraction<'_>) {
        for tag in &self.custom {
            if let CustomTag::Regex { name, regex } = tag
                && asks_for_first_part(regex.as_str()) == anchored
            {
                found.regex(name, regex);
            }
        }
    }
}

impl CustomTag {
    /// A tag that an expression finds.
    ///
    /// # Errors
    /// What is wrong with the expression.
    pub fn regex(name: String, expression: &str) -> Result<Self, String> {
        ecmascript::check(expression)?;
        let regex = Regex::new(expression).map_err(|error| error.to_string())?;
        Ok(Self::Regex { name, regex })
    }

    /// Whether one of Envoy's default rules finds a tag of this name.
    pub fn is_default(name: &str) -> bool {
        matches!(name, "envoy.response_code" | "envoy.response_code_class")
            || PATTERNS.iter().any(|(tag, _)| *tag == name)
    }

    fn name(&self) -> &str {
        match self {
            Self::Fixed { name, .. } | Self::Regex { name, .. } | Self::Default { name } => name,
        }
    }
}

struct Extraction<'a> {
    full: &'a str,
    /// Byte ranges of the full name that left it.
    taken: Vec<(usize, usize)>,
    tags: Vec<(String, String)>,
}

impl Extraction<'_> {
    fn has(&self, tag: &str) -> bool {
        self.tags.iter().any(|(name, _)| name == tag)
    }

    fn regex(&mut self, name: &str, regex: &Regex) {
        // Back-tracking that goes too far counts as no match.
        let Ok(Some(found)) = regex.captures(self.full) else { return };
        let Some(out) = found.get(1) else { return };
        let value = found.get(2).unwrap_or(out);
        self.tags.push((name.to_owned(), value.as_str().to_owned()));
        self.taken.push((out.start(), out.end()));
    }

    fn response_codes(&mut self, wanted: impl Fn(&str) -> bool) {
        if wanted("envoy.response_code") && !self.has("envoy.response_code") {
            self.response_code();
        }
        if wanted("envoy.response_code_class") && !self.has("envoy.response_code_class") {
            self.response_code_class();
        }
    }

    fn defaults(&mut self, wanted: impl Fn(&str) -> bool) {
        for &(tag, pattern) in PATTERNS {
            if wanted(tag)
                && !self.has(tag)
                && let Some(found) = match_parts(self.full, pattern)
            {
                self.tags.push((tag.to_owned(), self.full[found.value.0..found.value.1].to_owned()));
                self.taken.push(found.taken);
            }
        }
    }

    /// `…_rq_200` becomes `…_rq`.
    fn response_code(&mut self) {
        let full = self.full;
        if let Some(at) = full.rfind("_rq_").filter(|at| at + 7 == full.len())
            && full[at + 4..].bytes().all(|b| b.is_ascii_digit())
        {
            self.tags.push(("envoy.response_code".to_owned(), full[at + 4..].to_owned()));
            self.taken.push((at + 3, full.len()));
        }
    }

    /// `…_rq_2xx` becomes `…_rq_xx`.
    fn response_code_class(&mut self) {
        let full = self.full;
        if full.ends_with("xx")
            && let Some(at) = full.rfind("_rq_").filter(|at| at + 7 == full.len())
            && full.as_bytes()[at + 4].is_ascii_digit()
        {
            self.tags.push(("envoy.response_code_class".to_owned(), full[at + 4..at + 5].to_owned()));
            self.taken.push((at + 4, at + 5));
        }
    }

    fn finish(mut self) -> Tagged {
        self.taken.sort_unstable();
        let mut name = String::with_capacity(self.full.len());
        let mut at = 0;
        for (start, end) in self.taken {
            if start >= at {
                name.push_str(&self.full[at..start]);
            }
            at = at.max(end);
        }
        name.push_str(&self.full[at..]);
        Tagged { name, tags: self.tags }
    }
}

/// Whether an expression begins with `^`, letters, digits and underscores, and a dot: it can only match names with that first part.
fn asks_for_first_part(regex: &str) -> bool {
    let Some(rest) = regex.strip_prefix('^') else { return false };
    let end = rest.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
    end > 0 && (rest[end..].starts_with("\\.") || rest.len() == end)
}

/// Byte ranges of a name: what is a tag's value, and what leaves the name with it.
#[derive(Clone, Copy)]
struct Found {
    value: (usize, usize),
    taken: (usize, usize),
}

/// Matches a pattern from the beginning of a name to its end.
fn match_parts(full: &str, pattern: &str) -> Option<Found> {
    let mut found = None;
    let mut at = 0;
    let mut wanted = pattern.split('.').peekable();
    while let Some(want) = wanted.next() {
        if want == "**" {
            let Some(next) = wanted.peek() else { return found.filter(|_| at < full.len()) };
            // One part at least, then up to the one that comes next in the pattern.
            at += part_len(full.get(at..)?) + 1;
            while part_of(full.get(at..)?) != *next {
                at += part_len(&full[at..]) + 1;
            }
            continue;
        }
        if at > full.len() {
            return None;
        }
        let rest = &full[at..];
        let end = at + part_len(rest);
        let part = &full[at..end];
        match want.strip_prefix('$') {
            Some(kind @ ("" | "@")) => {
                if kind == "@" && matches!(part, "" | "admin") {
                    return None;
                }
                // The dot goes with the part, the one after it or, at the end of the name, the one before it.
                let taken = if end < full.len() { (at, end + 1) } else { (at.saturating_sub(1), end) };
                found = Some(Found { value: (at, end), taken });
            }
            Some(stem) => {
                let digits = part.strip_prefix(stem)?;
                if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                    return None;
                }
                let start = end - digits.len();
                found = Some(Found { value: (start, end), taken: (start - 1, end) });
            }
            None if want == "*" || want == part => {}
            None => return None,
        }
        at = end + 1;
    }
    // No `**`: the name must end here.
    found.filter(|_| at == full.len() + 1)
}

/// Length of the part that a name begins with. The address of a listener (`127.0.0.1_80`, `[__1]_80`) is one part although it has dots.
fn part_len(rest: &str) -> usize {
    address_len(rest).unwrap_or_else(|| rest.find('.').unwrap_or(rest.len()))
}

/// The part that a name begins with.
fn part_of(rest: &str) -> &str {
    &rest[..part_len(rest)]
}

fn address_len(rest: &str) -> Option<usize> {
    let end = if rest.starts_with('[') {
        rest.find(']')? + 1
    } else {
        let dots = rest.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
        if rest[..dots].split('.').filter(|octet| !octet.is_empty()).count() != 4 {
            return None;
        }
        dots
    };
    let port = rest[end..].strip_prefix('_')?;
    let digits = port.bytes().take_while(u8::is_ascii_digit).count();
    let end = end + 1 + digits;
    (digits > 0 && (end == rest.len() || rest.as_bytes()[end] == b'.')).then_some(end)
}

#[cfg(test)]
mod tests {
    use super::{CustomTag, TagRules};

    fn extracted(rules: &TagRules, full: &str) -> String {
        let tagged = rules.extract(full);
        let tags: Vec<_> = tagged.tags.iter().map(|(name, value)| format!("{name}={value}")).collect();
        format!("{} {}", tagged.name, tags.join(" "))
    }

    /// Names and tags are those of Envoy 1.40's Prometheus page.
    #[test]
    fn default_rules_are_envoys() {
        let rules = TagRules::default();
        for (full, wanted) in [
            (
                "cluster.u1.upstream_rq_200",
                "cluster.upstream_rq envoy.response_code=200 envoy.cluster_name=u1",
            ),
            (
                "cluster.u1.upstream_rq_2xx",
                "cluster.upstream_rq_xx envoy.response_code_class=2 envoy.cluster_name=u1",
            ),
            ("cluster.u1.upstream_rq_total", "cluster.upstream_rq_total envoy.cluster_name=u1"),
            (
                "listener.admin.http.admin.downstream_rq_completed",
                "listener.admin.http.downstream_rq_completed envoy.http_conn_manager_prefix=admin",
            ),
            ("listener.admin.downstream_cx_total", "listener.admin.downstream_cx_total "),
            (
                "listener.127.0.0.1_80.downstream_cx_total",
                "listener.downstream_cx_total envoy.listener_address=127.0.0.1_80",
            ),
            (
                "listener.[__1]_80.no_filter_chain_match",
                "listener.no_filter_chain_match envoy.listener_address=[__1]_80",
            ),
            // What `stat_prefix` of a listener puts in the place of its address.
            ("listener.edge.downstream_cx_total", "listener.downstream_cx_total envoy.listener_address=edge"),
            (
                "listener.edge.worker_0.downstream_cx_total",
                "listener.worker.downstream_cx_total envoy.worker_id=0 envoy.listener_address=edge",
            ),
            (
                "listener.with.dot.worker_0.downstream_cx_total",
                "listener.dot.worker_0.downstream_cx_total envoy.listener_address=with",
            ),
            (
                "listener.with.dot.http.p.downstream_rq_2xx",
                "listener.dot.http.downstream_rq_xx envoy.response_code_class=2 envoy.http_conn_manager_prefix=p envoy.listener_address=with",
            ),
            (
                "listener.http.http.p.downstream_rq_completed",
                "listener.http.downstream_rq_completed envoy.http_conn_manager_prefix=p envoy.listener_address=http",
            ),
            ("listener.http.downstream_cx_total", "listener.downstream_cx_total envoy.listener_address=http"),
            (
                "listener.admin.worker_0.downstream_cx_total",
                "listener.admin.worker.downstream_cx_total envoy.worker_id=0",
            ),
            (
                "listener.127.0.0.1_80.worker_0.downstream_cx_total",
                "listener.worker.downstream_cx_total envoy.worker_id=0 envoy.listener_address=127.0.0.1_80",
            ),
            (
                "listener.127.0.0.1_80.http.in.downstream_rq_2xx",
                "listener.http.downstream_rq_xx envoy.response_code_class=2 envoy.http_conn_manager_prefix=in envoy.listener_address=127.0.0.1_80",
            ),
            ("server.worker_1.watchdog_miss", "server.worker.watchdog_miss envoy.worker_id=1"),
            (
                "vhost.v.route.sp.upstream_rq_total",
                "vhost.route.upstream_rq_total envoy.virtual_host=v envoy.route=sp",
            ),
            (
                "vhost.v.vcluster.other.upstream_rq_total",
                "vhost.vcluster.upstream_rq_total envoy.virtual_cluster=other envoy.virtual_host=v",
            ),
            ("tcp.p.downstream_cx_total", "tcp.downstream_cx_total envoy.tcp_prefix=p"),
            ("cluster_manager.active_clusters", "cluster_manager.active_clusters "),
        ] {
            assert_eq!(extracted(&rules, full), wanted);
        }
    }

    #[test]
    fn custom_rules_come_before_default_ones() {
        let fixed = CustomTag::Fixed { name: "zone".to_owned(), value: "z".to_owned() };
        let regex = CustomTag::Regex {
            name: "envoy.cluster_name".to_owned(),
            regex: fancy_regex::Regex::new(r"^cluster\.((.+?(\..+?\.svc\.cluster\.local)?)\.)").unwrap(),
        };
        let rules = TagRules { custom: vec![fixed.clone(), regex], ..TagRules::default() };
        assert_eq!(
            extracted(&rules, "cluster.outbound|80||a.b.svc.cluster.local.upstream_cx_total"),
            "cluster.upstream_cx_total zone=z envoy.cluster_name=outbound|80||a.b.svc.cluster.local"
        );
        let none = TagRules { custom: vec![fixed], use_default: false, ..TagRules::default() };
        assert_eq!(extracted(&none, "cluster.u1.upstream_rq_200"), "cluster.u1.upstream_rq_200 zone=z");
        let kept = CustomTag::Default { name: "envoy.cluster_name".to_owned() };
        let one = TagRules { custom: vec![kept], use_default: false, ..TagRules::default() };
        assert_eq!(
            extracted(&one, "cluster.u1.upstream_rq_200"),
            "cluster.upstream_rq_200 envoy.cluster_name=u1"
        );
    }

    fn regex(name: &str, expression: &str) -> CustomTag {
        CustomTag::Regex { name: name.to_owned(), regex: fancy_regex::Regex::new(expression).unwrap() }
    }

    /// The lines of Envoy 1.40's Prometheus page for these rules.
    #[test]
    fn expressions_without_a_first_part_go_first_and_defaults_fill_the_gaps() {
        let custom = vec![
            regex("envoy.cluster_name", r"^cluster\.((c)\.)"),
            regex("no_group", "upstream"),
            regex("look", "cx_(?=total)(tot)"),
        ];
        let rules = TagRules { custom: custom.clone(), ..TagRules::default() };
        let mine = "cluster.upstream_cx_al look=tot envoy.cluster_name=c";
        assert_eq!(extracted(&rules, "cluster.c.upstream_cx_total"), mine);
        let default = "cluster.upstream_cx_al look=tot envoy.cluster_name=dd";
        assert_eq!(extracted(&rules, "cluster.dd.upstream_cx_total"), default);
        let rules = TagRules { custom, override_default: true, use_default: true };
        assert_eq!(extracted(&rules, "cluster.dd.upstream_cx_total"), "cluster.dd.upstream_cx_al look=tot");
    }
}
