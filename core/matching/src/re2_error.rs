//! What RE2 says about expressions that are none, from what the `regex` crate says.

/// The text of an error of the `regex` crate in RE2's words. It shows the expression with marks below the part at fault.
pub(crate) fn in_words_of_re2(error: &regex::Error) -> String {
    let text = error.to_string();
    let mut lines = text.lines();
    let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
    let (Some(_), Some(shown), Some(marks)) = (lines.next(), lines.next(), lines.next()) else {
        return reason.to_owned();
    };
    let expression = shown.get(4..).unwrap_or_default();
    let start = marks.find('^').map_or(0, |at| at.saturating_sub(4));
    let from = |at: usize| expression.char_indices().nth(at).map_or("", |(at, _)| &expression[at..]);
    let marked: String = from(start).chars().take(marks.matches('^').count()).collect();
    match reason {
        "unclosed group" => format!("missing ): {expression}"),
        "unopened group" => format!("unexpected ): {expression}"),
        "unclosed character class" => format!("missing ]: {}", from(start)),
        "repetition operator missing expression" => {
            let operator: String = from(start).chars().take(1).collect();
            format!("no argument for repetition operator: {operator}")
        }
        "incomplete escape sequence, reached end of pattern prematurely" => "trailing \\".to_owned(),
        "unrecognized escape sequence" => format!("invalid escape sequence: {marked}"),
        _ if reason.contains("capture group name") => {
            let at = expression.rfind("(?P<").unwrap_or_default();
            format!("invalid named capture group: {}", &expression[at..])
        }
        _ if reason.starts_with("invalid character class range") => {
            format!("invalid character class range: {marked}")
        }
        _ if reason.starts_with("invalid repetition count range") => {
            format!("invalid repetition size: {marked}")
        }
        _ => reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::in_words_of_re2;

    #[test]
    fn faults_are_named_with_what_is_at_fault() {
        let table = [
            ("a(b", "missing ): a(b"),
            ("a)b", "unexpected ): a)b"),
            ("x[ab", "missing ]: [ab"),
            ("*a", "no argument for repetition operator: *"),
            ("a|+", "no argument for repetition operator: +"),
            ("ab{2,1}", "invalid repetition size: {2,1}"),
            ("x[z-a]", "invalid character class range: z-a"),
            ("a(?P<n", "invalid named capture group: (?P<n"),
            ("a\\", "trailing \\"),
            ("é\\y", "invalid escape sequence: \\y"),
        ];
        for (expression, words) in table {
            let error = regex::Regex::new(expression).unwrap_err();
            assert_eq!(in_words_of_re2(&error), words, "{error}");
        }
    }
}
