// The package @anthropic-ai/sdk, against play/sdk.json.
import assert from "node:assert/strict";
import Anthropic, { BadRequestError } from "@anthropic-ai/sdk";

const model = "deepseek-v4-flash";
const client = new Anthropic({ baseURL: process.env.DS4_URL, apiKey: "local", maxRetries: 0 });
const user = (content) => [{ role: "user", content }];
const weather = { name: "weather", description: "The weather of a city",
                  input_schema: { type: "object", properties: { city: { type: "string" } },
                                  required: ["city"] } };
const thinking = { type: "enabled", budget_tokens: 2000 };
const text_of = (message) => message.content.filter((b) => b.type === "text").map((b) => b.text).join("");

export async function messages_answer() {
  const reply = await client.messages.create({
    model, max_tokens: 4000, thinking, messages: user("TASK-HELLO") });
  assert.deepEqual(reply.content.map((block) => block.type), ["thinking", "text"]);
  assert.equal(reply.content[0].thinking, "A greeting.");
  assert.ok(reply.content[0].signature);
  assert.equal(reply.content[1].text, "Hello.");
  assert.equal(reply.stop_reason, "end_turn");
  assert.ok(reply.usage.output_tokens > 0);
}

export async function messages_stream() {
  const kinds = [];
  const stream = client.messages.stream({ model, max_tokens: 4000, thinking, messages: user("TASK-HELLO") })
    .on("streamEvent", (event) => kinds.push(event.type));
  const reply = await stream.finalMessage();
  assert.equal(text_of(reply), "Hello.");
  assert.equal(reply.content[0].thinking, "A greeting.");
  assert.ok(reply.content[0].signature);
  const { input_tokens, cache_creation_input_tokens, cache_read_input_tokens } = reply.usage;
  assert.ok(input_tokens + cache_creation_input_tokens + cache_read_input_tokens > 0);
  assert.equal(kinds[0], "message_start");
  assert.deepEqual(kinds.slice(-2), ["message_delta", "message_stop"]);
}

export async function messages_without_thinking() {
  const reply = await client.messages.create({
    model, max_tokens: 100, thinking: { type: "disabled" }, messages: user("TASK-PLAIN") });
  assert.deepEqual(reply.content.map((block) => block.type), ["text"]);
  assert.equal(reply.content[0].text, "No thoughts.");
}

export async function messages_call_tools() {
  const asked = [];
  const run = async (input) => { asked.push(input.city); return `${input.city}: 21 degrees`; };
  for (const stream of [false, true]) {
    const runner = client.beta.messages.toolRunner({
      model, max_tokens: 4000, messages: user("TASK-WEATHER"), stream,
      tools: [{ ...weather, run, parse: (input) => input }] });
    const reply = await runner.runUntilDone();
    assert.equal(text_of(reply), "Warm in both.");
  }
  assert.deepEqual(asked, ["Paris", "Oslo", "Paris", "Oslo"]);
}

export async function messages_stop_at_a_sequence() {
  const reply = await client.messages.create({
    model, max_tokens: 100, thinking: { type: "disabled" }, messages: user("TASK-COUNT"),
    stop_sequences: ["four"] });
  assert.equal(reply.stop_reason, "stop_sequence");
  assert.equal(reply.stop_sequence, "four");
  assert.equal(text_of(reply), "one two three ");
}

export async function tokens_are_counted() {
  const counts = await Promise.all(Array.from({ length: 23 }, (_, i) =>
    client.messages.countTokens({ model, messages: user("word ".repeat(i + 1)), tools: [weather] })));
  const numbers = counts.map((count) => count.input_tokens);
  assert.ok(numbers.every((n, i) => i === 0 || n > numbers[i - 1]), `${numbers}`);
  const reply = await client.messages.create({
    model, max_tokens: 10, messages: user("word "), tools: [weather] });
  const { input_tokens, cache_creation_input_tokens, cache_read_input_tokens } = reply.usage;
  assert.equal(input_tokens + cache_creation_input_tokens + cache_read_input_tokens, numbers[0]);
}

export async function models_are_listed() {
  const names = [];
  for await (const one of client.models.list()) names.push(one.id);
  assert.ok(names.includes(model), `${names}`);
}

export async function errors_are_typed() {
  const ask = (more) => client.messages.create({ model, max_tokens: 10, messages: user("TASK-HELLO"), ...more });
  await assert.rejects(ask({ messages: user("word ".repeat(30000)) }), (error) =>
    error instanceof BadRequestError &&
    /^prompt is too long: \d+ tokens > 16384 maximum$/.test(error.error.error.message));
  await assert.rejects(ask({ tool_choice: { type: "tool", name: "none_of_that_name" } }), (error) =>
    error instanceof BadRequestError && error.error.error.type === "invalid_request_error");
}
