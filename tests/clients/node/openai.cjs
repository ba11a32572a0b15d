// OpenAI's Node SDK: plain, streamed, and responses.
const assert = require("node:assert");
const OpenAI = require("openai");

const client = new OpenAI({ baseURL: `${process.argv[2]}/v1`, apiKey: "sk-test" });
const ask = { model: "mock", messages: [{ role: "user", content: "hello" }] };

async function main() {
  const answer = await client.chat.completions.create(ask);
  assert.ok(answer.choices[0].message.content);
  let text = "";
  for await (const chunk of await client.chat.completions.create({ ...ask, stream: true })) {
    text += chunk.choices[0]?.delta?.content ?? "";
  }
  assert.ok(text);
  const response = await client.responses.create({ model: "mock", input: "hello" });
  assert.ok(response.output_text);
  console.log("done");
}

main();
