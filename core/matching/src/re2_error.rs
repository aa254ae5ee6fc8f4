//! What RE2 says about expressions whose fault the `regex` crate finds.

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
    let marked: String = expression.chars().skip(start).take(marks.matches('^').count()).collect();
    let classes = ["invalid character class range", "Unicode property not found"];
    if classes.iter().any(|start| reason.starts_with(start)) {
        return format!("invalid character class range: {marked}");
    }
    reason.to_owned()
}

#[cfg(test)]
mod tests {
    use super::in_words_of_re2;

    #[test]
    fn faults_are_named_with_what_is_at_fault() {
        let table = [
            ("x[z-a]", "invalid character class range: z-a"),
            (r"é\p{Foo}", r"invalid character class range: \p{Foo}"),
        ];
        for (expression, words) in table {
            let error = regex::Regex::new(expression).unwrap_err();
            assert_eq!(in_words_of_re2(&error), words, "{error}");
        }
    }
}
