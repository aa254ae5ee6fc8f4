//! Expectations of a scenario, and checking them on what was recorded.
//!
//! They are checked on normalised values, so `{{upstream.one}}` in an expectation stands for that port.

use indexmap::IndexMap;
use regex::Regex;
use serde::Deserialize;
use serde_json::Value;

use crate::outcome::{AdminFacts, FrameFacts, Headers, RequestFacts, ResponseFacts, Seen, StepOutcome};

/// What must have happened in one step. Every field is optional.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Expect {
    /// The status of the (last) response.
    pub status: Option<u16>,
    /// The statuses of all responses of a raw step, also of those found in its bytes, or of steps that run together.
    pub statuses: Option<Vec<u16>>,
    /// The reason phrase.
    pub reason: Option<String>,
    /// Response headers; `null` for one that must not be there.
    pub headers: IndexMap<String, Matcher>,
    /// The names of all response headers, in order.
    pub header_names: Option<Vec<String>>,
    /// The response body.
    pub body: Option<Matcher>,
    /// Response trailers.
    pub trailers: IndexMap<String, Matcher>,
    /// Interim responses.
    pub interim: Option<Vec<u16>>,
    /// How it ended; see [`ResponseFacts::end`] and [`Seen::Bytes`].
    pub end: Option<String>,
    /// Protocol agreed on by TLS with the client.
    pub alpn: Option<String>,
    /// Version and suite of TLS with the client, and `resumed` where an earlier session was.
    pub session: Option<String>,
    /// The bytes of a raw step.
    pub bytes: Option<Matcher>,
    /// There was no response, and why.
    pub failure: Option<Matcher>,
    /// The one upstream that saw the request; `none` when no upstream may have seen it.
    pub upstream: Option<String>,
    /// How many requests the upstreams saw.
    pub attempts: Option<usize>,
    /// What the upstream saw last.
    pub saw: Option<SawExpect>,
    /// For a repeated request: `status body` of each answer with the least and the greatest number of times it may come.
    pub answers: Option<IndexMap<String, (usize, usize)>>,
    /// Frames: the error code of the last GOAWAY; empty for none.
    pub goaway: Option<String>,
    /// Frames: what came on each stream, by its number; all of them. See [`FrameFacts::streams`].
    pub streams: Option<IndexMap<String, String>>,
    /// Frames: whether the connection ended without a GOAWAY.
    pub ended: Option<bool>,
    /// Texts that the body contains.
    pub contains: Vec<String>,
    /// Admin: parts of the JSON body, by the pointer in `pick`.
    pub picked: IndexMap<String, Value>,
}

/// What an upstream must have seen.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SawExpect {
    /// `HTTP/1.1` or `HTTP/2`.
    pub protocol: Option<String>,
    /// The method.
    pub method: Option<String>,
    /// The request target.
    pub target: Option<Matcher>,
    /// `:authority`.
    pub authority: Option<String>,
    /// `:scheme`.
    pub scheme: Option<String>,
    /// Headers; `null` for one that must not be there.
    pub headers: IndexMap<String, Matcher>,
    /// The names of all headers, in order.
    pub header_names: Option<Vec<String>>,
    /// The body.
    pub body: Option<Matcher>,
    /// Trailers.
    pub trailers: IndexMap<String, Matcher>,
    /// Whether the request broke off.
    pub incomplete: Option<bool>,
    /// The server name of TLS.
    pub sni: Option<Matcher>,
    /// The protocol agreed on by TLS.
    pub alpn: Option<Matcher>,
}

/// A test of one text.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Matcher {
    /// Not there at all.
    Absent(()),
    /// Exactly this.
    Exact(String),
    /// Exactly this number.
    Number(u64),
    /// All of these, for a header that occurs several times.
    Several(Vec<String>),
    /// By a part of it.
    Partial(Part),
}

/// Tests of a part of a text.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Part {
    /// Contains this.
    Contains(String),
    /// Starts with this.
    Prefix(String),
    /// Matches this expression somewhere.
    Matches(String),
    /// Is there, with any value.
    Present(bool),
}

impl Matcher {
    /// Why `values` do not match, if they do not.
    fn fault(&self, values: &[&str]) -> Option<String> {
        let one = values.first().copied();
        let wanted = match self {
            Self::Absent(()) if values.is_empty() => return None,
            Self::Absent(()) => "nothing".to_owned(),
            Self::Exact(text) if values == [text.as_str()] => return None,
            Self::Exact(text) => format!("{text:?}"),
            Self::Number(number) if one == Some(number.to_string().as_str()) => return None,
            Self::Number(number) => format!("\"{number}\""),
            Self::Several(texts) if texts.iter().map(String::as_str).eq(values.iter().copied()) => {
                return None;
            }
            Self::Several(texts) => format!("{texts:?}"),
            Self::Partial(part) => {
                if part.matches(one) {
                    return None;
                }
                format!("{part:?}")
            }
        };
        let found = match values {
            [] => "nothing".to_owned(),
            [value] => format!("{value:?}"),
            several => format!("{several:?}"),
        };
        Some(format!("expected {wanted}, found {found}"))
    }
}

impl Part {
    fn matches(&self, value: Option<&str>) -> bool {
        match (self, value) {
            (Self::Present(wanted), value) => value.is_some() == *wanted,
            (_, None) => false,
            (Self::Contains(text), Some(value)) => value.contains(text.as_str()),
            (Self::Prefix(text), Some(value)) => value.starts_with(text.as_str()),
            (Self::Matches(expression), Some(value)) => {
                Regex::new(expression).is_ok_and(|r| r.is_match(value))
            }
        }
    }
}

/// Collects what is wrong, each with where it is.
#[derive(Default)]
struct Faults(Vec<String>);

impl Faults {
    fn same<T: PartialEq + std::fmt::Debug>(&mut self, at: &str, wanted: Option<&T>, found: &T) {
        if let Some(wanted) = wanted
            && wanted != found
        {
            self.0.push(format!("{at}: expected {wanted:?}, found {found:?}"));
        }
    }

    fn text(&mut self, at: &str, wanted: Option<&Matcher>, found: Option<&str>) {
        let values: Vec<&str> = found.into_iter().collect();
        if let Some(fault) = wanted.and_then(|m| m.fault(&values)) {
            self.0.push(format!("{at}: {fault}"));
        }
    }

    fn headers(&mut self, at: &str, wanted: &IndexMap<String, Matcher>, found: &Headers) {
        for (name, matcher) in wanted {
            let values: Vec<&str> =
                found.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str()).collect();
            if let Some(fault) = matcher.fault(&values) {
                self.0.push(format!("{at} {name}: {fault}"));
            }
        }
    }

    fn names(&mut self, at: &str, wanted: Option<&Vec<String>>, found: &Headers) {
        let names: Vec<String> = found.iter().map(|(n, _)| n.clone()).collect();
        self.same(at, wanted, &names);
    }
}

impl Expect {
    /// Everything that is not as expected in `outcome`.
    pub fn check(&self, outcome: &StepOutcome) -> Vec<String> {
        let mut faults = Faults::default();
        self.check_client(&outcome.client, &mut faults);
        self.check_upstreams(outcome, &mut faults);
        faults.0
    }

    /// Whether something is expected of what upstreams saw.
    pub fn mentions_upstreams(&self) -> bool {
        self.saw.is_some() || self.upstream.is_some() || self.attempts.is_some()
    }

    fn check_client(&self, client: &Seen, faults: &mut Faults) {
        match client {
            Seen::Responses(responses) => {
                let statuses: Vec<u16> = responses.iter().map(|r| r.status).collect();
                faults.same("statuses", self.statuses.as_ref(), &statuses);
                if let Some(last) = responses.last() {
                    self.check_response(last, faults);
                }
                faults.text("failure", self.failure.as_ref(), None);
            }
            Seen::Bytes { text, end } => {
                faults.same("statuses", self.statuses.as_ref(), &statuses_in(text));
                faults.text("bytes", self.bytes.as_ref(), Some(text));
                faults.same("end", self.end.as_ref(), end);
            }
            Seen::Failure(why) => {
                if self.failure.is_none() && self.wants_response() {
                    faults.0.push(format!("no response: {why}"));
                }
                faults.text("failure", self.failure.as_ref(), Some(why));
            }
            Seen::Answers(answers) => self.check_answers(&answers.counts, faults),
            Seen::Frames(facts) => self.check_frames(facts, faults),
            Seen::Admin(facts) => self.check_admin(facts, faults),
            Seen::Together(results) => {
                let statuses: Vec<u16> = results.iter().map(last_status).collect();
                faults.same("statuses", self.statuses.as_ref(), &statuses);
            }
            Seen::Nothing => {}
        }
    }

    fn wants_response(&self) -> bool {
        self.status.is_some() || self.body.is_some() || self.statuses.is_some() || !self.headers.is_empty()
    }

    fn check_response(&self, response: &ResponseFacts, faults: &mut Faults) {
        faults.same("status", self.status.as_ref(), &response.status);
        faults.same("reason", self.reason.as_ref(), &response.reason);
        faults.headers("response header", &self.headers, &response.headers);
        faults.names("response header names", self.header_names.as_ref(), &response.headers);
        faults.text("body", self.body.as_ref(), Some(&response.body));
        self.check_contains(&response.body, faults);
        faults.headers("response trailer", &self.trailers, &response.trailers);
        faults.same("interim", self.interim.as_ref(), &response.interim);
        faults.same("end", self.end.as_ref(), &response.end.clone().unwrap_or_default());
        faults.same("alpn", self.alpn.as_ref(), &response.alpn.clone().unwrap_or_default());
        faults.same("session", self.session.as_ref(), &response.session.clone().unwrap_or_default());
    }

    fn check_contains(&self, body: &str, faults: &mut Faults) {
        for text in &self.contains {
            if !body.contains(text.as_str()) {
                faults.0.push(format!("body: does not contain {text:?}"));
            }
        }
    }

    fn check_answers(&self, answers: &IndexMap<String, usize>, faults: &mut Faults) {
        let Some(wanted) = &self.answers else { return };
        for (answer, (least, most)) in wanted {
            let count = answers.get(answer).copied().unwrap_or(0);
            if count < *least || count > *most {
                faults
                    .0
                    .push(format!("answer {answer:?}: expected {least} to {most} times, came {count} times"));
            }
        }
        for (answer, count) in answers.iter().filter(|(answer, _)| !wanted.contains_key(*answer)) {
            faults.0.push(format!("answer {answer:?}: unexpected, came {count} times"));
        }
    }

    fn check_frames(&self, facts: &FrameFacts, faults: &mut Faults) {
        faults.same("goaway", self.goaway.as_ref(), &facts.goaway.clone().unwrap_or_default());
        faults.same("ended", self.ended.as_ref(), &facts.ended);
        faults.same("streams", self.streams.as_ref(), &facts.streams);
    }

    fn check_admin(&self, facts: &AdminFacts, faults: &mut Faults) {
        faults.same("status", self.status.as_ref(), &facts.status);
        faults.text("body", self.body.as_ref(), Some(&facts.body));
        self.check_contains(&facts.body, faults);
        if let Some(wanted) = self.headers.get("content-type") {
            faults.text("content-type", Some(wanted), Some(&facts.content_type));
        }
        for (pointer, wanted) in &self.picked {
            let found = facts.picked.get(pointer).unwrap_or(&Value::Null);
            if found != wanted {
                faults.0.push(format!("{pointer}: expected {wanted}, found {found}"));
            }
        }
    }

    fn check_upstreams(&self, outcome: &StepOutcome, faults: &mut Faults) {
        let requests: Vec<(&String, &RequestFacts)> =
            outcome.upstreams.iter().flat_map(|(name, seen)| seen.iter().map(move |r| (name, r))).collect();
        faults.same("attempts", self.attempts.as_ref(), &requests.len());
        if let Some(wanted) = &self.upstream {
            let mut names: Vec<&str> = requests.iter().map(|(name, _)| name.as_str()).collect();
            names.dedup();
            let found = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            faults.same("upstream", Some(wanted), &found);
        }
        if let Some(saw) = &self.saw {
            match requests.last() {
                Some((_, request)) => saw.check(request, faults),
                None => faults.0.push("no upstream saw a request".to_owned()),
            }
        }
    }
}

impl SawExpect {
    fn check(&self, request: &RequestFacts, faults: &mut Faults) {
        faults.same("upstream saw protocol", self.protocol.as_ref(), &request.protocol);
        faults.same("upstream saw method", self.method.as_ref(), &request.method);
        faults.text("upstream saw target", self.target.as_ref(), Some(&request.target));
        faults.same(
            "upstream saw authority",
            self.authority.as_ref(),
            &request.authority.clone().unwrap_or_default(),
        );
        faults.same("upstream saw scheme", self.scheme.as_ref(), &request.scheme.clone().unwrap_or_default());
        faults.headers("upstream saw header", &self.headers, &request.headers);
        faults.names("upstream saw header names", self.header_names.as_ref(), &request.headers);
        faults.text("upstream saw body", self.body.as_ref(), Some(&request.body));
        faults.headers("upstream saw trailer", &self.trailers, &request.trailers);
        faults.same("upstream saw incomplete", self.incomplete.as_ref(), &request.incomplete);
        faults.text("upstream saw sni", self.sni.as_ref(), request.sni.as_deref());
        faults.text("upstream saw alpn", self.alpn.as_ref(), request.alpn.as_deref());
    }
}

/// The statuses of the HTTP/1 responses in a text.
fn statuses_in(text: &str) -> Vec<u16> {
    let heads = text.split("HTTP/1.").skip(1);
    heads.filter_map(|head| head.get(2..5)?.parse().ok()).collect()
}

/// The status of the last response; 0 when there is none.
fn last_status(seen: &Seen) -> u16 {
    match seen {
        Seen::Responses(responses) => responses.last().map_or(0, |r| r.status),
        Seen::Admin(facts) => facts.status,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Answers;

    fn step(response: ResponseFacts) -> StepOutcome {
        StepOutcome {
            step: String::new(),
            differs: None,
            client: Seen::Responses(vec![response]),
            upstreams: IndexMap::new(),
        }
    }

    fn expect(yaml: &str) -> Expect {
        serde_saphyr::from_str(yaml).unwrap()
    }

    #[test]
    fn each_expectation_can_fail() {
        let response = ResponseFacts {
            status: 200,
            headers: vec![("a".into(), "1".into()), ("a".into(), "2".into())],
            body: "hello".into(),
            ..ResponseFacts::default()
        };
        let passes = "{status: 200, headers: {a: ['1', '2'], b: null}, body: {contains: ell}, upstream: none, attempts: 0}";
        assert_eq!(expect(passes).check(&step(response.clone())), Vec::<String>::new());
        for fails in [
            "{status: 201}",
            "{headers: {a: '1'}}",
            "{headers: {a: null}}",
            "{headers: {b: x}}",
            "{headers: {b: {present: true}}}",
            "{body: hell}",
            "{body: {matches: '^ello'}}",
            "{contains: [bye]}",
            "{upstream: one}",
            "{attempts: 1}",
            "{saw: {method: GET}}",
            "{failure: {present: true}}",
            "{header_names: [a]}",
        ] {
            assert_eq!(expect(fails).check(&step(response.clone())).len(), 1, "{fails}");
        }
    }

    #[test]
    fn shares_of_repeated_answers_have_bounds() {
        let outcome = StepOutcome {
            client: Seen::Answers(Answers {
                counts: IndexMap::from([("200 a".to_owned(), 7), ("200 b".to_owned(), 3)]),
                ..Answers::default()
            }),
            ..step(ResponseFacts::default())
        };
        assert!(expect("{answers: {200 a: [5, 8], 200 b: [2, 5]}}").check(&outcome).is_empty());
        assert_eq!(expect("{answers: {200 a: [8, 9], 200 b: [2, 5]}}").check(&outcome).len(), 1);
        assert_eq!(expect("{answers: {200 a: [5, 8]}}").check(&outcome).len(), 1);
    }
}
