//! Lays the schema out as one blob of little-endian 32-bit words and a string pool; `src/tables.rs` reads it.

use std::collections::HashMap;

use crate::descriptors::{Enum, Field, Message, Schema};

/// Sections in the order of the header words that hold their offsets.
const HEADER_WORDS: usize = 10;

#[derive(Default)]
struct Pool {
    bytes: Vec<u8>,
    known: HashMap<Vec<u8>, u32>,
}

impl Pool {
    /// Offset of a two-byte length followed by the bytes; equal entries are stored once.
    fn add(&mut self, entry: &[u8]) -> u32 {
        if let Some(&offset) = self.known.get(entry) {
            return offset;
        }
        let offset = u32::try_from(self.bytes.len()).expect("the pool is small");
        let length = u16::try_from(entry.len()).expect("names and rules are short");
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(entry);
        self.known.insert(entry.to_vec(), offset);
        offset
    }
}

pub fn encode(mut schema: Schema) -> Vec<u8> {
    schema.messages.sort_by(|left, right| left.name.cmp(&right.name));
    schema.enums.sort_by(|left, right| left.name.cmp(&right.name));
    let index_of = |names: Vec<&str>| -> HashMap<String, u32> {
        names.into_iter().map(str::to_owned).zip(0..).collect()
    };
    let messages = index_of(schema.messages.iter().map(|message| message.name.as_str()).collect());
    let enums = index_of(schema.enums.iter().map(|enumeration| enumeration.name.as_str()).collect());
    let mut writer =
        Writer { pool: Pool::default(), messages, enums, rules: Vec::new(), rule_index: HashMap::new() };

    let mut sections: [Vec<u32>; 6] = Default::default();
    for message in &schema.messages {
        writer.message(message, &mut sections);
    }
    for enumeration in &schema.enums {
        writer.enumeration(enumeration, &mut sections);
    }
    sections[5] = std::mem::take(&mut writer.rules);

    let mut header = vec![schema.messages.len() as u32, schema.enums.len() as u32, sections[5].len() as u32];
    let mut offset = HEADER_WORDS * 4;
    for section in &sections {
        header.push(offset as u32);
        offset += section.len() * 4;
    }
    header.push(offset as u32);
    assert_eq!(header.len(), HEADER_WORDS);

    let mut blob = Vec::new();
    for word in header.iter().chain(sections.iter().flatten()) {
        blob.extend_from_slice(&word.to_le_bytes());
    }
    blob.extend_from_slice(&writer.pool.bytes);
    blob
}

struct Writer {
    pool: Pool,
    messages: HashMap<String, u32>,
    enums: HashMap<String, u32>,
    rules: Vec<u32>,
    rule_index: HashMap<Vec<u8>, u32>,
}

impl Writer {
    /// Five words: name, first field, number of fields and of oneofs, first oneof, file with flags.
    fn message(&mut self, message: &Message, sections: &mut [Vec<u32>; 6]) {
        let [messages, fields, oneofs, ..] = sections;
        let flags = u32::from(message.map_entry)
            | u32::from(message.rules_off) << 1
            | u32::from(message.work_in_progress) << 2;
        let file = self.pool.add(message.file.as_bytes());
        assert!(file < 1 << 28, "the pool is small");
        messages.extend([
            self.pool.add(message.name.as_bytes()),
            (fields.len() / 4) as u32,
            message.fields.len() as u32 | (message.oneofs.len() as u32) << 16,
            oneofs.len() as u32,
            file << 4 | flags,
        ]);
        // proto3 `optional` is described as a oneof of one; it is none to the author of a configuration.
        for (index, oneof) in message.oneofs.iter().enumerate() {
            let synthetic =
                message.fields.iter().any(|field| field.optional && field.oneof == Some(index as u32));
            let flags = u32::from(oneof.required) | u32::from(synthetic) << 1;
            oneofs.push(self.pool.add(oneof.name.as_bytes()) << 4 | flags);
        }
        for field in &message.fields {
            let words = self.field(field);
            fields.extend(words);
        }
    }

    /// Four words: name, number, type with flags, type reference with rules.
    fn field(&mut self, field: &Field) -> [u32; 4] {
        let derived = lower_camel(&field.name);
        assert!(
            field.json_name.is_empty() || field.json_name == derived,
            "field {} has the JSON name {}, which the tables cannot express",
            field.name,
            field.json_name
        );
        let target = match field.kind {
            11 => self.messages.get(&field.type_name),
            14 => self.enums.get(&field.type_name),
            10 => panic!("field {} is a group", field.name),
            _ => Some(&0),
        };
        let target = *target.unwrap_or_else(|| panic!("type {} is not described", field.type_name));
        let rules = if field.rules.is_empty() { 0 } else { self.rules(&field.rules) };
        assert!(target < 1 << 16 && rules < 1 << 16, "indexes fit their half word");
        let packable = !matches!(field.kind, 9 | 11 | 12);
        let oneof = field.oneof.map_or(0, |oneof| oneof + 1);
        assert!(oneof < 1 << 8, "a message has few oneofs");
        let flags = u32::from(field.kind)
            | u32::from(field.repeated) << 5
            | u32::from(field.repeated && packable && field.packed.unwrap_or(true)) << 7
            | u32::from(field.deprecated) << 8
            | u32::from(field.disallowed) << 9
            | u32::from(field.sensitive) << 10
            | u32::from(field.work_in_progress) << 11
            | oneof << 16;
        [self.pool.add(field.name.as_bytes()), field.number, flags, target | rules << 16]
    }

    /// Index, from 1, of the encoded rules.
    fn rules(&mut self, rules: &[u8]) -> u32 {
        if let Some(&index) = self.rule_index.get(rules) {
            return index;
        }
        self.rules.push(self.pool.add(rules));
        let index = self.rules.len() as u32;
        self.rule_index.insert(rules.to_vec(), index);
        index
    }

    /// Four words: name, first value, number of values, file. Values have two: name with flags, number.
    fn enumeration(&mut self, enumeration: &Enum, sections: &mut [Vec<u32>; 6]) {
        let [.., enums, values, _] = sections;
        enums.extend([
            self.pool.add(enumeration.name.as_bytes()),
            (values.len() / 2) as u32,
            enumeration.values.len() as u32,
            self.pool.add(enumeration.file.as_bytes()),
        ]);
        for value in &enumeration.values {
            let flags = u32::from(value.deprecated) | u32::from(value.disallowed) << 1;
            values.extend([self.pool.add(value.name.as_bytes()) << 4 | flags, value.number as u32]);
        }
    }
}

/// The JSON name that protobuf derives from a field name.
fn lower_camel(name: &str) -> String {
    let mut camel = String::new();
    let mut upper = false;
    for letter in name.chars() {
        match letter {
            '_' => upper = true,
            letter if upper => {
                camel.extend(letter.to_uppercase());
                upper = false;
            }
            letter => camel.push(letter),
        }
    }
    camel
}
