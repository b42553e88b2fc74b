import { afterAll, beforeAll, expect, test } from "vitest";
import { apiKey, gatewayUnderTest } from "../gateway/support.ts";
import { clientPackage, gatewayOverSimulator, installTimeoutMs, type Endpoint } from "./support.ts";

/** What is used of `@anthropic-ai/sdk`. */
interface Sdk {
  readonly Anthropic: new (options: { baseURL: string; apiKey: string; maxRetries: number }) => Client;
}
interface Client {
  readonly messages: {
    create(body: object): Promise<{ content: { type: string; text?: string }[]; usage: Record<string, number> }>;
    countTokens(body: object): Promise<{ input_tokens: number }>;
    stream(body: object): { finalText(): Promise<string>; finalMessage(): Promise<{ usage: Record<string, number> }> };
  };
}

let sdk: Sdk;
let endpoint: Endpoint;
beforeAll(async () => {
  sdk = (await clientPackage("@anthropic-ai/sdk")) as Sdk; // what its documentation says
  endpoint = await gatewayOverSimulator();
}, installTimeoutMs);
afterAll(() => endpoint[Symbol.asyncDispose]());

const hello = { model: "m", max_tokens: 8, messages: [{ role: "user", content: "Hello!" }] };

function clientOf(baseURL: string, key = apiKey): Client {
  return new sdk.Anthropic({ baseURL, apiKey: key, maxRetries: 0 });
}

test("a message", async () => {
  const answer = await clientOf(endpoint.under.gateway.url).messages.create(hello);
  expect(answer.content[0]?.text).toMatch(/./);
  expect(answer.usage["output_tokens"]).toBe(8);
});

test("tokens are counted", async () => {
  const { max_tokens: _, ...body } = hello;
  const { input_tokens: tokens } = await clientOf(endpoint.under.gateway.url).messages.countTokens(body);
  expect(tokens).toBeGreaterThan(1);
});

test.each([
  { what: "a wrong value", body: { ...hello, max_tokens: 0 }, status: 400, type: "invalid_request_error" },
  { what: "an unknown model", body: { ...hello, model: "x" }, status: 404, type: "not_found_error" },
  { what: "a wrong key", body: hello, key: "wrong", status: 401, type: "authentication_error" },
])("$what is an error that the client knows", async ({ body, key, status, type }) => {
  const asked = clientOf(endpoint.under.gateway.url, key).messages.create(body);
  await expect(asked).rejects.toMatchObject({ status, type });
});

const events = [
  {
    type: "message_start",
    message: {
      id: "msg_1",
      type: "message",
      role: "assistant",
      model: "m",
      content: [],
      stop_reason: null,
      stop_sequence: null,
      usage: { input_tokens: 5, output_tokens: 0 },
    },
  },
  { type: "content_block_start", index: 0, content_block: { type: "text", text: "" } },
  { type: "content_block_delta", index: 0, delta: { type: "text_delta", text: "Hel" } },
  { type: "content_block_delta", index: 0, delta: { type: "text_delta", text: "lo" } },
  { type: "content_block_stop", index: 0 },
  { type: "message_delta", delta: { stop_reason: "end_turn", stop_sequence: null }, usage: { output_tokens: 2 } },
  { type: "message_stop" },
].map((event) => `event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`);

test("a stream, from events as vLLM writes them", async () => {
  await using under = await gatewayUnderTest({
    onInfer: (_, outgoing) =>
      void outgoing.writeHead(200, { "content-type": "text/event-stream" }).end(events.join("")),
  });
  const stream = clientOf(under.gateway.url).messages.stream(hello);
  expect(await stream.finalText()).toBe("Hello");
  expect((await stream.finalMessage()).usage["output_tokens"]).toBe(2);
  const metrics = async (): Promise<string> => (await under.get("/metrics")).text();
  await expect.poll(metrics).toMatch(/tokens_total\{model="m",tenant="[^"]+",kind="prompt"\} 5/);
  await expect.poll(metrics).toMatch(/tokens_total\{model="m",tenant="[^"]+",kind="completion"\} 2/);
});

test("a stream that breaks is an error", async () => {
  await using under = await gatewayUnderTest({
    onInfer(incoming, outgoing) {
      outgoing.writeHead(200, { "content-type": "text/event-stream" });
      outgoing.write(events.slice(0, 3).join(""), () => incoming.socket.destroy());
    },
  });
  await expect(clientOf(under.gateway.url).messages.stream(hello).finalText()).rejects.toThrow(/engine stopped/);
});
