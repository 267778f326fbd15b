// The package openai: chat, completions and Responses, against play/sdk.json.
import assert from "node:assert/strict";
import OpenAI, { BadRequestError } from "openai";

const model = "deepseek-v4-flash";
const client = new OpenAI({ baseURL: `${process.env.DS4_URL}/v1`, apiKey: "local", maxRetries: 0 });
const user = (content) => [{ role: "user", content }];
const number = { type: "object", properties: { answer: { type: "integer" } }, required: ["answer"],
                 additionalProperties: false };
const weather = { name: "weather", description: "The weather of a city",
                  parameters: { type: "object", properties: { city: { type: "string" } },
                                required: ["city"], additionalProperties: false } };

export async function chat_answers() {
  const reply = await client.chat.completions.create({ model, messages: user("TASK-HELLO") });
  const { message, finish_reason } = reply.choices[0];
  assert.equal(message.content, "Hello.");
  assert.equal(message.reasoning_content, "A greeting.");
  assert.equal(finish_reason, "stop");
  assert.equal(reply.model, model);
  const { prompt_tokens, completion_tokens, total_tokens } = reply.usage;
  assert.ok(prompt_tokens > 0 && completion_tokens > 0);
  assert.equal(total_tokens, prompt_tokens + completion_tokens);
}

export async function chat_streams() {
  const stream = await client.chat.completions.create({
    model, messages: user("TASK-HELLO"), stream: true, stream_options: { include_usage: true } });
  let thoughts = "", text = "", ends = [], usage = null, ids = new Set();
  for await (const chunk of stream) {
    ids.add(chunk.id);
    usage = chunk.usage ?? usage;
    const choice = chunk.choices[0];
    thoughts += choice?.delta.reasoning_content ?? "";
    text += choice?.delta.content ?? "";
    if (choice?.finish_reason) ends.push(choice.finish_reason);
  }
  assert.equal(thoughts, "A greeting.");
  assert.equal(text, "Hello.");
  assert.deepEqual(ends, ["stop"]);
  assert.equal(ids.size, 1);
  assert.ok(usage.completion_tokens > 0 && usage.completion_tokens_details.reasoning_tokens > 0);
}

export async function chat_without_thinking() {
  const reply = await client.chat.completions.create({
    model, messages: user("TASK-PLAIN"), reasoning_effort: "none" });
  assert.equal(reply.choices[0].message.content, "No thoughts.");
  assert.equal(reply.choices[0].message.reasoning_content, undefined);
}

export async function chat_runs_tools() {
  const asked = [];
  const tool = { type: "function", function: { ...weather, parse: JSON.parse,
    function: ({ city }) => { asked.push(city); return `${city}: 21 degrees`; } } };
  for (const stream of [false, true]) {
    const runner = client.chat.completions.runTools({
      model, messages: user("TASK-WEATHER"), tools: [tool], stream });
    assert.equal(await runner.finalContent(), "Warm in both.");
  }
  assert.deepEqual(asked, ["Paris", "Oslo", "Paris", "Oslo"]);
}

export async function chat_gives_json_by_a_schema() {
  const reply = await client.chat.completions.parse({
    model, messages: user("TASK-JSON"),
    response_format: { type: "json_schema", json_schema: { name: "n", schema: number, strict: true } } });
  assert.deepEqual(JSON.parse(reply.choices[0].message.content), { answer: 42 });
}

export async function chat_stops_at_a_word_and_at_a_length() {
  const ask = (more) => client.chat.completions.create({
    model, messages: user("TASK-COUNT"), reasoning_effort: "none", ...more });
  let choice = (await ask({ stop: ["four"] })).choices[0];
  assert.equal(choice.message.content, "one two three ");
  assert.equal(choice.finish_reason, "stop");
  choice = (await ask({ max_tokens: 3 })).choices[0];
  assert.ok(choice.message.content.length < "one two three four five six".length);
  assert.equal(choice.finish_reason, "length");
}

export async function completions_continue_a_text() {
  const reply = await client.completions.create({ model, prompt: "TASK-ONCE upon", max_tokens: 100 });
  assert.equal(reply.choices[0].text, " a time.");
  assert.equal(reply.choices[0].finish_reason, "stop");
  let text = "";
  const stream = await client.completions.create({
    model, prompt: "TASK-ONCE upon", max_tokens: 100, stream: true });
  for await (const chunk of stream) text += chunk.choices[0]?.text ?? "";
  assert.equal(text, " a time.");
}

export async function responses_answer() {
  const reply = await client.responses.create({ model, input: "TASK-HELLO", reasoning: { summary: "auto" } });
  assert.equal(reply.output_text, "Hello.");
  assert.equal(reply.status, "completed");
  assert.deepEqual(reply.output.map((item) => item.type), ["reasoning", "message"]);
  assert.equal(reply.output[0].summary[0].text, "A greeting.");
}

export async function responses_stream() {
  const numbers = [];
  const stream = client.responses.stream({ model, input: "TASK-HELLO" })
    .on("event", (event) => numbers.push(event.sequence_number));
  const reply = await stream.finalResponse();
  assert.equal(reply.output_text, "Hello.");
  assert.deepEqual(numbers, numbers.map((_, i) => i));
}

export async function responses_go_on_from_a_stored_one() {
  const tools = [{ type: "function", strict: true, ...weather }];
  const first = await client.responses.create({ model, input: "TASK-WEATHER", tools });
  const calls = first.output.filter((item) => item.type === "function_call");
  assert.deepEqual(calls.map((call) => JSON.parse(call.arguments).city), ["Paris", "Oslo"]);
  const second = await client.responses.create({
    model, tools, previous_response_id: first.id,
    input: calls.map((call) => ({ type: "function_call_output", call_id: call.call_id,
                                  output: `${JSON.parse(call.arguments).city}: 21 degrees` })) });
  assert.equal(second.output_text, "Warm in both.");
  const kept = await client.responses.retrieve(second.id);
  assert.equal(kept.output_text, "Warm in both.");
  await client.responses.delete(second.id);
  await assert.rejects(client.responses.retrieve(second.id), (error) => error.status === 404);
}

export async function responses_give_json_by_a_schema() {
  const reply = await client.responses.parse({
    model, input: "TASK-JSON",
    text: { format: { type: "json_schema", name: "n", schema: number, strict: true } } });
  assert.deepEqual(JSON.parse(reply.output_text), { answer: 42 });
}

export async function models_are_listed() {
  const names = [];
  for await (const one of client.models.list()) names.push(one.id);
  assert.ok(names.includes(model), `${names}`);
  assert.equal((await client.models.retrieve(model)).id, model);
}

export async function errors_are_typed() {
  const ask = (more) => client.chat.completions.create({ model, messages: user("TASK-HELLO"), ...more });
  await assert.rejects(ask({ n: 2 }), (error) =>
    error instanceof BadRequestError && error.param === "n" && error.type === "invalid_request_error");
  await assert.rejects(ask({ messages: user("word ".repeat(30000)) }), (error) =>
    error instanceof BadRequestError && error.code === "context_length_exceeded");
  await assert.rejects(client.embeddings.create({ model, input: "x" }), (error) => error.status === 501);
}

export async function a_stream_given_up_frees_the_server() {
  const stream = await client.chat.completions.create({
    model, messages: user("TASK-ENDLESS"), stream: true });
  for await (const chunk of stream) {
    if (chunk.choices[0]?.delta.content) break;
  }
  const end = Date.now() + 3000;
  for (;;) {
    const status = await (await fetch(`${process.env.DS4_URL}/status`)).json();
    if (status.slots.every((slot) => slot.state === "idle")) return;
    assert.ok(Date.now() < end, JSON.stringify(status));
  }
}
