//! Which call a tool's result belongs to.

use crate::text::{Message, Part, ResultOf, Role};

/// Completes ids and names of results, which templates need. A result without either belongs to the
/// oldest call without a result.
///
/// Errors in words: a result without a call.
pub fn name_results(messages: &mut [Message]) -> Result<(), String> {
    // Calls so far, and whether a result has come: id and name.
    let mut calls: Vec<(Option<String>, String, bool)> = Vec::new();
    for (at, message) in messages.iter_mut().enumerate() {
        calls.extend(message.tool_calls().map(|call| (call.id.clone(), call.name.clone(), false)));
        if message.role != Role::Tool {
            continue;
        }
        let of = message.result_of().cloned().unwrap_or_default();
        let fits =
            |(id, name, has_result): &(Option<String>, String, bool)| match (&of.call_id, &of.tool)
            {
                (Some(wanted), _) if id.is_some() => id.as_ref() == Some(wanted),
                (_, Some(tool)) => name == tool && !has_result,
                (_, None) => !has_result,
            };
        let Some((id, name, has_result)) = calls.iter_mut().find(|call| fits(call)) else {
            let id = of.call_id.or(of.tool).unwrap_or_default();
            return Err(format!("messages[{at}]: no call before it has the id or name {id:?}"));
        };
        *has_result = true;
        let of = ResultOf { call_id: of.call_id.or_else(|| id.clone()), tool: Some(name.clone()) };
        message.parts.retain(|part| !matches!(part, Part::ResultOf(_)));
        message.parts.insert(0, Part::ResultOf(of));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::ToolCall;

    fn call(id: Option<&str>, name: &str) -> Part {
        let call = ToolCall::new(name, serde_json::Map::new());
        Part::ToolCall(ToolCall { id: id.map(str::to_owned), ..call })
    }

    fn result(id: Option<&str>, tool: Option<&str>) -> Message {
        let of = ResultOf { call_id: id.map(str::to_owned), tool: tool.map(str::to_owned) };
        Message::tool_result(of, "r")
    }

    fn names(parts: Vec<Part>, results: Vec<Message>) -> Result<Vec<String>, String> {
        let calls = Message { role: Role::Assistant, parts };
        let mut messages = [vec![calls], results].concat();
        name_results(&mut messages)?;
        let tool = |message: &Message| message.result_of().unwrap().tool.clone().unwrap();
        Ok(messages[1..].iter().map(tool).collect())
    }

    #[test]
    fn results_find_their_calls() {
        let calls = || vec![call(Some("1"), "f"), call(Some("2"), "g"), call(Some("3"), "f")];
        let by_id = vec![result(Some("2"), None), result(Some("1"), Some("other"))];
        assert_eq!(names(calls(), by_id).unwrap(), ["g", "f"]);
        let by_name = vec![result(None, Some("g")), result(None, Some("f")), result(None, None)];
        assert_eq!(names(calls(), by_name).unwrap(), ["g", "f", "f"]);
        let without_ids = vec![call(None, "f"), call(None, "g")];
        let results = vec![result(Some("x"), None), result(None, None)];
        assert_eq!(names(without_ids, results).unwrap(), ["f", "g"]);
        let error = names(calls(), vec![result(Some("4"), None)]).unwrap_err();
        assert!(error.contains("\"4\""), "{error}");
        assert!(names(vec![call(None, "f")], vec![result(None, Some("g"))]).is_err());
        assert!(names(Vec::new(), vec![result(None, None)]).is_err());
    }
}
