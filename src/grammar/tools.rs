//! A grammar of Gemma's tool calls: `call:NAME{key:<|"|>text<|"|>,other:[1,true,null]}`.
//!
//! Keys have the order in which the chat template writes them, which is alphabetical.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Map, Value};

use super::literal;
use crate::error::{Error, Result};
use crate::text::Tool;

/// Nested arrays and maps of a value without a schema.
const DEEPEST_ANY: usize = 4;
/// Schemas within schemas. Sensible ones are not deeper.
const DEEPEST_SCHEMA: usize = 32;
/// Numbers that keep their value in 64 bits. −0 is no whole number of JSON.
const WHOLE: &str = "/0|-?[1-9][0-9]{0,17}/";
const NUMBER: &str = "/0|-?[1-9][0-9]{0,14}|-?(0|[1-9][0-9]{0,14})\\.[0-9]{1,15}/";

/// The marks of a call, as literals of Lark.
pub(super) struct Marks {
    /// Ends a call.
    pub close: String,
    /// Around a string.
    pub quote: String,
}

/// The grammar of a call of one of `tools`. It begins after the mark that opens the call, and ends
/// with the mark that closes it.
///
/// Errors: a name that no call can have, schemas that are nested too deeply.
pub(super) fn call_grammar(tools: &[&Tool], marks: &Marks) -> Result<String> {
    let mut writer =
        Writer { marks, rules: Vec::new(), any: Vec::new(), definitions: BTreeMap::new() };
    let mut calls = Vec::new();
    for tool in tools {
        let is_name = |c: char| !c.is_whitespace() && !matches!(c, '{' | '}' | '<' | '"');
        if tool.name.is_empty() || !tool.name.chars().all(is_name) {
            let reason = "must have no spaces, braces, quotes or <";
            return Err(Error::Input(format!("the tool's name {:?} {reason}", tool.name)));
        }
        writer.definitions.clear();
        let root = &tool.parameters;
        let object = match root.as_object() {
            Some(schema) if is_object(schema) => writer.object(schema, root, 0)?,
            _ => writer.any_map(DEEPEST_ANY),
        };
        calls.push(format!("{} {object}", literal::text(&tool.name)));
    }
    let calls = calls.join(" | ");
    let rules = writer.rules.concat();
    Ok(format!("start: \"call:\" ({calls}) {}\n{rules}", marks.close))
}

/// Whether a schema describes an object, perhaps without saying so.
fn is_object(schema: &Map<String, Value>) -> bool {
    match schema.get("type") {
        Some(Value::String(kind)) => kind.eq_ignore_ascii_case("object"),
        Some(_) => false,
        None => schema.contains_key("properties"),
    }
}

struct Writer<'a> {
    marks: &'a Marks,
    rules: Vec<String>,
    /// Rules of values without a schema, by their depth.
    any: Vec<String>,
    /// Rules of definitions, by their reference within the present tool.
    definitions: BTreeMap<String, String>,
}

impl Writer<'_> {
    /// Adds a rule and returns its name.
    fn rule(&mut self, body: &str) -> String {
        let name = self.reserve();
        self.define(&name, body);
        name
    }

    fn reserve(&mut self) -> String {
        self.rules.push(String::new());
        format!("rule{}", self.rules.len() - 1)
    }

    fn define(&mut self, name: &str, body: &str) {
        let number = name.strip_prefix("rule").and_then(|number| number.parse::<usize>().ok());
        if let Some(rule) = number.and_then(|number| self.rules.get_mut(number)) {
            *rule = format!("{name}: {body}\n");
        }
    }

    /// A value of a schema. `root` is the schema in which references are looked up.
    fn value(&mut self, schema: &Value, root: &Value, depth: usize) -> Result<String> {
        if depth > DEEPEST_SCHEMA {
            return Err(Error::Input(format!(
                "the schema of a tool is nested deeper than {DEEPEST_SCHEMA}"
            )));
        }
        let Value::Object(fields) = schema else { return Ok(self.any(DEEPEST_ANY)) };
        if let Some(Value::String(reference)) = fields.get("$ref") {
            return self.definition(reference, root, depth);
        }
        if let Some(fixed) = fields.get("const") {
            return Ok(self.fixed(fixed));
        }
        if let Some(Value::Array(values)) =
            fields.get("enum").filter(|list| **list != Value::Array(Vec::new()))
        {
            let values: Vec<String> = values.iter().map(|value| self.fixed(value)).collect();
            return Ok(self.nullable(fields, values));
        }
        for name in ["anyOf", "oneOf", "allOf"] {
            match fields.get(name) {
                // Several schemas at once have no grammar of their own.
                Some(Value::Array(parts)) if name == "allOf" && parts.len() != 1 => {
                    return Ok(self.any(DEEPEST_ANY));
                }
                Some(Value::Array(parts)) if !parts.is_empty() => {
                    let parts = parts.iter().map(|part| self.value(part, root, depth + 1));
                    let parts = parts.collect::<Result<Vec<_>>>()?;
                    return Ok(self.nullable(fields, parts));
                }
                _ => {}
            }
        }
        let kinds = match fields.get("type") {
            Some(Value::String(kind)) => vec![kind.as_str()],
            Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).collect(),
            _ if is_object(fields) => vec!["object"],
            _ => return Ok(self.any(DEEPEST_ANY)),
        };
        let kinds = kinds.iter().map(|kind| self.of_kind(kind, fields, root, depth));
        let kinds = kinds.collect::<Result<Vec<_>>>()?;
        Ok(self.nullable(fields, kinds))
    }

    fn nullable(&mut self, fields: &Map<String, Value>, mut kinds: Vec<String>) -> String {
        if fields.get("nullable") == Some(&Value::Bool(true)) {
            kinds.push("\"null\"".into());
        }
        self.rule(&kinds.join(" | "))
    }

    fn of_kind(
        &mut self,
        kind: &str,
        fields: &Map<String, Value>,
        root: &Value,
        depth: usize,
    ) -> Result<String> {
        let count = |name: &str| fields.get(name).and_then(Value::as_u64);
        Ok(match kind.to_ascii_lowercase().as_str() {
            "string" => self.string(count("minLength"), count("maxLength")),
            "integer" => WHOLE.into(),
            "number" => NUMBER.into(),
            "boolean" => "\"true\" | \"false\"".into(),
            "null" => "\"null\"".into(),
            "object" => self.object(fields, root, depth)?,
            "array" => {
                let item = match fields.get("items") {
                    Some(items) => self.value(items, root, depth + 1)?,
                    None => self.any(DEEPEST_ANY),
                };
                self.array(&item, count("minItems").unwrap_or(0), count("maxItems"))
            }
            _ => self.any(DEEPEST_ANY),
        })
    }

    fn string(&self, min: Option<u64>, max: Option<u64>) -> String {
        let quote = &self.marks.quote;
        let length = match (min.unwrap_or(0), max) {
            (0, None) => "*".to_owned(),
            (min, None) => format!("{{{min},}}"),
            (min, Some(max)) => format!("{{{min},{}}}", max.max(min)),
        };
        format!("{quote} /(?s:.){length}/ {quote}")
    }

    fn array(&mut self, item: &str, min: u64, max: Option<u64>) -> String {
        let more = match max.map(|max| max.max(min)) {
            Some(0) => return "\"[\" \"]\"".into(),
            Some(max) => format!("{{{},{}}}", min.saturating_sub(1), max - 1),
            None if min > 1 => format!("{{{},}}", min - 1),
            None => "*".into(),
        };
        let more = if more == "{0,0}" { String::new() } else { format!(" (\",\" {item}){more}") };
        match min {
            0 => format!("\"[\" ({item}{more})? \"]\""),
            _ => format!("\"[\" {item}{more} \"]\""),
        }
    }

    /// A map: its properties in order, or any keys if it names none.
    fn object(
        &mut self,
        fields: &Map<String, Value>,
        root: &Value,
        depth: usize,
    ) -> Result<String> {
        let properties = fields.get("properties").and_then(Value::as_object);
        let Some(properties) = properties.filter(|properties| !properties.is_empty()) else {
            return Ok(match fields.get("additionalProperties") {
                Some(Value::Bool(false)) => "\"{\" \"}\"".into(),
                Some(schema @ Value::Object(_)) => {
                    let value = self.value(schema, root, depth + 1)?;
                    self.map_of(&value)
                }
                _ => self.any_map(DEEPEST_ANY),
            });
        };
        let required: Vec<&str> = match fields.get("required") {
            Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        let sorted: BTreeMap<&String, &Value> = properties.iter().collect();
        let mut pairs = Vec::new();
        for (key, schema) in sorted {
            let value = self.value(schema, root, depth + 1)?;
            let pair = format!("{} \":\" ({value})", self.key(key));
            pairs.push((self.rule(&pair), required.contains(&key.as_str())));
        }
        Ok(self.sequence(&pairs))
    }

    /// A map of pairs in this order, each with whether it is required.
    fn sequence(&mut self, pairs: &[(String, bool)]) -> String {
        // What may follow each pair, from the last one back.
        let mut after = vec![String::new(); pairs.len()];
        for at in (1..pairs.len()).rev() {
            let (pair, is_required) = &pairs[at];
            let optional = if *is_required { "" } else { "?" };
            after[at - 1] = self.rule(&format!("(\",\" {pair}){optional} {}", after[at]));
        }
        let firsts = pairs.iter().position(|(_, is_required)| *is_required);
        let mut bodies: Vec<String> = (0..=firsts.unwrap_or(pairs.len() - 1))
            .map(|at| format!("{} {}", pairs[at].0, after[at]))
            .collect();
        if firsts.is_none() {
            bodies.push("\"\"".into());
        }
        let body = self.rule(&bodies.join(" | "));
        format!("\"{{\" {body} \"}}\"")
    }

    fn key(&self, key: &str) -> String {
        let is_bare = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '$' | '/');
        match !key.is_empty() && key.chars().all(is_bare) {
            true => literal::text(key),
            false => self.quoted(key),
        }
    }

    fn quoted(&self, text: &str) -> String {
        let quote = &self.marks.quote;
        match text.is_empty() {
            true => format!("{quote} {quote}"),
            false => format!("{quote} {} {quote}", literal::text(text)),
        }
    }

    /// Exactly this value.
    fn fixed(&self, value: &Value) -> String {
        match value {
            Value::String(text) => self.quoted(text),
            Value::Array(items) => {
                let items: Vec<String> = items.iter().map(|item| self.fixed(item)).collect();
                format!("\"[\" {} \"]\"", items.join(" \",\" "))
            }
            Value::Object(map) => {
                let sorted: BTreeMap<&String, &Value> = map.iter().collect();
                let pair = |(key, value): (&String, &Value)| {
                    format!("{} \":\" {}", self.key(key), self.fixed(value))
                };
                let pairs: Vec<String> = sorted.into_iter().map(pair).collect();
                format!("\"{{\" {} \"}}\"", pairs.join(" \",\" "))
            }
            other => literal::text(&other.to_string()),
        }
    }

    /// The schema of a reference within the document; another document has no grammar.
    fn definition(&mut self, reference: &str, root: &Value, depth: usize) -> Result<String> {
        if let Some(rule) = self.definitions.get(reference) {
            return Ok(rule.clone());
        }
        let found = reference.strip_prefix('#').and_then(|path| root.pointer(path));
        let Some(schema) = found else {
            return Err(Error::Input(format!("the schema has no definition {reference}")));
        };
        let rule = self.reserve();
        self.definitions.insert(reference.to_owned(), rule.clone());
        let body = self.value(schema, root, depth + 1)?;
        self.define(&rule, &body);
        Ok(rule)
    }

    fn map_of(&mut self, value: &str) -> String {
        let mut body = String::new();
        // Writing to a string cannot fail.
        let _ = write!(body, "/[A-Za-z_][A-Za-z0-9_]{{0,63}}/ \":\" ({value})");
        let pair = self.rule(&body);
        format!("\"{{\" ({pair} (\",\" {pair})*)? \"}}\"")
    }

    /// A value without a schema, with at most `depth` arrays and maps in one another.
    fn any(&mut self, depth: usize) -> String {
        while self.any.len() <= depth {
            let string = self.string(None, None);
            let mut kinds = vec![string, NUMBER.into(), "\"true\" | \"false\" | \"null\"".into()];
            if let Some(inner) = self.any.last().cloned() {
                kinds.push(self.array(&inner, 0, None));
                kinds.push(self.map_of(&inner));
            }
            let rule = self.rule(&kinds.join(" | "));
            self.any.push(rule);
        }
        self.any[depth].clone()
    }

    fn any_map(&mut self, depth: usize) -> String {
        let value = self.any(depth);
        self.map_of(&value)
    }
}
