// Node's builtin fetch, from an ES module with a top-level await.
import assert from "node:assert";

const base = process.argv[2];
const ask = { model: "mock", messages: [{ role: "user", content: "hello" }] };
const answer = await fetch(`${base}/v1/chat/completions`, {
  method: "POST",
  headers: { "content-type": "application/json" },
  body: JSON.stringify(ask),
});
assert.equal(answer.status, 200);
assert.ok((await answer.json()).choices[0].message.content);
const weather = await fetch(new Request(`${base}/weather?city=Paris`));
assert.equal((await weather.json()).city, "Paris");
console.log("done");
