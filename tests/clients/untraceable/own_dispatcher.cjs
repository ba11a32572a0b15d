// The undici package with a dispatcher of the program's own for each request: no setting of a proxy reaches it.
// Arguments: the base URL, and the CA file of the server.
const assert = require("node:assert");
const fs = require("node:fs");
const { Agent, fetch, request } = require("undici");

const [base, ca] = process.argv.slice(2);

async function main() {
  const dispatcher = new Agent({ connect: { ca: fs.readFileSync(ca) } });
  const weather = await request(`${base}/weather?city=Paris`, { dispatcher });
  assert.equal((await weather.body.json()).city, "Paris");
  const echo = await fetch(`${base}/echo`, { dispatcher });
  assert.equal((await echo.json()).method, "GET");
  await dispatcher.close();
  console.log("done");
}

main();
