// Node's builtin fetch, from CommonJS: JSON, an upload, and a stream.
const assert = require("node:assert");

const base = process.argv[2];

async function main() {
  const weather = await fetch(`${base}/weather?city=Paris`);
  assert.equal(weather.status, 200);
  assert.equal((await weather.json()).city, "Paris");
  const upload = await fetch(`${base}/upload`, { method: "POST", body: "x".repeat(100_000) });
  assert.deepEqual(await upload.json(), { received: 100_000 });
  const events = await fetch(`${base}/sse?events=5`);
  let text = "";
  for await (const chunk of events.body.pipeThrough(new TextDecoderStream())) text += chunk;
  assert.equal(text.match(/^data:/gm).length, 5);
  console.log("done");
}

main();
