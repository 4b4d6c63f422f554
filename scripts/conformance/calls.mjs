// Makes all calls of the TypeScript SDK and prints those that succeeded: node calls.mjs BASE_URL KEY RUNNING_BATCH
import assert from "node:assert/strict";
import Anthropic from "@anthropic-ai/sdk";

const [baseURL, apiKey, running] = process.argv.slice(2);
const client = new Anthropic({ baseURL, apiKey, maxRetries: 0 });
const batches = client.messages.batches;
const params = { model: "claude-haiku-5-5", max_tokens: 8, messages: [{ role: "user", content: "Hello" }] };
const done = [];

async function step(name, call) {
  await call();
  done.push(name);
}

let created;
await step("create", async () => {
  created = await batches.create({ requests: ["a", "b"].map((custom_id) => ({ custom_id, params })) });
  assert.equal(created.type, "message_batch");
});
await step("retrieve", async () => {
  const found = await batches.retrieve(created.id);
  assert.equal(found.processing_status, "ended");
  assert.equal(found.request_counts.succeeded, 2);
});
await step("list", async () => {
  const ids = [];
  for await (const each of batches.list({ limit: 1 })) ids.push(each.id);
  assert.ok(ids.includes(created.id) && ids.includes(running));
});
await step("results", async () => {
  const tokens = {};
  for await (const line of await batches.results(created.id)) {
    const usage = line.result.message.usage;
    const input = usage.input_tokens + usage.cache_creation_input_tokens + usage.cache_read_input_tokens;
    tokens[line.custom_id] = input + usage.output_tokens;
  }
  assert.deepEqual(tokens, { a: 30, b: 30 });
});
await step("cancel", async () => {
  assert.equal((await batches.cancel(running)).processing_status, "canceling");
});
await step("delete", async () => {
  assert.equal((await batches.delete(created.id)).type, "message_batch_deleted");
  await assert.rejects(batches.retrieve(created.id), (error) => error.status === 404 && !!error.error);
});
await step("models", async () => {
  const models = await client.models.list({ limit: 2 });
  assert.equal(models.data.length, 2);
  assert.equal((await client.models.retrieve(models.data[0].id)).type, "model");
});
await step("count tokens", async () => {
  const { model, messages } = params;
  assert.ok((await client.messages.countTokens({ model, messages })).input_tokens > 0);
});
console.log(JSON.stringify(done));
