"""The Python package anthropic: messages, their stream helper, and counts of tokens."""

import os
import sys

import anthropic

script = anthropic.Anthropic(base_url=sys.argv[1], api_key="any")
random = anthropic.Anthropic(base_url=os.environ["RANDOM"], auth_token="any")
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
TOOLS = [
    {"name": "sky", "description": "The sky", "input_schema": SCHEMA},
    {"name": "list", "input_schema": {"type": "object"}},
]
THINKING = {"type": "enabled", "budget_tokens": 1024}
ASK = {"model": "script", "max_tokens": 2000, "tools": TOOLS, "thinking": THINKING}


def loop():
    """Thoughts, calls and results go back as they came."""
    messages = [{"role": "user", "content": "weather?"}]
    with script.messages.stream(messages=messages, **ASK) as stream:
        kinds = {event.type for event in stream}
        first = stream.get_final_message()
    assert {"thinking", "text", "input_json", "message_stop"} <= kinds, kinds
    assert first.stop_reason == "tool_use", first
    thinking, text, sky, rest = first.content
    assert (thinking.thinking, text.text) == ("Let me look.", "I call.")
    assert sky.input == {"city": 'Paris, {FR} "x"', "days": 3} and rest.input == {}
    results = [
        {"type": "tool_result", "tool_use_id": sky.id, "content": "sunny then"},
        {"type": "tool_result", "tool_use_id": rest.id, "content": [
            {"type": "text", "text": "sunny then rainy"}]},
    ]
    messages += [
        {"role": "assistant", "content": first.content},
        {"role": "user", "content": results},
    ]
    last = script.messages.create(messages=messages, **ASK)
    assert last.content[-1].text == "It rains." and last.stop_reason == "end_turn", last
    count = script.messages.count_tokens(model="script", messages=messages, tools=TOOLS)
    assert count.input_tokens > 50


def random_model():
    """A model of 65,536 positions, whose answers are not known."""
    name = random.models.list().data[0].id
    ask = {"model": name, "max_tokens": 8, "extra_body": {"temperature": 0}}
    ask["messages"] = [{"role": "user", "content": "word " * 300}]
    whole = random.messages.create(system="Be brief.", **ask)
    with random.messages.stream(system="Be brief.", **ask) as stream:
        assert "".join(stream.text_stream) == "".join(b.text for b in whole.content)
    assert whole.usage.input_tokens > 300


def faults():
    """Errors have the classes that programs catch."""
    try:
        script.messages.create(model="other", max_tokens=1, messages=ask_nothing())
        raise SystemExit("an unknown model was accepted")
    except anthropic.NotFoundError as error:
        assert error.body["error"]["type"] == "not_found_error", error


def ask_nothing():
    return [{"role": "user", "content": "a"}]


for check in (loop, random_model, faults):
    check()
