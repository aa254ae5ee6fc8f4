//! Semantic validation: what the types alone cannot refuse. Each finding names the field and the reason.

mod destination_rule;
mod gateway;
mod kubernetes;
mod matching;
mod names;
mod service_entry;
mod traffic_policy;
mod virtual_service;
mod workload_entry;

use dhow_base::{ConfigError, ConfigWarning, FieldPath};

use crate::{Object, Spec};

/// What validation found in one object.
#[derive(Debug, Default)]
pub struct Findings {
    /// Reasons to refuse the object.
    pub errors: Vec<ConfigError>,
    /// What will not have the effect that the author may expect.
    pub warnings: Vec<ConfigWarning>,
}

/// Validates one object by itself, without looking at others.
pub fn validate(object: &Object) -> Findings {
    let mut checker = Checker { path: FieldPath::from("spec"), findings: Findings::default() };
    names::metadata(&mut checker, &object.meta);
    match &object.spec {
        Spec::VirtualService(spec) => virtual_service::check(&mut checker, spec),
        Spec::DestinationRule(spec) => destination_rule::check(&mut checker, spec),
        Spec::Gateway(spec) => gateway::check(&mut checker, spec),
        Spec::ServiceEntry(spec) => service_entry::check(&mut checker, spec),
        Spec::WorkloadEntry(spec) => workload_entry::check(&mut checker, spec, false),
        Spec::Service(spec) => kubernetes::check_service(&mut checker, spec),
        Spec::EndpointSlice(spec) => kubernetes::check_endpoint_slice(&mut checker, spec),
        Spec::Pod(_) | Spec::ServiceAccount(_) | Spec::Node(_) => {}
    }
    checker.findings
}

/// Collects findings below a path that follows the descent into the object.
struct Checker {
    path: FieldPath,
    findings: Findings,
}

impl Checker {
    /// Descends into a field.
    fn field<T>(&mut self, name: &str, body: impl FnOnce(&mut Self) -> T) -> T {
        let longer = self.path.field(name);
        self.below(longer, body)
    }

    /// Descends into each item of a list.
    fn each<T>(&mut self, name: &str, items: &[T], mut body: impl FnMut(&mut Self, &T)) {
        for (index, item) in items.iter().enumerate() {
            let longer = self.path.field(name).index(index);
            self.below(longer, |checker| body(checker, item));
        }
    }

    /// Descends into a map's entry.
    fn key<T>(&mut self, name: &str, key: &str, body: impl FnOnce(&mut Self) -> T) -> T {
        let longer = self.path.field(name).key(key);
        self.below(longer, body)
    }

    fn below<T>(&mut self, longer: FieldPath, body: impl FnOnce(&mut Self) -> T) -> T {
        let shorter = std::mem::replace(&mut self.path, longer);
        let outcome = body(self);
        self.path = shorter;
        outcome
    }

    /// Refuses the object because of the present field.
    fn refuse(&mut self, reason: impl Into<String>) {
        self.findings.errors.push(ConfigError::new(self.path.clone(), reason));
    }

    /// Refuses the object because of a field below the present one.
    fn refuse_at(&mut self, name: &str, reason: impl Into<String>) {
        self.findings.errors.push(ConfigError::new(self.path.field(name), reason));
    }

    /// Warns about a field below the present one.
    fn warn_at(&mut self, name: &str, message: impl Into<String>) {
        self.findings.warnings.push(ConfigWarning::new(self.path.field(name), message));
    }

    /// Warns that a field below the present one is not honoured yet, when it is set.
    fn not_honoured(&mut self, name: &str, set: bool) {
        if set {
            self.warn_at(name, "is not honoured yet and has no effect");
        }
    }

    /// Refuses a port that is out of range.
    fn port(&mut self, name: &str, number: u32) {
        if !(1..=65535).contains(&number) {
            self.refuse_at(name, format!("port {number} must be between 1 and 65535"));
        }
    }
}

#[cfg(test)]
mod tests;
