//! Tools of a request. Custom tools and those of namespaces become functions.

use serde_json::{Value, json};

use crate::server::error::ApiError;
use crate::server::openai;
use crate::text::Tool;

/// The argument of a custom tool's function.
pub const INPUT: &str = "input";

/// The tools of a request.
#[derive(Debug, Clone, Default)]
pub struct Tools {
    functions: Vec<Tool>,
    /// Of each function: its kind.
    kinds: Vec<Kind>,
}

/// The tool that a function stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Function,
    /// A tool whose only argument is a text.
    Custom,
    /// The function `name` of a namespace.
    Within {
        namespace: String,
        name: String,
    },
}

impl Tools {
    /// The functions that the model knows.
    pub fn functions(&self) -> &[Tool] {
        &self.functions
    }

    /// The tool that the function `name` stands for.
    pub fn kind(&self, name: &str) -> Kind {
        let at = self.functions.iter().position(|function| function.name == name);
        at.map_or(Kind::Function, |at| self.kinds[at].clone())
    }

    fn push(&mut self, function: Tool, kind: Kind) {
        self.functions.push(function);
        self.kinds.push(kind);
    }
}

/// The model's name for a function of a namespace.
pub fn full_name(namespace: Option<&str>, name: &str) -> String {
    match namespace.filter(|namespace| !namespace.is_empty()) {
        Some(namespace) => format!("{namespace}.{name}"),
        None => name.to_owned(),
    }
}

/// Reads `tools`. Types that only OpenAI's own servers can run are skipped.
///
/// Errors: a function or custom tool without a name.
pub fn parse(tools: Option<Value>) -> Result<Tools, ApiError> {
    let wrong = |reason: &str| ApiError::bad_field("tools", format!("tools {reason}"));
    let list = match tools {
        None => return Ok(Tools::default()),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(wrong("must be a list")),
    };
    let mut tools = Tools::default();
    for tool in &list {
        let kind = tool["type"].as_str().ok_or_else(|| wrong("has a tool without type"))?;
        let unnamed = || wrong("has a tool without name, or with fields of a wrong type");
        match kind {
            // Some clients nest functions as in chats.
            "function" => {
                let function = tool.get("function").unwrap_or(tool);
                let function = openai::function_of(function).ok_or_else(unnamed)?;
                tools.push(function, Kind::Function);
            }
            "custom" => {
                let function = openai::function_of(&custom(tool)).ok_or_else(unnamed)?;
                tools.push(function, Kind::Custom);
            }
            "namespace" => {
                let namespace = tool["name"].as_str().ok_or_else(unnamed)?;
                for inner in tool["tools"].as_array().into_iter().flatten() {
                    let Some(mut function) = openai::function_of(inner) else { continue };
                    let name = function.name;
                    function.name = full_name(Some(namespace), &name);
                    tools.push(function, Kind::Within { namespace: namespace.to_owned(), name });
                }
            }
            _ => {}
        }
    }
    Ok(tools)
}

/// A custom tool as a function of one text. A grammar of it becomes a part of the description.
fn custom(tool: &Value) -> Value {
    let mut description = tool["description"].as_str().unwrap_or_default().to_owned();
    if let Some(grammar) = tool["format"]["definition"].as_str() {
        let syntax = tool["format"]["syntax"].as_str().unwrap_or("grammar");
        description += &format!("\nThe input follows this {syntax} grammar:\n{grammar}");
    }
    json!({
        "name": tool["name"],
        "description": description.trim_start(),
        "parameters": {
            "type": "object",
            "properties": {INPUT: {"type": "string"}},
            "required": [INPUT],
        },
    })
}
