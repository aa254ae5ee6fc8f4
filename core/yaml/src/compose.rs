//! From parser events to trees: containers, anchors, aliases, merge keys, limits.

use std::collections::{HashMap, HashSet};

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};

use crate::scalar::{self, Scalar};
use crate::{Dialect, Document, Entry, Node, Value, YamlError};

/// Deeper documents are refused: nothing legitimate comes near it, and every walk over the tree may recurse.
const MAX_DEPTH: usize = 250;

/// How many nodes aliases may add to a document before it counts as an attack.
const MAX_ALIASED_NODES: usize = 200_000;

pub(crate) fn compose(text: &str, dialect: Dialect) -> Result<Vec<Document>, YamlError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut parser = Parser::new_from_str(text);
    let mut documents = Vec::new();
    let mut composer = Composer::new(dialect);
    while let Some(event) = parser.next_event() {
        let (event, span) = event
            .map_err(|error| YamlError::new(error.marker().line(), error.marker().col() + 1, error.info()))?;
        match event {
            Event::DocumentStart(_) => composer = Composer::new(dialect),
            Event::DocumentEnd => {
                let root = composer.root.take().unwrap_or(Node {
                    line: span.start.line(),
                    column: span.start.col() + 1,
                    value: Value::Null,
                });
                documents.push(Document { root });
                if dialect == Dialect::Envoy {
                    break;
                }
            }
            event => composer.event(event, span)?,
        }
    }
    Ok(documents)
}

/// A finished node with how many nodes it holds, itself included: the price of repeating it.
#[derive(Clone)]
struct Anchored {
    node: Node,
    size: usize,
    key: Key,
}

/// What a node is good for when it stands as a key.
#[derive(Clone, PartialEq)]
enum Key {
    Text(String),
    Merge,
    Ignore,
    Collection,
}

enum Container {
    Sequence(Vec<Node>),
    Mapping {
        entries: Vec<Entry>,
        positions: HashMap<String, usize>,
        /// Keys that came by a merge and so give way to an explicit one.
        merged: HashSet<String>,
        pending: Option<(Key, usize, usize)>,
    },
}

struct Open {
    container: Container,
    line: usize,
    column: usize,
    anchor: usize,
    size: usize,
    ignored_key: bool,
}

struct Composer {
    dialect: Dialect,
    stack: Vec<Open>,
    anchors: HashMap<usize, Anchored>,
    aliased_nodes: usize,
    root: Option<Node>,
}

impl Composer {
    fn new(dialect: Dialect) -> Self {
        Self { dialect, stack: Vec::new(), anchors: HashMap::new(), aliased_nodes: 0, root: None }
    }

    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), YamlError> {
        let (line, column) = (span.start.line(), span.start.col() + 1);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let tag = tag.map(|tag| tag_text(&tag));
                let plain = style == ScalarStyle::Plain;
                let scalar = Scalar { text: &text, plain, tag: tag.as_deref() };
                let value = match self.dialect {
                    Dialect::Envoy => scalar::envoy(&scalar),
                    Dialect::Kubernetes => scalar::kubernetes(&scalar)
                        .map_err(|message| YamlError::new(line, column, message))?,
                };
                let key = self.key_of(&scalar, &value);
                let finished = Anchored { node: Node { line, column, value }, size: 1, key };
                self.finish(finished, anchor)
            }
            Event::Alias(anchor) => self.alias(anchor, line, column),
            Event::SequenceStart(anchor, tag) => {
                self.open(Container::Sequence(Vec::new()), anchor, tag.as_deref(), line, column)
            }
            Event::MappingStart(anchor, tag) => {
                let container = Container::Mapping {
                    entries: Vec::new(),
                    positions: HashMap::new(),
                    merged: HashSet::new(),
                    pending: None,
                };
                self.open(container, anchor, tag.as_deref(), line, column)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            _ => Ok(()),
        }
    }

    fn key_of(&self, scalar: &Scalar<'_>, value: &Value) -> Key {
        match self.dialect {
            Dialect::Envoy if scalar.tag == Some("!ignore") => Key::Ignore,
            Dialect::Envoy if matches!(value, Value::Null) => Key::Text("null".to_owned()),
            Dialect::Envoy => Key::Text(scalar.text.to_owned()),
            Dialect::Kubernetes if scalar.text == "<<" && scalar.plain => Key::Merge,
            Dialect::Kubernetes => match value {
                Value::Bool(value) => Key::Text(value.to_string()),
                Value::Integer(value) => Key::Text(value.to_string()),
                Value::Unsigned(value) => Key::Text(value.to_string()),
                Value::Float(value) => Key::Text(value.to_string()),
                Value::Null => Key::Text("null".to_owned()),
                _ => Key::Text(scalar.text.to_owned()),
            },
        }
    }

    fn open(
        &mut self,
        container: Container,
        anchor: usize,
        tag: Option<&Tag>,
        line: usize,
        column: usize,
    ) -> Result<(), YamlError> {
        if self.stack.len() >= MAX_DEPTH {
            return Err(YamlError::new(line, column, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        let ignored_key = self.dialect == Dialect::Envoy && tag.is_some_and(|tag| tag_text(tag) == "!ignore");
        self.stack.push(Open { container, line, column, anchor, size: 1, ignored_key });
        Ok(())
    }

    fn close(&mut self) -> Result<(), YamlError> {
        // The parser balances starts and ends, so there is always one to close.
        let Some(open) = self.stack.pop() else { return Ok(()) };
        let value = match open.container {
            Container::Sequence(items) => Value::Sequence(items),
            Container::Mapping { entries, .. } => Value::Mapping(entries),
        };
        let key = if open.ignored_key { Key::Ignore } else { Key::Collection };
        let node = Node { line: open.line, column: open.column, value };
        self.finish(Anchored { node, size: open.size, key }, open.anchor)
    }

    fn alias(&mut self, anchor: usize, line: usize, column: usize) -> Result<(), YamlError> {
        let Some(target) = self.anchors.get(&anchor) else {
            return Err(YamlError::new(line, column, "the alias refers to a value that contains it"));
        };
        self.aliased_nodes += target.size;
        if self.aliased_nodes > MAX_ALIASED_NODES {
            let message = format!("aliases expand to more than {MAX_ALIASED_NODES} values");
            return Err(YamlError::new(line, column, message));
        }
        let copy = target.clone();
        self.place(copy, line, column)
    }

    fn finish(&mut self, finished: Anchored, anchor: usize) -> Result<(), YamlError> {
        if anchor != 0 {
            self.anchors.insert(anchor, finished.clone());
        }
        let (line, column) = (finished.node.line, finished.node.column);
        self.place(finished, line, column)
    }

    /// Puts a finished node where it belongs; `line` and `column` are where it (or its alias) is written.
    fn place(&mut self, finished: Anchored, line: usize, column: usize) -> Result<(), YamlError> {
        let dialect = self.dialect;
        let Some(open) = self.stack.last_mut() else {
            self.root = Some(finished.node);
            return Ok(());
        };
        open.size += finished.size;
        match &mut open.container {
            Container::Sequence(items) => items.push(finished.node),
            Container::Mapping { entries, positions, merged, pending } => match pending.take() {
                None => {
                    if finished.key == Key::Collection {
                        return Err(YamlError::new(line, column, "a key must be a scalar"));
                    }
                    *pending = Some((finished.key, line, column));
                }
                Some((Key::Ignore | Key::Collection, ..)) => {}
                Some((Key::Merge, line, column)) => {
                    merge(entries, positions, merged, finished.node)
                        .map_err(|message| YamlError::new(line, column, message))?;
                }
                Some((Key::Text(key), line, column)) => {
                    let entry = Entry { key: key.clone(), line, column, value: finished.node };
                    match positions.get(&key) {
                        Some(&position) if dialect == Dialect::Envoy || merged.remove(&key) => {
                            entries[position] = entry;
                        }
                        Some(&position) => {
                            let first = entries[position].line;
                            let message = format!("key \"{key}\" is already set on line {first}");
                            return Err(YamlError::new(line, column, message));
                        }
                        None => {
                            positions.insert(key, entries.len());
                            entries.push(entry);
                        }
                    }
                }
            },
        }
        Ok(())
    }
}

/// Takes over the entries of one mapping, or of several of which the earlier ones win, that are not set yet.
fn merge(
    entries: &mut Vec<Entry>,
    positions: &mut HashMap<String, usize>,
    merged: &mut HashSet<String>,
    source: Node,
) -> Result<(), &'static str> {
    match source.value {
        Value::Mapping(inherited) => {
            for entry in inherited {
                if !positions.contains_key(&entry.key) {
                    positions.insert(entry.key.clone(), entries.len());
                    merged.insert(entry.key.clone());
                    entries.push(entry);
                }
            }
            Ok(())
        }
        Value::Sequence(sources) => sources.into_iter().try_for_each(|source| match source.value {
            Value::Mapping(_) => merge(entries, positions, merged, source),
            _ => Err("map merge requires map or sequence of maps as the value"),
        }),
        _ => Err("map merge requires map or sequence of maps as the value"),
    }
}

fn tag_text(tag: &Tag) -> String {
    format!("{}{}", tag.handle, tag.suffix)
}
