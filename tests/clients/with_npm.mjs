// The official client for JavaScript, whole and as a stream.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const [url, model, packages] = process.argv.slice(2);
const { OpenAI } = createRequire(`${packages}/`)("openai");
const content = [
  { type: "image_url", image_url: { url: readFileSync(0, "utf8") } },
  { type: "text", text: "Which colour?" },
];
const client = new OpenAI({ baseURL: url, apiKey: "none" });
const request = { model, messages: [{ role: "user", content }] };
const whole = await client.chat.completions.create(request);
let streamed = "";
for await (const chunk of await client.chat.completions.create({ ...request, stream: true })) {
  streamed += chunk.choices[0]?.delta.content ?? "";
}
console.log(JSON.stringify({ answers: [whole.choices[0].message.content, streamed] }));
