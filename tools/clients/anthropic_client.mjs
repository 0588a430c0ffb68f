// The npm package @anthropic-ai/sdk: messages and their stream helper.
import assert from "node:assert/strict";
import Anthropic from "@anthropic-ai/sdk";

const script = new Anthropic({ baseURL: process.argv[2], apiKey: "any" });
const random = new Anthropic({ baseURL: process.env.RANDOM, authToken: "any", apiKey: null });
const properties = { city: { type: "string" }, days: { type: "integer" } };
const tools = [
  { name: "sky", input_schema: { type: "object", properties } },
  { name: "list", input_schema: { type: "object" } },
];
const thinking = { type: "enabled", budget_tokens: 1024 };
const ask = { model: "script", max_tokens: 2000, tools, thinking };

const messages = [{ role: "user", content: "weather?" }];
const first = await script.messages.stream({ messages, ...ask }).finalMessage();
assert.equal(first.stop_reason, "tool_use");
assert.deepEqual(
  first.content.map((block) => block.type),
  ["thinking", "text", "tool_use", "tool_use"],
);
assert.deepEqual(first.content[2].input, { city: 'Paris, {FR} "x"', days: 3 });
const results = ["sunny then", "sunny then rainy"].map((content, at) => {
  return { type: "tool_result", tool_use_id: first.content[2 + at].id, content };
});
messages.push({ role: "assistant", content: first.content }, { role: "user", content: results });
const last = await script.messages.create({ messages, ...ask });
assert.equal(last.content.at(-1).text, "It rains.");
const count = await script.messages.countTokens({ model: "script", messages, tools });
assert.ok(count.input_tokens > 50);

const model = (await random.models.list()).data[0].id;
const long = [{ role: "user", content: "word ".repeat(300) }];
const greedy = { model, messages: long, max_tokens: 8, temperature: 0 };
const whole = await random.messages.create(greedy);
const streamed = await random.messages.stream(greedy).finalMessage();
assert.deepEqual(streamed.content, whole.content);
await assert.rejects(random.messages.create({ ...greedy, model: "other" }), { status: 404 });
