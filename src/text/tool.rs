//! Tools that a model may call.

use serde_json::{Map, Value, json};

/// Most schemas within one another that a template gets.
const DEEPEST: usize = 32;
/// Most parts of all schemas of a tool. References could otherwise grow without limit.
const MOST_PARTS: usize = 4096;

/// A tool that the model may call.
#[derive(Debug, Clone, PartialEq)]
pub struct Tool {
    pub name: String,
    /// Empty if there is none.
    pub description: String,
    /// The JSON schema of its arguments, an object.
    pub parameters: Value,
}

impl Tool {
    /// The tool in the form of transformers' templates. Gemma's templates know a part of JSON
    /// schema: every part has one type, and neither references nor alternatives. The schema is
    /// reduced to that.
    pub(super) fn for_template(&self) -> Value {
        let mut reducer = Reducer { root: &self.parameters, parts: 0 };
        let mut parameters = reducer.schema(&self.parameters, 0);
        parameters["type"] = json!("object");
        if !parameters["properties"].is_object() {
            parameters["properties"] = json!({});
        }
        let function = json!({
            "name": self.name,
            "description": self.description,
            "parameters": parameters,
        });
        json!({"type": "function", "function": function})
    }
}

struct Reducer<'a> {
    root: &'a Value,
    parts: usize,
}

impl Reducer<'_> {
    fn schema(&mut self, schema: &Value, depth: usize) -> Value {
        self.parts += 1;
        let Value::Object(fields) = schema else { return json!({"type": "string"}) };
        if depth >= DEEPEST || self.parts > MOST_PARTS {
            return json!({"type": "object"});
        }
        let mut fields = self.merged(fields, depth);
        let nullable = one_type(&mut fields);
        if nullable {
            fields.insert("nullable".into(), json!(true));
        }
        for (name, inner) in &mut fields {
            match (name.as_str(), inner) {
                ("properties", Value::Object(properties)) => {
                    for property in properties.values_mut() {
                        *property = self.schema(property, depth + 1);
                    }
                }
                ("items", items) => *items = self.schema(items, depth + 1),
                _ => {}
            }
        }
        Value::Object(fields)
    }

    /// The fields with those of references and of the first alternative.
    fn merged(&mut self, fields: &Map<String, Value>, depth: usize) -> Map<String, Value> {
        let mut merged = fields.clone();
        let mut nullable = false;
        for _ in depth..DEEPEST {
            let mut inner = Vec::new();
            if let Some(Value::String(reference)) = merged.remove("$ref") {
                let pointer = reference.strip_prefix('#');
                inner.extend(pointer.and_then(|pointer| self.root.pointer(pointer)).cloned());
            }
            if let Some(Value::Array(all)) = merged.remove("allOf") {
                inner.extend(all);
            }
            for name in ["anyOf", "oneOf"] {
                let Some(Value::Array(alternatives)) = merged.remove(name) else { continue };
                let is_null = |schema: &Value| schema["type"] == "null";
                nullable |= alternatives.iter().any(is_null);
                let consts: Vec<Value> =
                    alternatives.iter().filter_map(|schema| schema.get("const").cloned()).collect();
                if !consts.is_empty() && consts.len() == alternatives.len() {
                    inner.push(json!({"enum": consts}));
                } else {
                    inner.extend(alternatives.into_iter().find(|schema| !is_null(schema)));
                }
            }
            if inner.is_empty() {
                break;
            }
            for schema in inner {
                let Value::Object(schema) = schema else { continue };
                for (name, value) in schema {
                    merge(&mut merged, name, value);
                }
            }
        }
        if nullable {
            merged.insert("nullable".into(), json!(true));
        }
        merged
    }
}

/// Adds a field. Properties are joined; other fields keep their first value.
fn merge(fields: &mut Map<String, Value>, name: String, value: Value) {
    match (fields.get_mut(&name), value) {
        (None, value) => {
            fields.insert(name, value);
        }
        (Some(Value::Object(old)), Value::Object(new)) if name == "properties" => {
            for (name, value) in new {
                old.entry(name).or_insert(value);
            }
        }
        (Some(Value::Array(old)), Value::Array(new)) if name == "required" => old.extend(new),
        _ => {}
    }
}

/// Gives the fields one type. Returns whether null was another one.
fn one_type(fields: &mut Map<String, Value>) -> bool {
    if let Some(value) = fields.remove("const") {
        fields.insert("enum".into(), json!([value]));
    }
    let (kind, nullable) = match fields.get("type") {
        Some(Value::String(kind)) => (Some(kind.clone()), false),
        Some(Value::Array(kinds)) => {
            let mut names = kinds.iter().filter_map(Value::as_str);
            let nullable = names.clone().any(|kind| kind == "null");
            (names.find(|kind| *kind != "null").map(str::to_owned), nullable)
        }
        _ => (None, false),
    };
    let kind = kind.unwrap_or_else(|| implied_type(fields).to_owned());
    fields.insert("type".into(), Value::String(kind));
    nullable
}

/// The type of a schema that names none.
fn implied_type(fields: &Map<String, Value>) -> &'static str {
    if fields.contains_key("properties") || fields.contains_key("additionalProperties") {
        return "object";
    }
    if fields.contains_key("items") || fields.contains_key("prefixItems") {
        return "array";
    }
    match fields.get("enum").and_then(|values| values.get(0)) {
        Some(Value::Number(number)) if number.is_f64() => "number",
        Some(Value::Number(_)) => "integer",
        Some(Value::Bool(_)) => "boolean",
        _ => "string",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reduced(parameters: Value) -> Value {
        let tool = Tool { name: "f".into(), description: String::new(), parameters };
        tool.for_template()["function"]["parameters"].clone()
    }

    #[test]
    fn schemas_are_reduced_to_one_type_each() {
        let schema = json!({
            "type": "object",
            "properties": {
                "a": {"type": ["string", "null"], "description": "d"},
                "b": {"anyOf": [
                    {"type": "null"}, {"type": "array", "items": {"$ref": "#/$defs/x"}}]},
                "c": {"oneOf": [{"const": 1}, {"const": 2}]},
                "d": {"allOf": [{"properties": {"e": true}}, {"required": ["e"]}]},
            },
            "required": ["a"],
            "$defs": {"x": {"type": "number"}},
        });
        let reduced = reduced(schema);
        let properties = &reduced["properties"];
        assert_eq!(
            properties["a"],
            json!({"type": "string", "description": "d", "nullable": true})
        );
        assert_eq!(
            properties["b"],
            json!({"nullable": true, "type": "array", "items": {"type": "number"}})
        );
        assert_eq!(properties["c"], json!({"enum": [1, 2], "type": "integer"}));
        let inner = json!({"e": {"type": "string"}});
        assert_eq!(
            properties["d"],
            json!({"properties": inner, "required": ["e"], "type": "object"})
        );
        assert_eq!(reduced["required"], json!(["a"]));
    }

    #[test]
    fn schemas_that_contain_themselves_end() {
        let list = json!({"properties": {"next": {"$ref": "#"}, "other": {"$ref": "#"}}});
        let text = reduced(list).to_string();
        assert!(text.len() < 1 << 20, "{}", text.len());
        let circle = json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}});
        assert_eq!(reduced(circle)["type"], "object");
        assert_eq!(reduced(json!(null)), json!({"type": "object", "properties": {}}));
    }
}
