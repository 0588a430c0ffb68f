"""The Python package ollama: chats with tools, prompts, and facts about the model."""

import os
import sys

import ollama

script = ollama.Client(host=sys.argv[1])
random = ollama.Client(host=os.environ["RANDOM"])


def sky(city: str, days: int) -> str:
    """The sky of a city.

    Args:
      city: The city
      days: How many days
    """
    return f"sunny then{city}{days}"




def loop():
    """The package makes tools of functions."""
    tool = {"type": "function", "function": {"name": "list"}}
    messages = [{"role": "user", "content": "weather?"}]
    ask = {"model": "script", "tools": [sky, tool], "think": True}
    first = script.chat(messages=messages, **ask)
    assert first.message.thinking == "Let me look." and first.message.content == "I call."
    calls = first.message.tool_calls
    assert [call.function.name for call in calls] == ["sky", "list"], calls
    assert calls[0].function.arguments == {"city": 'Paris, {FR} "x"', "days": 3}
    messages.append(first.message)
    for call, text in zip(calls, ("sunny then", "sunny then rainy")):
        messages.append({"role": "tool", "tool_name": call.function.name, "content": text})
    pieces = list(script.chat(messages=messages, stream=True, **ask))
    assert "".join(piece.message.content or "" for piece in pieces) == "It rains.", pieces
    assert pieces[-1].done and pieces[-1].done_reason == "stop"


def facts():
    """What front ends show."""
    assert script.list().models[0].model == "script"
    assert set(script.show("script").capabilities) == {"completion", "tools", "thinking"}
    assert script.ps().models[0].name == "script"
    assert script.generate(model="script", prompt="count!").response == "one two three four five"
    name = random.list().models[0].model
    options = {"num_predict": 8, "temperature": 0}
    whole = random.generate(model=name, prompt="word " * 300, options=options)
    pieces = random.generate(model=name, prompt="word " * 300, options=options, stream=True)
    assert "".join(piece.response for piece in pieces) == whole.response
    try:
        script.chat(model="other", messages=[{"role": "user", "content": "a"}])
        raise SystemExit("an unknown model was accepted")
    except ollama.ResponseError as error:
        assert error.status_code == 404, error


loop()
facts()
