// The packages ai and @ai-sdk/openai-compatible, against play/sdk.json.
import assert from "node:assert/strict";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { Output, generateText, isStepCount, jsonSchema, streamText, tool } from "ai";

const provider = createOpenAICompatible({
  name: "ds4", baseURL: `${process.env.DS4_URL}/v1`, apiKey: "local", includeUsage: true,
  supportsStructuredOutputs: true });
const model = provider("deepseek-v4-flash");
const weather = (asked) => tool({
  description: "The weather of a city",
  inputSchema: jsonSchema({ type: "object", properties: { city: { type: "string" } },
                            required: ["city"], additionalProperties: false }),
  execute: async ({ city }) => { asked.push(city); return `${city}: 21 degrees`; } });

export async function text_is_generated() {
  const reply = await generateText({ model, prompt: "TASK-HELLO", maxRetries: 0 });
  assert.equal(reply.text, "Hello.");
  assert.equal(reply.reasoningText, "A greeting.");
  assert.equal(reply.finishReason, "stop");
  assert.ok(reply.usage.inputTokens > 0 && reply.usage.outputTokens > 0);
}

export async function text_is_streamed() {
  const reply = streamText({ model, prompt: "TASK-HELLO", maxRetries: 0 });
  let text = "";
  for await (const piece of reply.textStream) text += piece;
  assert.equal(text, "Hello.");
  assert.equal(await reply.reasoningText, "A greeting.");
  assert.ok((await reply.usage).outputTokens > 0);
}

export async function tools_are_called() {
  const asked = [];
  const options = () => ({ model, prompt: "TASK-WEATHER", tools: { weather: weather(asked) },
                           stopWhen: isStepCount(5), maxRetries: 0 });
  const whole = await generateText(options());
  assert.equal(whole.text, "Warm in both.");
  assert.equal(await streamText(options()).text, "Warm in both.");
  assert.deepEqual(asked, ["Paris", "Oslo", "Paris", "Oslo"]);
}

export async function an_object_is_generated() {
  const schema = jsonSchema({ type: "object", properties: { answer: { type: "integer" } },
                              required: ["answer"], additionalProperties: false });
  const reply = await generateText({ model, prompt: "TASK-JSON", output: Output.object({ schema }),
                                     maxRetries: 0 });
  assert.deepEqual(reply.output, { answer: 42 });
}
