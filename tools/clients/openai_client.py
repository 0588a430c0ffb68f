"""The Python package openai: chats, responses and completions, with its accumulating helpers."""

import json
import os
import sys

import openai

script = openai.OpenAI(base_url=f"{sys.argv[1]}/v1", api_key="any")
random = openai.OpenAI(base_url=f"{os.environ['RANDOM']}/v1", api_key="any")
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
SKY = {"name": "sky", "description": "The sky", "parameters": SCHEMA}
TOOLS = [{"type": "function", "function": tool} for tool in (SKY, {"name": "list"})]
ARGUMENTS = {"city": 'Paris, {FR} "x"', "days": 3}


def chat_loop():
    """Two calls, their results, and the answer."""
    messages = [{"role": "user", "content": "weather?"}]
    ask = {"model": "script", "tools": TOOLS, "reasoning_effort": "high"}
    first = script.chat.completions.create(messages=messages, **ask)
    choice = first.choices[0]
    assert choice.finish_reason == "tool_calls", choice
    assert choice.message.reasoning_content == "Let me look."
    sky, rest = choice.message.tool_calls
    assert json.loads(sky.function.arguments) == ARGUMENTS and rest.function.arguments == "{}"
    messages.append(choice.message)
    for call, text in ((sky, "sunny then"), (rest, "sunny then rainy")):
        messages.append({"role": "tool", "tool_call_id": call.id, "content": text})
    last = script.chat.completions.create(messages=messages, **ask)
    assert last.choices[0].message.content == "It rains.", last


def chat_stream():
    """The helper joins pieces and checks their order."""
    messages = [{"role": "user", "content": "weather?"}]
    options = {"stream_options": {"include_usage": True}, "reasoning_effort": "low"}
    ask = {"model": "script", "messages": messages, "tools": TOOLS}
    with script.chat.completions.stream(**ask, **options) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()
    assert "tool_calls.function.arguments.done" in kinds, kinds
    message = final.choices[0].message
    assert message.content == "I call." and len(message.tool_calls) == 2, message
    assert json.loads(message.tool_calls[0].function.arguments) == ARGUMENTS
    assert final.usage.completion_tokens > 0


def responses_loop():
    """A response's items go back as they came."""
    tools = [{"type": "function", **SKY, "strict": False}, {"type": "function", "name": "list"}]
    tools.append({"type": "web_search"})
    ask = {"model": "script", "tools": tools, "reasoning": {"effort": "medium"}, "store": False}
    items = [{"role": "user", "content": "weather?"}]
    with script.responses.stream(input=items, **ask) as stream:
        text = "".join(e.delta for e in stream if e.type == "response.output_text.delta")
        first = stream.get_final_response()
    assert text == first.output_text == "I call.", first
    assert [item.type for item in first.output][-2:] == ["function_call", "function_call"]
    items += first.output
    for item, result in zip(first.output[-2:], ("sunny then", "sunny then rainy")):
        items.append({"type": "function_call_output", "call_id": item.call_id, "output": result})
    last = script.responses.create(input=items, **ask)
    assert last.output_text == "It rains.", last
    assert last.usage.input_tokens > first.usage.input_tokens
    whole = script.responses.create(model="script", input="count!")
    assert whole.output_text == "one two three four five"


def random_model():
    """A model of 65,536 positions, whose answers are not known."""
    assert random.models.list().data[0].context_length == 65536
    name = random.models.list().data[0].id
    long = [{"role": "user", "content": "word " * 300}]
    ask = {"model": name, "messages": long, "max_tokens": 8, "temperature": 0}
    whole = random.chat.completions.create(**ask).choices[0].message.content
    pieces = random.chat.completions.create(stream=True, **ask)
    joined = "".join(chunk.choices[0].delta.content or "" for chunk in pieces)
    assert joined == whole, (joined, whole)
    text = random.completions.create(model=name, prompt="a", max_tokens=4, n=2)
    assert len(text.choices) == 2 and text.usage.completion_tokens <= 8


def faults():
    """Errors have the classes that programs catch."""
    try:
        script.chat.completions.create(model="other", messages=[{"role": "user", "content": "a"}])
        raise SystemExit("an unknown model was accepted")
    except openai.NotFoundError as error:
        assert error.code == "model_not_found", error
    try:
        script.embeddings.create(model="script", input="a")
        raise SystemExit("embeddings were accepted")
    except openai.BadRequestError as error:
        assert "embeddings" in error.message, error


for check in (chat_loop, chat_stream, responses_loop, random_model, faults):
    check()
