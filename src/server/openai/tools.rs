//! Tools of a chat request.

use serde_json::{Value, json};

use crate::server::chat::ToolChoice;
use crate::server::error::ApiError;
use crate::server::fields::Fields;
use crate::text::Tool;

/// Reads `tools`. An empty list means no tools; those of other types than functions are skipped.
///
/// Errors: a tool without a name, the fields of an older API.
pub fn tools(fields: &mut Fields) -> Result<Vec<Tool>, ApiError> {
    match fields.get("functions") {
        None => {}
        Some(Value::Array(functions)) if functions.is_empty() => {}
        Some(_) => {
            return Err(ApiError::unsupported("functions", "the API before tools: use tools"));
        }
    }
    let wrong = |reason: &str| ApiError::bad_field("tools", format!("tools {reason}"));
    let tools = match fields.take("tools") {
        None => return Ok(Vec::new()),
        Some(Value::Array(tools)) => tools,
        Some(_) => return Err(wrong("must be a list")),
    };
    let mut functions = Vec::new();
    for tool in tools {
        match tool.get("type").and_then(Value::as_str) {
            Some("function") => {
                let function = tool.get("function");
                functions.push(function.and_then(function_of).ok_or_else(|| {
                    wrong("has a function without name, or with fields of a wrong type")
                })?);
            }
            Some(_) => {}
            None => return Err(wrong("has a tool without type")),
        }
    }
    Ok(functions)
}

/// A function: `name`, `description` and `parameters`. `None` if one has a wrong type.
pub fn function_of(function: &Value) -> Option<Tool> {
    let text = |name: &str| match function.get(name) {
        None | Some(Value::Null) => Some(""),
        Some(value) => value.as_str(),
    };
    let parameters = match function.get("parameters") {
        None | Some(Value::Null) => json!({"type": "object", "properties": {}}),
        Some(schema @ Value::Object(_)) => schema.clone(),
        Some(_) => return None,
    };
    let name = text("name").filter(|name| !name.is_empty())?.to_owned();
    Some(Tool { name, description: text("description")?.to_owned(), parameters })
}

/// Reads `tool_choice`, in the form of chats or of responses.
pub fn tool_choice(fields: &Fields) -> Result<ToolChoice, ApiError> {
    let wrong = || {
        let message = "tool_choice must be none, auto, required, or the name of a function";
        ApiError::bad_field("tool_choice", message)
    };
    let choice = match fields.get("tool_choice") {
        None => return Ok(ToolChoice::Auto),
        Some(choice) => choice,
    };
    if let Some(choice) = choice.as_str() {
        return match choice {
            "auto" => Ok(ToolChoice::Auto),
            "none" => Ok(ToolChoice::None),
            "required" => Ok(ToolChoice::Required),
            _ => Err(wrong()),
        };
    }
    match choice.get("type").and_then(Value::as_str) {
        Some("function" | "custom") => {
            let name = choice.pointer("/function/name").or_else(|| choice.get("name"));
            let name = name.and_then(Value::as_str).ok_or_else(wrong)?;
            Ok(ToolChoice::Named(name.to_owned()))
        }
        Some("allowed_tools") => {
            let mode = choice.pointer("/allowed_tools/mode").or_else(|| choice.get("mode"));
            match mode.and_then(Value::as_str) {
                Some("required") => Ok(ToolChoice::Required),
                _ => Ok(ToolChoice::Auto),
            }
        }
        Some("auto") => Ok(ToolChoice::Auto),
        Some("none") => Ok(ToolChoice::None),
        _ => Err(wrong()),
    }
}
