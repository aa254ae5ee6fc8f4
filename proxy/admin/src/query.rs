//! The query of an admin request.

/// Parameters in order, percent-decoded; a parameter without `=` has an empty value.
#[derive(Clone, Debug, Default)]
pub(crate) struct QueryParams {
    pairs: Vec<(String, String)>,
}

impl QueryParams {
    /// Splits a path with query into the path and the parameters.
    pub(crate) fn split(path_and_query: &str) -> (&str, Self) {
        let without_fragment = path_and_query.split('#').next().unwrap_or_default();
        let (path, query) = without_fragment.split_once('?').unwrap_or((without_fragment, ""));
        (path, Self::parse(query))
    }

    pub(crate) fn parse(query: &str) -> Self {
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        };
        Self { pairs: query.split('&').filter(|text| !text.is_empty()).map(pair).collect() }
    }

    /// The first value of a parameter.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The first value of a parameter that is not empty.
    pub(crate) fn non_empty(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.is_empty())
    }

    /// Whether a parameter is there, with or without value.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The first value of each parameter.
    pub(crate) fn firsts(&self) -> Vec<(&str, &str)> {
        let mut firsts: Vec<(&str, &str)> = Vec::new();
        for (name, value) in &self.pairs {
            if !firsts.iter().any(|(known, _)| known == name) {
                firsts.push((name, value));
            }
        }
        firsts
    }

    pub(crate) fn pairs(&self) -> &[(String, String)] {
        &self.pairs
    }
}

fn decode(text: &str) -> String {
    if !text.contains('%') {
        return text.to_owned();
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digit = |at: usize| bytes.get(at).and_then(|&b| (b as char).to_digit(16));
        match (bytes[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, ..) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::QueryParams;

    #[test]
    fn parameters_are_decoded_and_may_have_no_value() {
        let (path, query) = QueryParams::split("/stats?usedonly&filter=a%7Cb%2&x=#y");
        assert_eq!(path, "/stats");
        assert!(query.has("usedonly") && !query.has("y"));
        assert_eq!(query.get("filter"), Some("a|b%2"));
        assert_eq!((query.get("x"), query.non_empty("x")), (Some(""), None));
    }
}
