//! From container images to commands of this machine.

use std::str::FromStr;

/// Placeholder in commands for the program that `dhow up` itself is.
const SELF: &str = "{dhow}";

/// One `--image NAME=COMMAND`.
///
/// `NAME` is the end of an image's path, from a slash on, with or without a tag: `nginx`, `library/nginx` and `nginx:1.29` all
/// stand for `docker.io/library/nginx:1.29`. In `COMMAND`, `{bind}` stands for the address and port to listen on, `{address}` and
/// `{port}` for either of them, `{pod}` for the name of the pod.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ImageRule {
    name: String,
    command: Vec<String>,
}

impl FromStr for ImageRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, command) = text.split_once('=').ok_or("must be NAME=COMMAND")?;
        let command = words(command)?;
        if name.is_empty() || command.is_empty() {
            return Err("must be NAME=COMMAND".to_owned());
        }
        Ok(Self { name: name.to_owned(), command })
    }
}

/// What each image runs.
#[derive(Clone, Debug)]
pub struct ImageMap {
    rules: Vec<ImageRule>,
}

impl ImageMap {
    /// The samples' images, with `added` rules before them, the last of which comes first.
    pub fn new(added: &[ImageRule]) -> Self {
        let bookinfo = [
            ("productpage-v1", "productpage", "v1"),
            ("details-v1", "details", "v1"),
            ("ratings-v1", "ratings", "v1"),
            ("reviews-v1", "reviews", "v1"),
            ("reviews-v2", "reviews", "v2"),
            ("reviews-v3", "reviews", "v3"),
        ];
        let samples = bookinfo.map(|(image, role, version)| ImageRule {
            name: format!("examples-bookinfo-{image}"),
            command: [SELF, "sample", "bookinfo", role, "--version", version, "--bind", "{bind}"]
                .map(str::to_owned)
                .into(),
        });
        Self { rules: added.iter().rev().cloned().chain(samples).collect() }
    }

    /// The command for `image`, its placeholders still in it.
    pub(crate) fn command(&self, image: &str) -> Option<&[String]> {
        self.rules.iter().find(|rule| names(&rule.name, image)).map(|rule| rule.command.as_slice())
    }
}

/// An image's path without its tag and digest.
fn untagged(image: &str) -> &str {
    let image = image.split_once('@').map_or(image, |(path, _)| path);
    match image.rsplit_once(':') {
        // A colon before a slash belongs to the registry's port.
        Some((path, tag)) if !tag.contains('/') => path,
        _ => image,
    }
}

/// The last component of an image's path, without tag.
pub(crate) fn short_name(image: &str) -> &str {
    let path = untagged(image);
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

/// Whether the rule's `name` stands for `image`.
fn names(name: &str, image: &str) -> bool {
    let tagged = untagged(name) != name;
    let image = if tagged { image.split_once('@').map_or(image, |(path, _)| path) } else { untagged(image) };
    image.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('/'))
}

/// What the placeholders of a command stand for.
#[derive(Clone, Debug)]
pub(crate) struct Placeholders<'a> {
    pub dhow: &'a str,
    pub address: &'a str,
    /// The container's first port; without one, `{bind}` and `{port}` cannot be used.
    pub port: Option<u16>,
    pub pod: &'a str,
}

/// Fills in the placeholders of `command`; other text in braces stays.
pub(crate) fn fill(command: &[String], with: &Placeholders<'_>) -> Result<Vec<String>, String> {
    let needs_port = command.iter().any(|word| word.contains("{bind}") || word.contains("{port}"));
    let port = match with.port {
        None if needs_port => {
            return Err(
                "its command needs a port, but neither the container nor a Service names one".to_owned()
            );
        }
        port => port.map(|port| port.to_string()).unwrap_or_default(),
    };
    let bind = format!("{}:{port}", with.address);
    let fill = |word: &String| {
        word.replace(SELF, with.dhow)
            .replace("{bind}", &bind)
            .replace("{address}", with.address)
            .replace("{port}", &port)
            .replace("{pod}", with.pod)
    };
    Ok(command.iter().map(fill).collect())
}

/// Splits a command into words as a shell does: blanks, single and double quotes, backslashes; nothing is expanded.
fn words(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            ' ' | '\t' | '\n' => words.extend(word.take()),
            '\'' | '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match characters.next() {
                        None => return Err(format!("a {character} is not closed in {text:?}")),
                        Some(end) if end == character => break,
                        Some('\\') if character == '"' => word.extend(characters.next()),
                        Some(inside) => word.push(inside),
                    }
                }
            }
            '\\' => word.get_or_insert_default().extend(characters.next()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_end_of_the_path_with_or_without_tag() {
        for name in ["nginx", "library/nginx", "docker.io/library/nginx", "nginx:1.29", "library/nginx:1.29"]
        {
            assert!(names(name, "docker.io/library/nginx:1.29"), "{name}");
        }
        for name in ["nginx:1.28", "inx", "other/nginx", "library"] {
            assert!(!names(name, "docker.io/library/nginx:1.29"), "{name}");
        }
        assert!(names("app", "localhost:5000/app@sha256:00"));
        assert_eq!(short_name("localhost:5000/team/app:1"), "app");
    }

    #[test]
    fn an_added_rule_comes_before_the_samples_and_before_earlier_ones() {
        let image = "docker.io/istio/examples-bookinfo-ratings-v1:1.20.3";
        assert_eq!(ImageMap::new(&[]).command(image).unwrap()[3], "ratings");
        let rules = ["examples-bookinfo-ratings-v1=one", "examples-bookinfo-ratings-v1=two"]
            .map(|r| r.parse().unwrap());
        assert_eq!(ImageMap::new(&rules).command(image).unwrap(), ["two"]);
        assert!(ImageMap::new(&rules).command("redis").is_none());
    }

    #[test]
    fn commands_are_split_like_a_shell_would() {
        let rule: ImageRule = r#"web=serve 'a b' "c \"d\"" e\ f '' --x={bind}"#.parse().unwrap();
        assert_eq!(rule.command, ["serve", "a b", "c \"d\"", "e f", "", "--x={bind}"]);
        assert!("web=serve 'a".parse::<ImageRule>().is_err());
        assert!("web".parse::<ImageRule>().is_err());
        assert!("=a".parse::<ImageRule>().is_err());
        assert!("web= ".parse::<ImageRule>().is_err());
    }

    #[test]
    fn placeholders_are_filled_in() {
        let command = ["{dhow}", "--at={address}:{port}", "{bind}", "{pod}", "{json}"].map(str::to_owned);
        let with = Placeholders { dhow: "/bin/dhow", address: "127.65.0.2", port: Some(80), pod: "a-1" };
        assert_eq!(
            fill(&command, &with).unwrap(),
            ["/bin/dhow", "--at=127.65.0.2:80", "127.65.0.2:80", "a-1", "{json}"]
        );
        assert!(fill(&command, &Placeholders { port: None, ..with }).is_err());
    }
}
