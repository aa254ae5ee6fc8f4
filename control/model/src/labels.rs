//! Label maps and selection by them.

use std::collections::BTreeMap;

/// Label names and values, in order.
pub type Labels = BTreeMap<String, String>;

/// Whether every label of the selector is on the workload. An empty selector selects everything.
pub fn selects(selector: &Labels, labels: &Labels) -> bool {
    selector.iter().all(|(name, value)| labels.get(name) == Some(value))
}

#[cfg(test)]
mod tests {
    use super::{Labels, selects};

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn all_labels_of_the_selector_must_be_there() {
        let workload = labels(&[("app", "reviews"), ("version", "v1")]);
        assert!(selects(&labels(&[("app", "reviews")]), &workload));
        assert!(selects(&Labels::new(), &workload));
        assert!(!selects(&labels(&[("app", "reviews"), ("version", "v2")]), &workload));
        assert!(!selects(&labels(&[("tier", "web")]), &workload));
    }
}
