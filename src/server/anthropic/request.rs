//! Requests in the common form.

use serde_json::{Value, json};

use super::blocks;
use crate::api::ChatOptions;
use crate::grammar::Format;
use crate::server::chat::{ChatRequest, Generation, ToolChoice};
use crate::server::error::ApiError;
use crate::server::fields::Fields;
use crate::server::openai;
use crate::text::{Message, Role, Tool};

/// The line that older versions of Claude Code put before the system prompt. It differs in every
/// request, so that no prompt would begin like the one before.
const BILLING_LINE: &str = "x-anthropic-billing-header:";

/// Reads a request for an answer or for a count of its tokens.
///
/// Errors: a field or block of a wrong form.
pub fn parse(fields: &mut Fields, keep_billing_line: bool) -> Result<ChatRequest, ApiError> {
    let format = format(fields)?;
    let single_call = match fields.object("tool_choice")? {
        Some(choice) => choice.flag("disable_parallel_tool_use")?.unwrap_or(false),
        None => false,
    };
    let most = openai::tokens(fields.whole("max_tokens", 1..=u64::MAX)?);
    let sampling = openai::sampling_fields(fields)?;
    let thinking = thinking(fields)?;
    let options = ChatOptions { max_new_tokens: most, thinking, ..sampling };
    let stop = openai::stops(fields, "stop_sequences")?;
    let mut messages = Vec::new();
    let system = system(fields.take("system"), keep_billing_line)?;
    messages.extend((!system.is_empty()).then(|| Message::new(Role::System, system)));
    messages.extend(blocks::messages(fields.take("messages"))?);
    Ok(ChatRequest {
        messages,
        tools: tools(fields.take("tools"))?,
        tool_choice: tool_choice(fields)?,
        single_call,
        generation: Generation { options, stop, ..Generation::default() }.with_format(format),
        ..ChatRequest::default()
    })
}

/// The form of the answer: `output_config.format`, or the older `output_format`.
fn format(fields: &Fields) -> Result<Option<Format>, ApiError> {
    let by_config = match fields.object("output_config")? {
        Some(config) => config.object("format")?,
        None => None,
    };
    let (name, format) = match by_config {
        Some(format) => ("output_config.format", Some(format)),
        None => ("output_format", fields.object("output_format")?),
    };
    format.map_or(Ok(None), |format| openai::typed_format(name, &format))
}

fn thinking(fields: &Fields) -> Result<bool, ApiError> {
    let kind = fields.object("thinking")?;
    match kind.as_ref().map(|kind| kind.text("type")).transpose()?.flatten() {
        None | Some("disabled") => Ok(false),
        Some("enabled" | "adaptive") => Ok(true),
        Some(_) => {
            let message = "thinking.type must be enabled, adaptive or disabled";
            Err(ApiError::bad_field("thinking", message))
        }
    }
}

/// The system prompt: a text, or text blocks.
fn system(system: Option<Value>, keep_billing_line: bool) -> Result<String, ApiError> {
    let wrong =
        || ApiError::bad_field("system", "system must be a string or a list of text blocks");
    let mut texts: Vec<String> = match system {
        None => return Ok(String::new()),
        Some(Value::String(text)) => vec![text],
        Some(Value::Array(blocks)) => {
            let text = |block: &Value| match block["type"].as_str() {
                Some("text") => block["text"].as_str().map(str::to_owned),
                _ => None,
            };
            blocks.iter().map(text).collect::<Option<_>>().ok_or_else(wrong)?
        }
        Some(_) => return Err(wrong()),
    };
    if !keep_billing_line
        && let Some(first) = texts.first_mut()
        && first.starts_with(BILLING_LINE)
    {
        *first = first.split_once('\n').map_or("", |(_, rest)| rest).trim_start().to_owned();
    }
    texts.retain(|text| !text.is_empty());
    Ok(texts.join("\n\n"))
}

/// Tools with a schema. Those that Anthropic's servers would run themselves are skipped.
fn tools(tools: Option<Value>) -> Result<Vec<Tool>, ApiError> {
    let wrong = |reason: &str| ApiError::bad_field("tools", format!("tools {reason}"));
    let tools = match tools {
        None => return Ok(Vec::new()),
        Some(Value::Array(tools)) => tools,
        Some(_) => return Err(wrong("must be a list")),
    };
    let mut functions = Vec::new();
    for tool in &tools {
        let is_own = matches!(tool["type"].as_str(), None | Some("custom"));
        if !tool.is_object() || is_own && !tool["name"].is_string() {
            return Err(wrong("has a tool without name"));
        }
        if !is_own {
            continue;
        }
        let mut function = json!({"name": tool["name"], "parameters": tool["input_schema"]});
        function["description"] = tool["description"].clone();
        let function = openai::function_of(&function);
        functions.push(function.ok_or_else(|| wrong("has a field of a wrong type"))?);
    }
    Ok(functions)
}

fn tool_choice(fields: &Fields) -> Result<ToolChoice, ApiError> {
    let wrong = || {
        let message = "tool_choice.type must be auto, any, none, or tool with a name";
        ApiError::bad_field("tool_choice", message)
    };
    let Some(choice) = fields.object("tool_choice")? else { return Ok(ToolChoice::Auto) };
    match (choice.text("type")?, choice.text("name")?) {
        (Some("auto"), _) => Ok(ToolChoice::Auto),
        (Some("any"), _) => Ok(ToolChoice::Required),
        (Some("none"), _) => Ok(ToolChoice::None),
        (Some("tool"), Some(name)) => Ok(ToolChoice::Named(name.to_owned())),
        _ => Err(wrong()),
    }
}
