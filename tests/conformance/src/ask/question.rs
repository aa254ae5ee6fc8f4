//! The file of a question, and the variants that it stands for.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, anyhow, ensure};
use indexmap::IndexMap;
use serde::Deserialize;
use serde_json::Value;

use super::change::set;
use crate::scenario::Scenario;
use crate::shorthand;

/// What is asked: the fields of a scenario, and these.
#[derive(Debug, Deserialize)]
struct Asked {
    /// Changes, one after the other.
    ask: Vec<Ask>,
    /// Texts of differences that are known, each with the reason why they stay.
    #[serde(default)]
    except: IndexMap<String, String>,
    /// The scenario.
    #[serde(flatten)]
    scenario: Value,
}

/// Changes of one place, or of several at once.
#[derive(Debug, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Ask {
    /// Each of these values at one place.
    Values {
        /// The place: with a slash in front it is in the bootstrap that the scenario stands for, without one in the scenario.
        at: String,
        /// What is put there in turn; `null` removes what is there.
        values: Vec<Value>,
    },
    /// Several places at once, for each variant.
    Each {
        /// Values by place.
        each: Vec<IndexMap<String, Value>>,
    },
}

/// A question that was read.
pub struct Question {
    /// What it is called in the output.
    pub name: String,
    asked: Asked,
    used: Mutex<BTreeSet<String>>,
}

/// The scenario with one of the changes.
pub struct Variant {
    /// The change.
    pub title: String,
    /// The scenario.
    pub scenario: Scenario,
}

impl Question {
    /// Reads the file at `path`.
    pub fn read(name: &str, path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let asked = serde_saphyr::from_str(&text).map_err(|error| anyhow!("{}: {error}", path.display()))?;
        Ok(Self { name: name.to_owned(), asked, used: Mutex::default() })
    }

    /// Whether anything is sent where both accept.
    pub fn sends(&self) -> bool {
        self.asked.scenario.get("steps").is_some()
    }

    /// Every variant, the scenario as it is written first.
    pub fn variants(&self) -> Result<Vec<Variant>> {
        let mut found = vec![self.variant("as it is".to_owned(), &[])?];
        for ask in &self.asked.ask {
            match ask {
                Ask::Values { at, values } => {
                    for value in values {
                        found.push(self.variant(format!("{at} = {value}"), &[(at, value)])?);
                    }
                }
                Ask::Each { each } => {
                    for changes in each {
                        let title: Vec<String> =
                            changes.iter().map(|(at, value)| format!("{at} = {value}")).collect();
                        let changes: Vec<(&String, &Value)> = changes.iter().collect();
                        found.push(self.variant(title.join(", "), &changes)?);
                    }
                }
            }
        }
        Ok(found)
    }

    fn variant(&self, title: String, changes: &[(&String, &Value)]) -> Result<Variant> {
        let scenario = self.changed(changes).with_context(|| format!("{}: {title}", self.name))?;
        Ok(Variant { title, scenario })
    }

    fn changed(&self, changes: &[(&String, &Value)]) -> Result<Scenario> {
        let mut document = self.asked.scenario.clone();
        for (at, value) in changes.iter().filter(|(at, _)| !at.starts_with('/')) {
            set(&mut document, at, value)?;
        }
        let mut scenario: Scenario = serde_json::from_value(document)?;
        scenario.name.clone_from(&self.name);
        ensure!(scenario.validate.is_none(), "`validate` is asked anyway");
        let mut whole = None;
        for (at, value) in changes {
            if let Some(place) = at.strip_prefix('/') {
                set(whole.get_or_insert_with(|| shorthand::bootstrap(&scenario)), place, value)?;
            }
        }
        if let Some(whole) = whole {
            scenario.http = None;
            scenario.listeners.clear();
            scenario.bootstrap_file = Some("config.json".to_owned());
            scenario.bootstrap_text = Some(serde_json::to_string_pretty(&whole)?);
        }
        for step in &scenario.steps {
            step.check()?;
        }
        Ok(scenario)
    }

    /// Whether each of these differences is a known one.
    pub fn excuses(&self, lines: &[String]) -> bool {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = true;
        for line in lines {
            match self.asked.except.keys().find(|text| line.contains(text.as_str())) {
                Some(text) => _ = used.insert(text.clone()),
                None => all = false,
            }
        }
        all
    }

    /// The texts of known differences that did not come.
    pub fn unused_excuses(&self) -> Vec<String> {
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        self.asked.except.keys().filter(|text| !used.contains(*text)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use dhow_testkit::TempDir;

    use super::*;

    const TEXT: &str = "
about: x
upstreams: { one: {} }
http: { routes: [{ match: { prefix: / }, route: { cluster: one } }] }
steps: [{ request: GET / }]
except: { 'known': because }
ask:
  - { at: /static_resources/clusters/0/connect_timeout, values: [1s, null] }
  - each: [{ http/hcm/server_name: me, steps/0/request: GET /x }]
";

    fn question() -> Question {
        let dir = TempDir::new("question").unwrap();
        let path = dir.write("q.yaml", TEXT).unwrap();
        Question::read("q", &path).unwrap()
    }

    #[test]
    fn each_value_makes_a_variant_of_the_bootstrap_or_of_the_scenario() {
        let variants = question().variants().unwrap();
        let titles: Vec<&str> = variants.iter().map(|variant| variant.title.as_str()).collect();
        assert_eq!(
            titles,
            [
                "as it is",
                "/static_resources/clusters/0/connect_timeout = \"1s\"",
                "/static_resources/clusters/0/connect_timeout = null",
                "http/hcm/server_name = \"me\", steps/0/request = \"GET /x\"",
            ]
        );
        let text = |at: usize| variants[at].scenario.bootstrap_text.clone().unwrap_or_default();
        assert!(text(0).is_empty() && text(1).contains("\"connect_timeout\": \"1s\""));
        assert!(!text(2).contains("connect_timeout"));
        assert_eq!(variants[3].scenario.http.as_ref().unwrap().hcm["server_name"], "me");
        assert_eq!(variants[3].scenario.steps[0].title(), "GET /x");
    }

    #[test]
    fn known_differences_that_do_not_come_are_told() {
        let question = question();
        assert_eq!(question.unused_excuses(), ["known"]);
        assert!(!question.excuses(&["new".to_owned(), "it is known".to_owned()]));
        assert_eq!(question.unused_excuses(), Vec::<String>::new());
    }
}
