// got: JSON both ways. The package is an ES module, loaded from where require finds it.
const assert = require("node:assert");

const base = process.argv[2];

async function main() {
  const { default: got } = await import(require.resolve("got"));
  const weather = await got(`${base}/weather`, { searchParams: { city: "Paris" } }).json();
  assert.equal(weather.city, "Paris");
  const json = { model: "mock", messages: [{ role: "user", content: "hello" }] };
  const answer = await got.post(`${base}/v1/chat/completions`, { json }).json();
  assert.ok(answer.choices[0].message.content);
  console.log("done");
}

main();
