//! What both proxies say in `--mode validate` to one configuration.
//!
//! Both have to accept it or both refuse it, and then with the same reason. Ours puts the path of the field in front of it. Envoy
//! puts the position in the file into it, and behind it the message or the file as a whole, with blanks that change from run to run.

use std::sync::LazyLock;

use anyhow::Result;
use regex::Regex;
use serde_json::Value;

use crate::environment::Environment;
use crate::target::Target;

/// What one proxy says: nothing when it accepts the configuration, otherwise the reason.
pub type Said = Option<String>;

/// What each of the two says to the configuration `value`, whose placeholders are resolved.
pub fn both(environment: &Environment, value: &Value, ours: &Target, envoy: &Target) -> Result<(Said, Said)> {
    let text = serde_json::to_string_pretty(value)?;
    let said = |target: &Target| -> Result<Said> {
        let (exit, log) = target.validate_text(environment, &text)?;
        Ok((exit != Some(0)).then(|| reason(&log)))
    };
    let (mine, theirs) = std::thread::scope(|scope| {
        let mine = scope.spawn(|| said(ours));
        let theirs = said(envoy);
        (mine.join(), theirs)
    });
    let mine = mine.map_err(|_| anyhow::anyhow!("the run of ours panicked"))?;
    Ok((mine?, theirs?))
}

/// What is not the same in what both said, if anything is not. A path in front of the reason of ours is no difference.
pub fn difference(mine: &Said, theirs: &Said) -> Option<String> {
    let what = match (mine, theirs) {
        (None, None) => return None,
        (Some(mine), Some(theirs)) if mine.contains(theirs.as_str()) => return None,
        (Some(_), Some(_)) => "reason",
        _ => "verdict",
    };
    let said = |said: &Said| said.as_deref().map_or("accepts".to_owned(), short);
    Some(format!("{what}\n    ours:  {}\n    envoy: {}", said(mine), said(theirs)))
}

/// Longest text that is shown.
const SHOWN: usize = 600;

/// The beginning of a text, on one line.
pub fn short(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(SHOWN).collect()
}

/// A literal pattern of this file. They are exercised by the tests below.
fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("the pattern is a literal of this file and compiles")
}

static INTRODUCTION: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"error initializing configuration '[^']*': "));
static NEXT_LINE: LazyLock<Regex> = LazyLock::new(|| pattern(r"\n\[\d{4}-\d\d-\d\d \d\d:"));
static POSITION: LazyLock<Regex> = LazyLock::new(|| pattern(r",? near \d+:\d+ \(offset \d+\)"));
static BLANKS: LazyLock<Regex> = LazyLock::new(|| pattern(r"\s+"));
static DUMP_BEFORE: LazyLock<Regex> = LazyLock::new(|| pattern(r"goo\.gle/debug\w* .*: (Proto constraint)"));
static DUMP_BEHIND: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"(?:(as proto \(.*\)): \{|: goo\.gle/debug|\. duplicate matcher is: ).*$"));
static KEY: LazyLock<Regex> = LazyLock::new(|| pattern(r#"\["[^"]*"\]"#));

/// The reason in what a proxy printed, without what belongs to the one run or the one program.
fn reason(log: &str) -> String {
    let Some(start) = INTRODUCTION.find(log) else { return BLANKS.replace_all(log.trim(), " ").into_owned() };
    let text = &log[start.end()..];
    let text = NEXT_LINE.find(text).map_or(text, |next| &text[..next.start()]);
    let text = BLANKS.replace_all(text.trim(), " ");
    // An entry of a map has a number there and its key here, and a step into a packed message is none here.
    let text = POSITION.replace_all(&text, "").replace(".<any>", "");
    let text = KEY.replace_all(&text, "[0]");
    let text = DUMP_BEFORE.replace(&text, "$1");
    DUMP_BEHIND.replace(&text, "$1").into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_blanks_and_dumps_are_no_part_of_the_reason() {
        let log = "[2026-11-22 00:36:30.279][1][critical][main] [source/server/config_validation/server.cc:76] \
                   error initializing configuration 'c.json': Unable to parse JSON as proto (INVALID_ARGUMENT: invalid JSON   in \
                   a.B @ x[0].y:  message C, near  16:25 (offset 286):  no  good): {\n  \"admin\": 1\n}\n[2026-11-22 00:36:31.000] x";
        let expected = "Unable to parse JSON as proto (INVALID_ARGUMENT: invalid JSON in a.B @ x[0].y: message C: no good)";
        assert_eq!(reason(log), expected);
        let log = "error initializing configuration 'c.json': goo.gle/debugstr  \na { b: 1 }\n: Proto constraint validation failed (A.B: c)\n";
        assert_eq!(reason(log), "Proto constraint validation failed (A.B: c)");
        let log = r#"error initializing configuration 'c.json': a.b["k"].c: Invalid: goo.gle/debugproto seconds: 1"#;
        assert_eq!(reason(log), "a.b[0].c: Invalid");
    }

    #[test]
    fn a_path_in_front_of_the_reason_is_no_difference() {
        let said = |text: &str| Some(text.to_owned());
        assert_eq!(difference(&said("a.b: no"), &said("no")), None);
        assert_eq!(difference(&None, &None), None);
        assert!(difference(&said("a.b: no"), &said("yes")).is_some());
        assert!(difference(&None, &said("no")).is_some());
    }
}
