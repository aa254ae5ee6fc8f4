//! `exportTo`: which namespaces see an object.

use std::collections::BTreeSet;

/// The namespaces that see an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Visibility {
    /// Everyone (`*`).
    Public,
    /// These namespaces only; `~` gives none at all.
    Namespaces(BTreeSet<String>),
}

impl Visibility {
    /// Reads an `exportTo` list of an object in `namespace`. An empty list takes the mesh's default, which is read the
    /// same way; an empty default means everyone.
    pub fn read(export_to: &[String], namespace: &str, mesh_default: &[String]) -> Self {
        let list = if export_to.is_empty() { mesh_default } else { export_to };
        if list.is_empty() || list.iter().any(|entry| entry == "*") {
            return Self::Public;
        }
        Self::Namespaces(
            list.iter()
                .filter(|entry| *entry != "~")
                .map(|entry| if entry == "." { namespace.to_owned() } else { entry.clone() })
                .collect(),
        )
    }

    /// Whether workloads of the namespace see the object.
    pub fn includes(&self, namespace: &str) -> bool {
        match self {
            Self::Public => true,
            Self::Namespaces(names) => names.contains(namespace),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Visibility;

    fn read(list: &[&str]) -> Visibility {
        let list: Vec<String> = list.iter().map(|entry| (*entry).to_owned()).collect();
        Visibility::read(&list, "prod", &[])
    }

    #[test]
    fn a_dot_is_the_namespace_of_the_object() {
        assert!(read(&["."]).includes("prod"));
        assert!(!read(&["."]).includes("test"));
        assert!(read(&["test", "."]).includes("test"));
    }

    #[test]
    fn a_tilde_hides_and_a_star_or_nothing_shows() {
        assert!(!read(&["~"]).includes("prod"));
        assert!(read(&["*"]).includes("test"));
        assert!(read(&[]).includes("test"));
        assert!(!Visibility::read(&[], "prod", &[".".to_owned()]).includes("test"));
    }
}
