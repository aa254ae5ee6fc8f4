//! Goes through the messages, one field after the other.

use std::collections::{HashSet, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, anyhow};
use dhow_proto::{FieldType, Kind, MessageType};
use serde_json::Value as Json;

use super::mend::mend;
use super::place::{Place, Step, map_value};
use super::probes::{Probes, Sample};
use super::verdicts::Oracle;
use super::{Entry, FieldEntry, Status, sample};
use crate::{Validator, Verdict};

/// A message at a place of a bootstrap that is accepted.
struct Frame {
    message: MessageType,
    place: Place,
    bootstrap: Json,
}

/// What came of one field, and the bootstrap with the field set, when that is accepted.
struct Probed {
    entry: FieldEntry,
    accepted: Option<Json>,
}

pub(super) struct Walk<'a> {
    pub(super) validator: &'a Validator,
    pub(super) probes: &'a Probes,
    pub(super) root: MessageType,
    pub(super) verbose: bool,
    /// Asked about every value as well.
    pub(super) oracle: Option<&'a Oracle<'a>>,
}

impl Walk<'_> {
    pub(super) fn run(&self) -> Result<Vec<Entry>> {
        let mut seen = HashSet::new();
        let mut frames: VecDeque<Frame> = VecDeque::new();
        for frame in &self.probes.frames {
            let message =
                MessageType::find(&frame.message).ok_or_else(|| anyhow!("no type {}", frame.message))?;
            let place = Place::parse(&frame.at).ok_or_else(|| anyhow!("no place: {}", frame.at))?;
            let mut bootstrap = self
                .probes
                .bootstraps
                .get(&frame.bootstrap)
                .with_context(|| frame.bootstrap.clone())?
                .clone();
            merge(&mut bootstrap, &frame.around);
            let slot =
                place.get_or_make(&mut bootstrap).ok_or_else(|| anyhow!("no place for {}", frame.at))?;
            merge(slot, &frame.value);
            if frame.typed {
                merge(
                    slot,
                    &serde_json::json!({ "@type": format!("type.googleapis.com/{}", frame.message) }),
                );
            }
            let mended = mend(self.root, &mut bootstrap).err();
            let verdict = self.validator.text("frame", &bootstrap.to_string())?;
            if let Some(error) = mended.or(verdict.error) {
                // A message that is not taken at all has no fields to tell about.
                if self.verbose {
                    println!("{}: {error}", frame.message);
                }
                continue;
            }
            frames.push_back(Frame { message, place, bootstrap });
        }
        let mut entries = Vec::new();
        while let Some(frame) = frames.pop_front() {
            if !seen.insert(frame.message.full_name()) {
                continue;
            }
            let probed = self.message(&frame)?;
            let mut fields = Vec::new();
            for (field, probed) in frame.message.fields().zip(probed) {
                if let Some(bootstrap) = probed.accepted {
                    frames.extend(inner(field, &frame.place, bootstrap));
                }
                fields.push(probed.entry);
            }
            entries.push(Entry { message: frame.message.full_name().to_owned(), fields });
        }
        entries.sort_by(|left, right| left.message.cmp(&right.message));
        Ok(entries)
    }

    /// Probes every field of a message, several at a time.
    fn message(&self, frame: &Frame) -> Result<Vec<Probed>> {
        let fields: Vec<FieldType> = frame.message.fields().collect();
        let next = AtomicUsize::new(0);
        let results: Mutex<Vec<Option<Result<Probed>>>> = Mutex::new(fields.iter().map(|_| None).collect());
        let threads = std::thread::available_parallelism().map_or(2, usize::from);
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let (fields, next, results) = (&fields, &next, &results);
                scope.spawn(move || {
                    while let Some(field) = fields.get(next.fetch_add(1, Ordering::Relaxed)).copied() {
                        let probed = self.field(frame, field, &format!("probe-{thread}"));
                        let at = fields.iter().position(|other| *other == field);
                        if let (Some(at), Ok(mut results)) = (at, results.lock()) {
                            results[at] = Some(probed);
                        }
                    }
                });
            }
        });
        let results = results.into_inner().map_err(|_| anyhow!("a probe panicked"))?;
        results.into_iter().map(|probed| probed.unwrap_or_else(|| Err(anyhow!("a probe got lost")))).collect()
    }

    fn field(&self, frame: &Frame, field: FieldType, name: &str) -> Result<Probed> {
        let label = format!("{}.{}", frame.message.full_name(), field.name());
        let listed = self.probes.samples.get(&label);
        let value = listed.and_then(|listed| listed.value.clone()).unwrap_or_else(|| sample::of_field(field));
        let (status, accepted) = self.value(frame, field, value, listed, name)?;
        let mut entry = FieldEntry {
            name: field.name().to_owned(),
            deprecated: field.is_deprecated(),
            status,
            refused_values: Vec::new(),
        };
        if self.verbose
            && let Status::Checked(reason) = &entry.status
        {
            println!("{label}: {reason}");
        }
        if accepted.is_some() && listed.is_none_or(|listed| listed.value.is_none()) {
            for value in sample::enum_values(field) {
                let shown = value.to_string().trim_matches(['"', '[', ']']).to_owned();
                if let (Status::Refused(_), _) = self.value(frame, field, value, listed, name)? {
                    entry.refused_values.push(shown);
                }
            }
        }
        Ok(Probed { entry, accepted })
    }

    /// What becomes of the field with this value.
    fn value(
        &self,
        frame: &Frame,
        field: FieldType,
        value: Json,
        listed: Option<&Sample>,
        name: &str,
    ) -> Result<(Status, Option<Json>)> {
        let mut bootstrap = frame.bootstrap.clone();
        if let Some(listed) = listed {
            merge(&mut bootstrap, &listed.bootstrap);
        }
        let message =
            frame.place.get_or_make(&mut bootstrap).ok_or_else(|| anyhow!("no place {}", frame.place))?;
        if message.is_null() {
            *message = Json::Object(Default::default());
        }
        let members = message.as_object_mut().ok_or_else(|| anyhow!("{} is no message", frame.place))?;
        if let Some(group) = field.oneof() {
            for other in frame.message.fields().filter(|other| other.oneof() == Some(group)) {
                members.remove(other.name());
            }
        }
        members.insert(field.name().to_owned(), value.clone());
        if let Some(listed) = listed {
            for (sibling, value) in &listed.with {
                members.insert(sibling.clone(), value.clone());
            }
        }
        if let Err(reason) = mend(self.root, &mut bootstrap) {
            return Ok((refusal(&reason, &frame.place.field(field.name())), None));
        }
        let verdict = self.validator.text(name, &bootstrap.to_string())?;
        let status = judge(&verdict, &frame.place.field(field.name()));
        if let Some(oracle) = self.oracle {
            let label = format!("{}.{}", frame.message.full_name(), field.name());
            oracle.compare((&label, &value), (&verdict, &status), (name, &bootstrap))?;
        }
        let accepted = verdict.error.is_none().then_some(bootstrap);
        Ok((status, accepted))
    }
}

/// What the verdict means for the field at `place`.
fn judge(verdict: &Verdict, place: &Place) -> Status {
    if let Some(error) = &verdict.error {
        return refusal(error, place);
    }
    let about = |warning: &&String| {
        warning.split_once(": ").and_then(|(path, _)| Place::parse(path)).is_some_and(|path| {
            path == *place
                || (place.holds(&path)
                    && path.0[place.0.len()..].iter().all(|step| !matches!(step, Step::Field(_))))
        })
    };
    match verdict.warnings.iter().find(about).and_then(|warning| warning.split_once(": ")) {
        Some((_, message)) if message.contains("deprecated") => Status::Honoured,
        Some((_, message)) => Status::Warned(one_line(message)),
        None => Status::Honoured,
    }
}

fn refusal(error: &str, place: &Place) -> Status {
    let (path, reason) = error.split_once(": ").unwrap_or(("", error));
    let unsupported = reason.contains("not supported") || reason.contains("Didn't find a registered");
    // A message that applies to several places may be refused at the one that it is copied to.
    let about = |path: Place| place.holds(&path) || path.holds(place) || path.0.last() == place.0.last();
    if unsupported && Place::parse(path).is_some_and(about) {
        Status::Refused(one_line(reason))
    } else {
        Status::Checked(one_line(error))
    }
}

fn one_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

/// The message that the field holds, to be gone through next.
fn inner(field: FieldType, place: &Place, bootstrap: Json) -> Option<Frame> {
    let Kind::Message(target) = field.kind() else { return None };
    let place = place.field(field.name());
    let (message, place) = if field.is_map() {
        let key = place.get(&bootstrap)?.as_object()?.keys().next()?.clone();
        (map_value(target)?, place.then(Step::Key(key)))
    } else if field.is_repeated() {
        (target, place.then(Step::Index(0)))
    } else {
        (target, place)
    };
    (sample::is_walked(message) && place.get(&bootstrap).is_some_and(Json::is_object)).then_some(Frame {
        message,
        place,
        bootstrap,
    })
}

/// Puts `patch` over `value`: objects and lists are merged, anything else is replaced; a member that is null unsets what is there.
pub(super) fn merge(value: &mut Json, patch: &Json) {
    match (value, patch) {
        (_, Json::Null) => {}
        (Json::Object(members), Json::Object(patch)) => {
            for (name, patch) in patch {
                let member = members.entry(name.as_str()).or_insert(Json::Null);
                if patch.is_null() {
                    *member = Json::Null;
                } else {
                    merge(member, patch);
                }
            }
        }
        (Json::Array(items), Json::Array(patch)) => {
            for (at, patch) in patch.iter().enumerate() {
                match items.get_mut(at) {
                    Some(item) => merge(item, patch),
                    None => items.push(patch.clone()),
                }
            }
        }
        (value, patch) => *value = patch.clone(),
    }
}
