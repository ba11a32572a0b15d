// Anthropic's Node SDK: plain, and streamed.
const assert = require("node:assert");
const Anthropic = require("@anthropic-ai/sdk");

const client = new Anthropic({ baseURL: process.argv[2], apiKey: "sk-ant-test" });
const ask = { model: "mock", max_tokens: 64, messages: [{ role: "user", content: "hello" }] };

async function main() {
  const message = await client.messages.create(ask);
  assert.ok(message.content[0].text);
  const streamed = await client.messages.stream(ask).finalMessage();
  assert.equal(streamed.content[0].text, message.content[0].text);
  console.log("done");
}

main();
