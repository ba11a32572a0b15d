// Node's node:https: https.get, and https.request with an agent that keeps its connection.
const assert = require("node:assert");
const https = require("node:https");

const base = process.argv[2];

function read(response) {
  return new Promise((resolve, reject) => {
    let text = "";
    response.setEncoding("utf8");
    response.on("data", (chunk) => (text += chunk));
    response.on("end", () => resolve(JSON.parse(text)));
    response.on("error", reject);
  });
}

function get(url) {
  return new Promise((resolve, reject) => {
    https.get(url, (response) => resolve(read(response))).on("error", reject);
  });
}

function post(url, options, body) {
  return new Promise((resolve, reject) => {
    const request = https.request(url, { method: "POST", ...options }, (response) => resolve(read(response)));
    request.on("error", reject);
    request.end(body);
  });
}

async function main() {
  assert.equal((await get(`${base}/weather?city=Paris`)).city, "Paris");
  assert.deepEqual(await post(`${base}/upload`, {}, "hello"), { received: 5 });
  const agent = new https.Agent({ keepAlive: true });
  assert.deepEqual(await post(`${base}/upload`, { agent }, "x".repeat(100_000)), { received: 100_000 });
  assert.deepEqual(await post(`${base}/upload`, { agent }, "again"), { received: 5 });
  agent.destroy();
  console.log("done");
}

main();
