//! URI templates: paths matched by segments with named variables, and rewritten with them.

use regex::bytes::Regex;

/// Variables of one template.
const MAX_VARIABLES: usize = 5;
/// Bytes of a variable's name.
const MAX_NAME: usize = 16;
/// What stands for one segment, as a character class: RFC 3986's `pchar`.
const SEGMENT: &str = "[a-zA-Z0-9\\-._~%!$&'()+,;:@=*]";
/// What stands for any number of segments.
const SEGMENTS: &str = "[a-zA-Z0-9\\-._~%!$&'()+,;:@=*/]*";

/// A compiled `envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig`: `/users/{id}/*/{rest=**}`.
#[derive(Clone, Debug)]
pub struct UriTemplate {
    regex: Regex,
    text: Box<str>,
    variables: Box<[Box<str>]>,
}

/// A compiled `envoy.extensions.path.rewrite.uri_template.v3.UriTemplateRewriteConfig`: `/v2/{rest}`.
#[derive(Clone, Debug)]
pub struct UriTemplateRewrite {
    pieces: Box<[Piece]>,
    text: Box<str>,
}

#[derive(Clone, Debug)]
enum Piece {
    Text(Box<[u8]>),
    Variable(Box<str>),
}

/// The template as an expression while it is read.
#[derive(Default)]
struct Reader {
    expression: String,
    variables: Vec<Box<str>>,
    after_segments: bool,
}

impl UriTemplate {
    /// Compiles a template.
    ///
    /// # Errors
    /// What is wrong with it, in Envoy's words.
    pub fn compile(template: &str) -> Result<Self, String> {
        let invalid = |what: &str| format!("path_match_policy.path_template {template} is invalid: {what}");
        let rest = template.strip_prefix('/').filter(|rest| rest.bytes().all(|b| b.is_ascii_graphic()));
        let Some(rest) = rest else { return Err(invalid(&format!("Invalid pattern: \"{template}\""))) };
        let mut reader = Reader { expression: r"\A".to_owned(), ..Reader::default() };
        let segments = split_segments(rest);
        for (at, segment) in segments.iter().enumerate() {
            reader.expression.push('/');
            // A slash at the end is one of the path's.
            if segment.is_empty() && at + 1 == segments.len() {
                break;
            }
            reader.segment(segment).map_err(|what| invalid(&what))?;
        }
        reader.expression.push_str(r"\z");
        let regex = Regex::new(&reader.expression).map_err(|error| invalid(&error.to_string()))?;
        Ok(Self { regex, text: template.into(), variables: reader.variables.into() })
    }

    /// Whether a path without query matches.
    pub fn is_match(&self, path: &[u8]) -> bool {
        self.regex.is_match(path)
    }
}

/// Splits at slashes outside of braces.
fn split_segments(text: &str) -> Vec<&str> {
    let (mut segments, mut start, mut inside) = (Vec::new(), 0, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'{' => inside = true,
            b'}' => inside = false,
            b'/' if !inside => {
                segments.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    segments.push(&text[start..]);
    segments
}

impl Reader {
    fn segment(&mut self, segment: &str) -> Result<(), String> {
        if matches!(segment, "*" | "**") {
            return self.glob(segment == "**", "Glob after text glob.");
        }
        let Some(open) = segment.find('{') else { return self.literal(segment, "Invalid literal") };
        let mixed = open > 0;
        let Some(close) = segment[open..].find('}').map(|at| open + at) else {
            return Err(format!("Unmatched variable bracket in mixed pattern: \"{segment}\""));
        };
        if mixed {
            let before = &segment[..open];
            if segment[open..close].contains('/') {
                let until = segment.find('/').unwrap_or(segment.len());
                return Err(format!("Invalid literal: \"{}\"", &segment[..until]));
            }
            self.literal(before, "Invalid prefix literal")?;
        }
        self.variable(&segment[open + 1..close])?;
        let after = &segment[close + 1..];
        if after.is_empty() { Ok(()) } else { self.literal(after, "Invalid suffix literal") }
    }

    fn literal(&mut self, text: &str, what: &str) -> Result<(), String> {
        if text.is_empty() || !text.bytes().all(is_literal) {
            return Err(format!("{what}: \"{text}\""));
        }
        self.expression.push_str(&regex::escape(text));
        Ok(())
    }

    fn glob(&mut self, many: bool, late: &str) -> Result<(), String> {
        if self.after_segments {
            return Err(late.to_owned());
        }
        self.after_segments = many;
        self.expression.push_str(if many { SEGMENTS } else { SEGMENT });
        if !many {
            self.expression.push('+');
        }
        Ok(())
    }

    /// `name` or `name=pattern`.
    fn variable(&mut self, text: &str) -> Result<(), String> {
        let (name, pattern) = text.split_once('=').map_or((text, None), |(name, p)| (name, Some(p)));
        if name.len() > MAX_NAME {
            return Err(format!(
                "Invalid variable name length (length of \"{name}\" should be at least 1 and no more than {MAX_NAME})"
            ));
        }
        let is_name = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            && name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic());
        if !is_name {
            return Err(format!("Invalid variable name: \"{name}\""));
        }
        if self.variables.iter().any(|other| **other == *name) {
            return Err(format!("Repeated variable name: \"{name}\""));
        }
        if self.variables.len() == MAX_VARIABLES {
            return Err(format!("Exceeded variable count limit ({MAX_VARIABLES})"));
        }
        self.variables.push(name.into());
        self.expression.push('(');
        match pattern {
            None => self.glob(false, "Implicit variable path glob after text glob.")?,
            Some("") => return Err("Empty variable match".to_owned()),
            Some(pattern) => {
                for (at, part) in pattern.split('/').enumerate() {
                    if at > 0 {
                        self.expression.push('/');
                    }
                    match part {
                        "*" | "**" => self.glob(part == "**", "Glob after text glob.")?,
                        _ if part.starts_with('*') => {
                            let rest = part.trim_start_matches('*');
                            return Err(format!("Invalid variable match: \"{rest}\""));
                        }
                        _ => self.literal(part, "Invalid literal")?,
                    }
                }
            }
        }
        self.expression.push(')');
        Ok(())
    }
}

fn is_literal(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()+,;:@=*".contains(&byte)
}

impl UriTemplateRewrite {
    /// Compiles the rewrite of paths that a template matches.
    ///
    /// # Errors
    /// What is wrong with it, in Envoy's words.
    pub fn compile(rewrite: &str, template: &UriTemplate) -> Result<Self, String> {
        let Some(pieces) = rewrite_pieces(rewrite) else {
            return Err(format!("path_rewrite_policy.path_template_rewrite {rewrite} is invalid"));
        };
        let is_known = |piece: &Piece| match piece {
            Piece::Variable(name) => template.variables.contains(name),
            Piece::Text(_) => true,
        };
        if !pieces.iter().all(is_known) {
            return Err(format!(
                "mismatch between variables in path_match_policy {} and path_rewrite_policy {rewrite}",
                template.text
            ));
        }
        Ok(Self { pieces: pieces.into(), text: rewrite.into() })
    }

    /// The rewrite as it was configured.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Appends the rewritten path; false, and nothing appended, when the template does not match the path.
    pub fn append(&self, template: &UriTemplate, path: &[u8], out: &mut Vec<u8>) -> bool {
        let Some(found) = template.regex.captures(path) else { return false };
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text),
                Piece::Variable(name) => {
                    let at = template.variables.iter().position(|other| other == name);
                    let value = at.and_then(|at| found.get(at + 1));
                    out.extend_from_slice(value.map_or(b"", |value| value.as_bytes()));
                }
            }
        }
        true
    }
}

fn rewrite_pieces(rewrite: &str) -> Option<Vec<Piece>> {
    if !rewrite.starts_with('/') || rewrite.contains("//") {
        return None;
    }
    let mut pieces = Vec::new();
    let mut rest = rewrite;
    while let Some(open) = rest.find('{') {
        let (text, variable) = rest.split_at(open);
        let close = variable.find('}')?;
        push_text(text, &mut pieces)?;
        pieces.push(Piece::Variable(variable[1..close].into()));
        rest = &variable[close + 1..];
    }
    push_text(rest, &mut pieces)?;
    Some(pieces)
}

fn push_text(text: &str, pieces: &mut Vec<Piece>) -> Option<()> {
    if !text.bytes().all(|b| is_literal(b) || b == b'/') {
        return None;
    }
    if !text.is_empty() {
        pieces.push(Piece::Text(text.as_bytes().into()));
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(template: &str, rewrite: &str, path: &str) -> Option<String> {
        let template = UriTemplate::compile(template).unwrap();
        let rewrite = UriTemplateRewrite::compile(rewrite, &template).unwrap();
        let mut out = Vec::new();
        rewrite.append(&template, path.as_bytes(), &mut out).then(|| String::from_utf8(out).unwrap())
    }

    #[test]
    fn segments_match_and_variables_are_carried_over() {
        for (template, rewrite, path, expected) in [
            ("/a/{b}", "/x/{b}", "/a/1", Some("/x/1")),
            ("/a/{b}", "/x/{b}", "/a/1/2", None),
            ("/a/{b}", "/x/{b}", "/a/", None),
            ("/a/*/{c}", "/{c}", "/a/1/2", Some("/2")),
            ("/{rest=**}/end", "/{rest}", "/a/b/end", Some("/a/b")),
            ("/{pair=*/b}/c", "/{pair}", "/a/b/c", Some("/a/b")),
            ("/a/**", "/x", "/a/", Some("/x")),
            ("/a/**", "/x", "/a", None),
            ("/v{n}.html", "/{n}{n}", "/v12.html", Some("/1212")),
            ("/a/", "/x", "/a/", Some("/x")),
            ("/a.b", "/x", "/axb", None),
        ] {
            assert_eq!(rewritten(template, rewrite, path).as_deref(), expected, "{template} {path}");
        }
    }

    #[test]
    fn mistakes_are_told_in_envoys_words() {
        for (template, reason) in [
            ("a", "Invalid pattern: \"a\""),
            ("/a b", "Invalid pattern: \"/a b\""),
            ("/a//b", "Invalid literal: \"\""),
            ("/a/?b", "Invalid literal: \"?b\""),
            ("/{b}/{b}", "Repeated variable name: \"b\""),
            ("/{1b}", "Invalid variable name: \"1b\""),
            ("/{a}/{b}/{c}/{d}/{e}/{f}", "Exceeded variable count limit (5)"),
            ("/{b=**}/{c}", "Implicit variable path glob after text glob."),
            ("/**/*", "Glob after text glob."),
            ("/{b=}", "Empty variable match"),
            ("/{b", "Unmatched variable bracket in mixed pattern: \"{b\""),
            ("/{a}-{b}", "Invalid suffix literal: \"-{b}\""),
            ("/{a=*b}", "Invalid variable match: \"b\""),
            ("/x-{a=b/*}", "Invalid literal: \"x-{a=b\""),
        ] {
            let expected = format!("path_match_policy.path_template {template} is invalid: {reason}");
            assert_eq!(UriTemplate::compile(template).unwrap_err(), expected);
        }
        let template = UriTemplate::compile("/a/{b}").unwrap();
        for rewrite in ["x", "/{b}//c", "/{b", "/}", "/{b}?q"] {
            let reason = UriTemplateRewrite::compile(rewrite, &template).unwrap_err();
            assert_eq!(reason, format!("path_rewrite_policy.path_template_rewrite {rewrite} is invalid"));
        }
        let reason = UriTemplateRewrite::compile("/{c}", &template).unwrap_err();
        assert_eq!(
            reason,
            "mismatch between variables in path_match_policy /a/{b} and path_rewrite_policy /{c}"
        );
    }
}
