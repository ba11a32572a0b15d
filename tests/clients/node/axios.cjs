// axios: JSON, and a stream.
const assert = require("node:assert");
const axios = require("axios");

const base = process.argv[2];

async function main() {
  const weather = await axios.get(`${base}/weather`, { params: { city: "Paris" } });
  assert.equal(weather.data.city, "Paris");
  const ask = { model: "mock", messages: [{ role: "user", content: "hello" }] };
  const answer = await axios.post(`${base}/v1/chat/completions`, ask);
  assert.ok(answer.data.choices[0].message.content);
  const events = await axios.get(`${base}/sse?events=5`, { responseType: "stream" });
  let text = "";
  for await (const chunk of events.data) text += chunk;
  assert.equal(text.match(/^data:/gm).length, 5);
  console.log("done");
}

main();
