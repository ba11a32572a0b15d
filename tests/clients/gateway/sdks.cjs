// OpenAI's and Anthropic's SDKs, plain and streamed. Argument: a JSON list of ways to a gateway, each with `base` (without
// /v1), `key`, `headers` and the `messages` to send. Prints the texts that each way gave, as one JSON line.
const Anthropic = require("@anthropic-ai/sdk");
const OpenAI = require("openai");

async function joined(events, text) {
  let all = "";
  for await (const event of await events) all += text(event) ?? "";
  return all;
}

async function said({ base, key, headers, messages }) {
  const common = { apiKey: key, defaultHeaders: headers, maxRetries: 0 };
  const openai = new OpenAI({ baseURL: `${base}/v1`, ...common });
  const anthropic = new Anthropic({ baseURL: base, ...common });
  const chat = { model: "mock", messages };
  const responses = { model: "mock", input: messages };
  const ask = { model: "mock", max_tokens: 64, messages };
  const delta = (event) => (event.type === "response.output_text.delta" ? event.delta : "");
  return [
    (await openai.chat.completions.create(chat)).choices[0].message.content,
    await joined(openai.chat.completions.create({ ...chat, stream: true }), (chunk) => chunk.choices[0]?.delta?.content),
    (await openai.responses.create(responses)).output_text,
    await joined(openai.responses.create({ ...responses, stream: true }), delta),
    (await anthropic.messages.create(ask)).content[0].text,
    await anthropic.messages.stream(ask).finalText(),
  ];
}

async function main() {
  const all = [];
  for (const way of JSON.parse(process.argv[2])) all.push(await said(way));
  console.log(JSON.stringify(all));
}

main();
