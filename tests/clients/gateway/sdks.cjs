// OpenAI's and Anthropic's SDKs, plain and streamed. Argument: JSON with `base` (without /v1), `key`, `headers` and
// `messages`. Prints the texts they got, as one JSON line.
const Anthropic = require("@anthropic-ai/sdk");
const OpenAI = require("openai");

const { base, key, headers, messages } = JSON.parse(process.argv[2]);
const common = { apiKey: key, defaultHeaders: headers, maxRetries: 0 };
const openai = new OpenAI({ baseURL: `${base}/v1`, ...common });
const anthropic = new Anthropic({ baseURL: base, ...common });
const chat = { model: "mock", messages };
const responses = { model: "mock", input: messages };
const ask = { model: "mock", max_tokens: 64, messages };

async function joined(events, text) {
  let all = "";
  for await (const event of await events) all += text(event) ?? "";
  return all;
}

async function main() {
  const said = [(await openai.chat.completions.create(chat)).choices[0].message.content];
  const chunks = openai.chat.completions.create({ ...chat, stream: true });
  said.push(await joined(chunks, (chunk) => chunk.choices[0]?.delta?.content));
  said.push((await openai.responses.create(responses)).output_text);
  const events = openai.responses.create({ ...responses, stream: true });
  said.push(await joined(events, (event) => event.type === "response.output_text.delta" && event.delta || ""));
  said.push((await anthropic.messages.create(ask)).content[0].text);
  said.push(await anthropic.messages.stream(ask).finalText());
  console.log(JSON.stringify(said));
}

main();
