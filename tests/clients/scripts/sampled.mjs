// Real sampling with the bundled model, which is small and knows little. What is claimed of
// every answer holds by construction, whatever it samples.
import assert from "node:assert/strict";
import OpenAI from "openai";

const model = "deepseek-v4-flash";
const client = new OpenAI({ baseURL: `${process.env.DS4_URL}/v1`, apiKey: "local", maxRetries: 0 });
const SEEDS = 200, TOGETHER = 8;
const chat = (content, more) => client.chat.completions.create({
  model, messages: [{ role: "user", content }], reasoning_effort: "none", ...more });

const weather = { type: "function", function: {
  name: "get_weather", description: "Get the weather of a city", strict: true,
  parameters: {
    type: "object",
    properties: {
      city: { type: "string", enum: ["Beijing", "Paris", "New York"] },
      days: { type: "integer", minimum: 1, maximum: 14 },
      units: { type: "string", enum: ["celsius", "fahrenheit"] },
      detailed: { type: "boolean" } },
    required: ["city", "days"], additionalProperties: false } } };

// The same in our own words, so that no schema library is believed.
function is_weather(call) {
  const { city, days, units, detailed, ...others } = call;
  return ["Beijing", "Paris", "New York"].includes(city) && Number.isInteger(days) &&
         days >= 1 && days <= 14 && [undefined, "celsius", "fahrenheit"].includes(units) &&
         [undefined, true, false].includes(detailed) && Object.keys(others).length === 0;
}

const person = {
  type: "object",
  properties: {
    name: { type: "string", maxLength: 20 },
    age: { type: "integer", minimum: 0, maximum: 130 },
    height: { anyOf: [{ type: "number", exclusiveMinimum: 0, maximum: 3 }, { type: "null" }] },
    tags: { type: "array", items: { enum: ["tall", "kind", "loud"] }, maxItems: 3 },
    home: { $ref: "#/$defs/place" } },
  required: ["name", "age", "height", "tags", "home"], additionalProperties: false,
  $defs: { place: { type: "object", properties: { city: { type: "string", pattern: "^[A-Z][a-z]{1,9}$" } },
                    required: ["city"], additionalProperties: false } } };

function is_person(value) {
  const { name, age, height, tags, home, ...others } = value;
  return typeof name === "string" && [...name].length <= 20 &&
         Number.isInteger(age) && age >= 0 && age <= 130 &&
         (height === null || (typeof height === "number" && height > 0 && height <= 3)) &&
         Array.isArray(tags) && tags.length <= 3 &&
         tags.every((tag) => ["tall", "kind", "loud"].includes(tag)) &&
         /^[A-Z][a-z]{1,9}$/.test(home.city) && Object.keys(home).length === 1 &&
         Object.keys(others).length === 0;
}

// Ask once for every seed, some together; throws with what was wrong of how many. The answers,
// as text, must differ among the seeds: else nothing was sampled.
async function for_seeds(count, ask) {
  const wrong = [], answers = new Set();
  let next = 0;
  const worker = async () => {
    while (next < count) {
      const seed = next++;
      try { answers.add(await ask(seed)); } catch (error) { wrong.push(`seed ${seed}: ${error.message}`); }
    }
  };
  await Promise.all(Array.from({ length: TOGETHER }, worker));
  assert.equal(wrong.length, 0, `${wrong.length} of ${count} were wrong:\n${wrong.slice(0, 5).join("\n")}`);
  assert.ok(answers.size > 1, `always ${[...answers]}`);
}

function well_formed(choice) {
  assert.equal(choice.finish_reason, "tool_calls", JSON.stringify(choice));
  assert.ok(choice.message.tool_calls.length > 0);
  for (const call of choice.message.tool_calls) {
    assert.equal(call.function.name, "get_weather");
    assert.ok(is_weather(JSON.parse(call.function.arguments)), call.function.arguments);
  }
  return choice.message.tool_calls.map((call) => call.function.arguments).join();
}

async function whole(stream) {
  let finish_reason = null, content = "", tool_calls = [];
  for await (const chunk of stream) {
    const choice = chunk.choices[0];
    content += choice?.delta.content ?? "";
    finish_reason = choice?.finish_reason ?? finish_reason;
    for (const { index, id, function: { name, arguments: text } } of choice?.delta.tool_calls ?? []) {
      tool_calls[index] ??= { id, type: "function", function: { name, arguments: "" } };
      tool_calls[index].function.arguments += text;
    }
  }
  return { finish_reason, message: { content, tool_calls } };
}

export async function it_answers_and_streams_the_same() {
  const ask = (more) => chat("What is the capital of France?", { temperature: 0, max_tokens: 100, ...more });
  const reply = (await ask()).choices[0];
  assert.match(reply.message.content, /Paris/);
  assert.equal(reply.finish_reason, "stop");
  const streamed = await whole(await ask({ stream: true }));
  assert.equal(streamed.message.content, reply.message.content);
}

export async function it_thinks() {
  const reply = await chat("What is 348 + 276?", { reasoning_effort: "high", max_tokens: 600 });
  const { message, finish_reason } = reply.choices[0];
  assert.ok(message.reasoning_content.length > 0);
  assert.ok(message.content.length > 0, JSON.stringify(message));
  assert.equal(finish_reason, "stop");
  assert.ok(reply.usage.completion_tokens_details.reasoning_tokens > 0);
}

export async function a_seed_fixes_the_answer() {
  const ask = (seed) => chat("Tell me a short story about a fox.", { seed, temperature: 1, max_tokens: 40 });
  const texts = await Promise.all([1, 1, 2, 2, 3, 3].map(async (seed) => (await ask(seed)).choices[0].message.content));
  assert.equal(texts[0], texts[1]);
  assert.equal(texts[2], texts[3]);
  assert.equal(texts[4], texts[5]);
  assert.notEqual(texts[0], texts[2]);
}

export async function a_tool_round_trip() {
  const messages = [{ role: "user", content: "What's the weather in Beijing?" }];
  const first = await client.chat.completions.create({
    model, messages, tools: [weather], temperature: 0, max_tokens: 400, tool_choice: "required",
    reasoning_effort: "none" });
  well_formed(first.choices[0]);
  messages.push(first.choices[0].message);
  for (const call of first.choices[0].message.tool_calls) {
    messages.push({ role: "tool", tool_call_id: call.id, content: '{"temperature": 22, "sky": "sunny"}' });
  }
  const second = await client.chat.completions.create({
    model, messages, tools: [weather], temperature: 0, max_tokens: 200, tool_choice: "none",
    reasoning_effort: "none" });
  assert.ok(second.choices[0].message.content.length > 0);
  assert.ok(second.usage.prompt_tokens_details.cached_tokens > 0, JSON.stringify(second.usage));
}

export async function tool_calls_are_well_formed_with_200_seeds() {
  await for_seeds(SEEDS, async (seed) => {
    const options = { seed, temperature: 1.5, max_tokens: 1500, tools: [weather], tool_choice: "required",
                      parallel_tool_calls: seed % 4 < 2 };
    const stream = seed % 2 === 1;
    const reply = await chat("How warm will it be in Beijing?", { ...options, stream });
    return well_formed(stream ? await whole(reply) : reply.choices[0]);
  });
}

export async function json_follows_its_schema_with_200_seeds() {
  const response_format = { type: "json_schema", json_schema: { name: "person", schema: person, strict: true } };
  await for_seeds(SEEDS, async (seed) => {
    const stream = seed % 2 === 1;
    const reply = await chat("Describe a person.", { seed, temperature: 1.5, max_tokens: 1500, response_format, stream });
    const { message, finish_reason } = stream ? await whole(reply) : reply.choices[0];
    assert.equal(finish_reason, "stop", message.content);
    assert.ok(is_person(JSON.parse(message.content)), message.content);
    return message.content;
  });
}

export async function a_required_tool_is_always_called() {
  const asked = ["Hello!", "What is 2 + 2?", "Tell me a story.", "Do not call any tool."];
  await for_seeds(40, async (seed) => {
    const reply = await chat(asked[seed % 4], { seed, temperature: 1, max_tokens: 1500,
                                                tools: [weather], tool_choice: "required" });
    return well_formed(reply.choices[0]);
  });
  await for_seeds(8, async (seed) => {
    const reply = await chat(asked[seed % 4], { seed, max_tokens: 3000, tools: [weather],
                                                tool_choice: "required", reasoning_effort: "low" });
    return well_formed(reply.choices[0]);
  });
}
