// An agent for Node without packages: reads its task from stdin, calls the model twice, the second time with its first
// answer in the history, and writes its reward to the file.
import assert from "node:assert";
import { readFileSync, writeFileSync } from "node:fs";

const task = JSON.parse(readFileSync(0, "utf8"));
const headers = {
  authorization: `Bearer ${process.env.OPENAI_API_KEY ?? "tracewire"}`,
  "content-type": "application/json",
};

async function chat(messages) {
  const answer = await fetch(`${process.env.OPENAI_BASE_URL}/chat/completions`, {
    method: "POST",
    headers,
    body: JSON.stringify({ model: "mock", messages }),
  });
  assert.equal(answer.status, 200, await answer.clone().text());
  return (await answer.json()).choices[0].message;
}

const messages = [{ role: "user", content: JSON.stringify(task) }];
const first = await chat(messages);
assert.ok(first.content);
messages.push({ role: "assistant", content: first.content }, { role: "user", content: "Say it again, shorter." });
const second = await chat(messages);
assert.ok(second.content);
console.log(second.content);
writeFileSync(process.env.TRACEWIRE_REWARD, "0.5\n");
