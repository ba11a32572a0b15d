// An agent on OpenAI's SDK that knows nothing of proxies: a plain call, a streamed one, and one that is no call of a
// model. Prints what it got, as one JSON line.
const OpenAI = require("openai");

const client = new OpenAI({ maxRetries: 0 });
const asked = { model: "gpt-5", messages: JSON.parse(process.argv[2]) };

async function main() {
  const said = [(await client.chat.completions.create(asked)).choices[0].message.content];
  let text = "";
  for await (const chunk of await client.chat.completions.create({ ...asked, stream: true })) {
    text += chunk.choices[0]?.delta?.content ?? "";
  }
  const status = await client.files.list().then(() => 200, (error) => error.status);
  console.log(JSON.stringify([...said, text, status]));
}

main();
