//! What the environment says: names and ports of the other services, the proxy, how reviews look.

use crate::args::Version;

/// Settings of one process, read once at start.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Base address of details, such as `http://details:9080`.
    pub details: String,
    /// Base address of reviews.
    pub reviews: String,
    /// Base address of ratings.
    pub ratings: String,
    /// `host:port` of the proxy for every call, if there is one.
    pub proxy: Option<String>,
    /// Host names and domain suffixes that are called directly although there is a proxy.
    pub no_proxy: Vec<String>,
    /// Colour of the stars, `None` when reviews come without.
    pub stars: Option<String>,
    /// Extra calls to reviews for each page.
    pub flood: usize,
    /// Name of the pod, shown with the reviews.
    pub pod: String,
    /// Name of the cluster, shown with the reviews; the text `null` where there is none, as in the original.
    pub cluster: String,
}

impl Settings {
    /// Reads the settings from `variable`, which is `std::env::var(..).ok()` except in tests.
    pub(crate) fn read(version: Version, variable: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let domain = set("SERVICES_DOMAIN").map(|domain| format!(".{domain}")).unwrap_or_default();
        let base = |service: &str| {
            let upper = service.to_ascii_uppercase();
            let host = set(&format!("{upper}_HOSTNAME")).unwrap_or_else(|| service.to_owned());
            let port = set(&format!("{upper}_SERVICE_PORT")).unwrap_or_else(|| "9080".to_owned());
            format!("http://{host}{domain}:{port}")
        };
        let stars = match set("ENABLE_RATINGS") {
            Some(enabled) => enabled == "true",
            None => version != Version::V1,
        };
        let color = set("STAR_COLOR")
            .unwrap_or_else(|| if version == Version::V3 { "red".to_owned() } else { "black".to_owned() });
        let flood = match set("FLOOD_FACTOR") {
            None => 0,
            Some(text) => text.parse().map_err(|_| format!("FLOOD_FACTOR {text:?} is not a number"))?,
        };
        Ok(Self {
            details: base("details"),
            reviews: base("reviews"),
            ratings: base("ratings"),
            proxy: set("http_proxy")
                .or_else(|| set("HTTP_PROXY"))
                .map(|url| proxy_authority(&url))
                .transpose()?,
            no_proxy: set("no_proxy")
                .or_else(|| set("NO_PROXY"))
                .map(|list| {
                    list.split(',').map(|name| name.trim().to_owned()).filter(|n| !n.is_empty()).collect()
                })
                .unwrap_or_default(),
            stars: stars.then_some(color),
            flood,
            pod: set("HOSTNAME").unwrap_or_else(|| "unknown".to_owned()),
            cluster: set("CLUSTER_NAME").unwrap_or_else(|| "null".to_owned()),
        })
    }
}

/// `host:port` of a proxy URL; the port defaults to 80 and a missing scheme means `http`.
fn proxy_authority(url: &str) -> Result<String, String> {
    let wrong = || format!("HTTP_PROXY {url:?} is not the address of an http:// proxy");
    let text = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    let uri: http::Uri = text.parse().map_err(|_| wrong())?;
    if uri.scheme() != Some(&http::uri::Scheme::HTTP) {
        return Err(wrong());
    }
    let authority = uri.authority().ok_or_else(wrong)?;
    Ok(format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(version: Version, variables: &[(&str, &str)]) -> Settings {
        let find = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        Settings::read(version, find).unwrap()
    }

    #[test]
    fn defaults_are_the_service_names_on_9080() {
        let settings = read(Version::V1, &[]);
        assert_eq!(settings.details, "http://details:9080");
        assert_eq!(settings.reviews, "http://reviews:9080");
        assert_eq!(settings.ratings, "http://ratings:9080");
        assert_eq!(settings.proxy, None);
        assert_eq!(settings.cluster, "null");
    }

    #[test]
    fn hosts_domain_and_ports_come_from_the_environment() {
        let settings = read(
            Version::V1,
            &[("SERVICES_DOMAIN", "shop.svc"), ("DETAILS_HOSTNAME", "d"), ("RATINGS_SERVICE_PORT", "81")],
        );
        assert_eq!(settings.details, "http://d.shop.svc:9080");
        assert_eq!(settings.ratings, "http://ratings.shop.svc:81");
    }

    #[test]
    fn versions_of_reviews_differ_in_stars_and_the_environment_wins() {
        assert_eq!(read(Version::V1, &[]).stars, None);
        assert_eq!(read(Version::V2, &[]).stars.as_deref(), Some("black"));
        assert_eq!(read(Version::V3, &[]).stars.as_deref(), Some("red"));
        assert_eq!(read(Version::V3, &[("ENABLE_RATINGS", "false")]).stars, None);
        let blue = read(Version::V1, &[("ENABLE_RATINGS", "true"), ("STAR_COLOR", "blue")]);
        assert_eq!(blue.stars.as_deref(), Some("blue"));
    }

    #[test]
    fn proxy_may_lack_scheme_and_port() {
        assert_eq!(proxy_authority("http://127.0.0.9:15007").unwrap(), "127.0.0.9:15007");
        assert_eq!(proxy_authority("proxy:3128/").unwrap(), "proxy:3128");
        assert_eq!(proxy_authority("proxy").unwrap(), "proxy:80");
        assert!(proxy_authority("https://proxy").is_err());
    }
}
