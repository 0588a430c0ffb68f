//! Messages and tools in the form of transformers' chat templates.

use std::borrow::Cow;

use minijinja::{Value, value::Serde};
use serde_json::Map;

use crate::error::Result;
use crate::text::channels::{ToolCall, changed, collect_texts};
use crate::text::message::{Message, Role};
use crate::text::render_options::RenderOptions;
use crate::text::tool::Tool;

/// Marks that templates look for in the model's own answers, to omit thoughts.
const CHANNEL_MARKS: [&str; 2] = ["<|channel>", "<channel|>"];

/// Replaces the control tokens in a text, except those that the template handles.
pub(super) type Mask<'a> = dyn FnMut(&str, &[&str]) -> Result<String> + 'a;

/// All texts that a template could write.
pub(super) fn texts<'a>(messages: &'a [Message], options: &'a RenderOptions) -> Vec<Cow<'a, str>> {
    let mut texts: Vec<Cow<'_, str>> = messages.iter().flat_map(message_texts).collect();
    let mut others = Vec::new();
    for tool in &options.tools {
        others.extend([tool.name.as_str(), tool.description.as_str()]);
        collect_texts(&tool.parameters, &mut others);
    }
    for (name, value) in &options.variables {
        others.push(name);
        collect_texts(value, &mut others);
    }
    texts.extend(others.into_iter().map(Cow::Borrowed));
    texts
}

fn message_texts(message: &Message) -> Vec<Cow<'_, str>> {
    let calls = message.tool_calls().flat_map(ToolCall::texts).map(Cow::Borrowed);
    let of = message.result_of().into_iter();
    let names = of.flat_map(|of| of.call_id.as_deref().into_iter().chain(of.tool.as_deref()));
    let texts = [message.content()].into_iter().chain(message.reasoning());
    texts.chain(calls).chain(names.map(Cow::Borrowed)).collect()
}

/// A message for a template.
pub(super) fn message(message: &Message, mask: &mut Mask<'_>) -> Result<Value> {
    let kept: &[&str] = match message.role {
        Role::Assistant => &CHANNEL_MARKS,
        Role::System | Role::User | Role::Tool => &[],
    };
    let content = Value::from(mask(&message.content(), kept)?);
    let mut fields = vec![("role", Value::from(message.role.name())), ("content", content)];
    if let Some(reasoning) = message.reasoning() {
        // A template uses one of the two names.
        let reasoning = Value::from(mask(&reasoning, &[])?);
        fields.extend([("reasoning", reasoning.clone()), ("reasoning_content", reasoning)]);
    }
    let mut mask = |text: &str| mask(text, &[]);
    let calls = message.tool_calls().map(|call| call.with_texts(&mut mask));
    let calls = calls.collect::<Result<Vec<ToolCall>>>()?;
    if !calls.is_empty() {
        fields.push(("tool_calls", Value::from(Serde(&calls))));
    }
    if let Some(of) = message.result_of() {
        for (name, text) in [("tool_call_id", &of.call_id), ("name", &of.tool)] {
            if let Some(text) = text {
                fields.push((name, Value::from(mask(text)?)));
            }
        }
    }
    Ok(Value::from_pairs(fields))
}

/// The tools for a template. None without tools, which templates test.
pub(super) fn tools(tools: &[Tool], mask: &mut Mask<'_>) -> Result<Value> {
    let mut mask = |text: &str| mask(text, &[]);
    let tool = |tool: &Tool| changed(&tool.for_template(), &mut mask);
    let tools = tools.iter().map(tool).collect::<Result<Vec<_>>>()?;
    Ok(if tools.is_empty() { Value::from(()) } else { Value::from(Serde(&tools)) })
}

/// Further variables. The template's standard ones take precedence.
pub(super) fn variables(
    variables: &Map<String, serde_json::Value>,
    mask: &mut Mask<'_>,
) -> Result<Value> {
    let mut mask = |text: &str| mask(text, &[]);
    let variable = |(name, value): (&String, &serde_json::Value)| {
        Ok((name.clone(), Value::from(Serde(&changed(value, &mut mask)?))))
    };
    Ok(Value::from_pairs(variables.iter().map(variable).collect::<Result<Vec<_>>>()?))
}
