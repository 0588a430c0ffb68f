// The npm package openai: chats and responses, with its accumulating helpers.
import assert from "node:assert/strict";
import OpenAI from "openai";

const script = new OpenAI({ baseURL: `${process.argv[2]}/v1`, apiKey: "any" });
const random = new OpenAI({ baseURL: `${process.env.RANDOM}/v1`, apiKey: "any" });
const properties = { city: { type: "string" }, days: { type: "integer" } };
const parameters = { type: "object", properties };
const functions = [{ name: "sky", description: "The sky", parameters }, { name: "list" }];
const tools = functions.map((tool) => ({ type: "function", function: tool }));
const expected = { city: 'Paris, {FR} "x"', days: 3 };

// The helper raises for pieces without role, index or reason.
const messages = [{ role: "user", content: "weather?" }];
const ask = { model: "script", tools, reasoning_effort: "high" };
const stream = script.chat.completions.stream({ messages, ...ask });
const first = await stream.finalChatCompletion();
const { message, finish_reason } = first.choices[0];
assert.equal(finish_reason, "tool_calls");
assert.equal(message.content, "I call.");
assert.deepEqual(JSON.parse(message.tool_calls[0].function.arguments), expected);
messages.push(message);
for (const [at, content] of ["sunny then", "sunny then rainy"].entries()) {
  messages.push({ role: "tool", tool_call_id: message.tool_calls[at].id, content });
}
const last = await script.chat.completions.create({ messages, ...ask });
assert.equal(last.choices[0].message.content, "It rains.");

// The helper raises for events of unknown types or in another order.
const input = [{ role: "user", content: "weather?" }];
const request = {
  model: "script",
  tools: functions.map((tool) => ({ type: "function", strict: false, ...tool })),
  reasoning: { effort: "medium" },
  store: false,
};
const events = script.responses.stream({ input, ...request });
const response = await events.finalResponse();
assert.equal(response.output_text, "I call.");
const calls = response.output.filter((item) => item.type === "function_call");
assert.deepEqual(JSON.parse(calls[0].arguments), expected);
input.push(...response.output);
for (const [at, output] of ["sunny then", "sunny then rainy"].entries()) {
  input.push({ type: "function_call_output", call_id: calls[at].call_id, output });
}
const answer = await script.responses.create({ input, ...request });
assert.equal(answer.output_text, "It rains.");

const model = (await random.models.list()).data[0].id;
const long = [{ role: "user", content: "word ".repeat(300) }];
const greedy = { model, messages: long, max_tokens: 8, temperature: 0 };
const whole = await random.chat.completions.create(greedy);
let joined = "";
for await (const chunk of await random.chat.completions.create({ stream: true, ...greedy })) {
  joined += chunk.choices[0]?.delta?.content ?? "";
}
assert.equal(joined, whole.choices[0].message.content);
const unknown = random.chat.completions.create({ ...greedy, model: "other" });
await assert.rejects(unknown, { status: 404 });
