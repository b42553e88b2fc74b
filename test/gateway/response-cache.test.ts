import { describe, expect, test } from "vitest";
import { apiKey, chat, gatewayUnderTest } from "./support.ts";

const sure = { ...chat, temperature: 0 };
const withUsage = { ...sure, stream: true, stream_options: { include_usage: true } };
const path = "/v1/chat/completions";

/** A gateway that keeps answers, and how many requests its engine saw. */
async function cachedGateway(
  answer: { readonly type?: string; readonly body?: string; readonly status?: number } = {},
) {
  const seen = { requests: 0 };
  const under = await gatewayUnderTest(
    {
      onInfer(_, outgoing) {
        seen.requests += 1;
        const usage = { prompt_tokens: 5, completion_tokens: 7, total_tokens: 12 };
        outgoing.writeHead(answer.status ?? 200, { "content-type": answer.type ?? "application/json" });
        outgoing.end(answer.body ?? JSON.stringify({ n: seen.requests, usage }));
      },
    },
    { responseCache: { models: ["m"], seconds: 60 } },
  );
  return { under, seen, [Symbol.asyncDispose]: () => under[Symbol.asyncDispose]() };
}

/** Asks twice, one after the other: what came, and whether the second answer was a kept one. */
async function twice(
  { under }: Awaited<ReturnType<typeof cachedGateway>>,
  { body, again = body, headers = {} }: { body: object; again?: object; headers?: Record<string, string> },
) {
  const init = { headers: { authorization: `Bearer ${apiKey}`, "content-type": "application/json", ...headers } };
  const first = await under.post(path, body, init);
  const texts = [await first.text()];
  const second = await under.post(path, again, init);
  texts.push(await second.text());
  return { texts, statuses: [first.status, second.status], hit: second.headers.get("x-penstock-cache"), second };
}

describe("the response cache", () => {
  test("answers the same request again without an engine, and without tokens", async () => {
    await using cached = await cachedGateway();
    const { texts, hit, second } = await twice(cached, { body: sure });
    expect(hit).toBe("hit");
    expect(texts[1]).toBe(texts[0]);
    expect(second.headers.get("content-type")).toBe("application/json");
    expect(cached.seen.requests).toBe(1);
    const metrics = await (await cached.under.get("/metrics")).text();
    expect(metrics).toContain('penstock_gateway_response_cache_total{model="m",result="hit"} 1');
    expect(metrics).toContain('penstock_gateway_tokens_total{model="m",tenant="default",kind="completion"} 7');
  });

  test("replays a stream as the client got it", async () => {
    const body =
      'data: {"n":1}\n\ndata: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}\n\ndata: [DONE]\n\n';
    await using cached = await cachedGateway({ type: "text/event-stream", body });
    const { texts, hit } = await twice(cached, { body: { ...sure, stream: true } });
    expect(hit).toBe("hit");
    expect(texts).toEqual([0, 1].map(() => 'data: {"n":1}\n\ndata: [DONE]\n\n'));
  });

  test.each<[string, Parameters<typeof twice>[1]]>([
    ["is sampled", { body: chat }],
    ["differs", { body: sure, again: { ...sure, max_tokens: 3 } }],
    ["names another adapter", { body: sure, again: { ...sure, model: "m:pirate" } }],
    ["wants the usage that the first left out", { body: { ...sure, stream: true }, again: withUsage }],
    ["asks for a fresh answer", { body: sure, headers: { "cache-control": "no-cache" } }],
  ])("does not answer a request that %s", async (_, requests) => {
    await using cached = await cachedGateway();
    const { hit, statuses } = await twice(cached, requests);
    expect([hit, ...statuses]).toEqual([null, 200, 200]);
    expect(cached.seen.requests).toBe(2);
  });

  test.each([
    ["is an error", { status: 400, body: "{}" }],
    ["is a stream with an error in it", { type: "text/event-stream", body: "event: error\ndata: {}\n\n" }],
    ["is larger than one answer may be", { body: JSON.stringify({ text: "x".repeat(5 * 2 ** 20) }) }],
  ])("does not keep what %s", async (_, answer) => {
    await using cached = await cachedGateway(answer);
    const { hit } = await twice(cached, { body: sure });
    expect(hit).toBeNull();
    expect(cached.seen.requests).toBe(2);
  });
});
