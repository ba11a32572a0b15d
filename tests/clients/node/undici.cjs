// The undici package: request, and its own fetch.
const assert = require("node:assert");
const { fetch, request } = require("undici");

const base = process.argv[2];

async function main() {
  const weather = await request(`${base}/weather?city=Paris`);
  assert.equal(weather.statusCode, 200);
  assert.equal((await weather.body.json()).city, "Paris");
  const upload = await request(`${base}/upload`, { method: "POST", body: "x".repeat(100_000) });
  assert.deepEqual(await upload.body.json(), { received: 100_000 });
  const echo = await fetch(`${base}/echo`);
  assert.equal((await echo.json()).method, "GET");
  console.log("done");
}

main();
