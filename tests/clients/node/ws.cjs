// The ws package: text and binary messages over wss.
const assert = require("node:assert");
const { once } = require("node:events");
const WebSocket = require("ws");

async function main() {
  const socket = new WebSocket(`${process.argv[2].replace("https://", "wss://")}/ws`);
  await once(socket, "open");
  for (const message of ["hello", Buffer.from([0, 1, 255]), "x".repeat(100_000)]) {
    socket.send(message);
    const [echo, binary] = await once(socket, "message");
    assert.ok(echo.equals(Buffer.from(message)));
    assert.equal(binary, typeof message !== "string");
  }
  socket.close();
  await once(socket, "close");
  console.log("done");
}

main();
