// The npm package ai with @ai-sdk/openai-compatible: a loop over tools that the package runs.
import assert from "node:assert/strict";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const provider = (address) => {
  return createOpenAICompatible({ name: "local", baseURL: `${address}/v1`, includeUsage: true });
};
const script = provider(process.argv[2])("script");
const inputSchema = z.object({ city: z.string(), days: z.number().nullable() });
const tools = {
  sky: tool({ description: "The sky", inputSchema, execute: async () => "sunny then" }),
  list: tool({ inputSchema: z.object({}), execute: async () => "sunny then rainy" }),
};
const providerOptions = { local: { reasoningEffort: "high" } };
const ask = { model: script, prompt: "weather?", tools, stopWhen: stepCountIs(5), providerOptions };

const whole = await generateText(ask);
assert.equal(whole.text, "It rains.");
assert.equal(whole.steps.length, 2);
assert.equal(whole.steps[0].reasoningText, "Let me look.");
assert.deepEqual(whole.steps[0].toolCalls[0].input, { city: 'Paris, {FR} "x"', days: 3 });

const stream = streamText(ask);
let text = "";
for await (const piece of stream.textStream) text += piece;
assert.equal(text, "I call.It rains.");
assert.equal((await stream.steps).length, 2);
assert.ok((await stream.totalUsage).outputTokens > 0);

const models = await (await fetch(`${process.env.RANDOM}/v1/models`)).json();
const random = provider(process.env.RANDOM)(models.data[0].id);
const greedy = { model: random, prompt: "word ".repeat(300), maxOutputTokens: 8, temperature: 0 };
const answer = await generateText(greedy);
const streamed = streamText(greedy);
let joined = "";
for await (const piece of streamed.textStream) joined += piece;
assert.equal(joined, answer.text);
