import { createHash } from "node:crypto";
import { request as httpRequest } from "node:http";
import { expect, test } from "vitest";
import { startFakeAgent, type FakeAgentBehaviour } from "../fakes/agent.ts";
import { apiKey, gatewayUnderTest } from "./support.ts";

const path = "/v1/chat/completions";

const aliases = { other: [{ model: "m", weight: 1 }] };

const hash = (text: string): string => createHash("sha256").update(text).digest("hex");

/** A conversation of about 300 KB that no other seed has, with what makes a body differ on its way to the engine. */
function conversation(seed: number, model = "m", more: object = {}): string {
  const content = Array.from(
    { length: 60 },
    (_, turn) => `"${seed}" said in turn ${turn}:\n${`${seed * turn} `.repeat(700)}`,
  );
  const messages = content.map((text, turn) => ({ role: turn % 2 === 0 ? "user" : "assistant", content: text }));
  return JSON.stringify({ model, messages, seed, ...more });
}

/** An engine that says what it got. */
const echo: FakeAgentBehaviour = {
  onInfer: (_, outgoing, body) =>
    void outgoing.end(JSON.stringify({ hash: hash(body), model: (JSON.parse(body) as { model: string }).model })),
};

test("a hundred long prompts at once arrive whole and unmixed, whatever becomes of others", async () => {
  const early: FakeAgentBehaviour["onArrival"] = (incoming, outgoing) => {
    if (incoming.headers["x-early"] === undefined) return false;
    outgoing.writeHead(400, { "content-type": "application/json" }).end('{"error":{"message":"early"}}');
    return true;
  };
  await using under = await gatewayUnderTest({ ...echo, onArrival: early }, { aliases });
  const headers = { authorization: `Bearer ${apiKey}`, "content-type": "application/json" };
  const ask = async (seed: number): Promise<{ readonly told: unknown; readonly expected: unknown }> => {
    // An engine does not know the alias; a stream's usage is asked for.
    const [model, more] = seed % 3 === 0 ? ["other", {}] : ["m", seed % 3 === 1 ? { stream: true } : {}];
    const body = conversation(seed, model, more);
    if (seed % 7 === 0) {
      // An engine that answers before it has read.
      const response = await under.post(path, body, { headers: { ...headers, "x-early": "1" } });
      await response.text();
      return { told: response.status === 400 || response.status === 502, expected: true };
    }
    if (seed % 5 === 0) {
      // Leaves when a part of it has gone.
      const leaving = httpRequest(under.gateway.url + path, { method: "POST", headers });
      leaving.on("error", () => undefined);
      leaving.write(body.slice(0, 150_000), () => leaving.destroy());
      await new Promise((resolve) => leaving.once("close", resolve));
      return { told: leaving.destroyed, expected: true };
    }
    const response = await under.post(path, body);
    const added = seed % 3 === 1 ? ',"stream_options":{"include_usage":true}}' : "}";
    const sent = body.slice(0, -1).replace('"model":"other"', '"model":"m"') + added;
    return { told: await response.json(), expected: { hash: hash(sent), model: "m" } };
  };
  for (let round = 0; round < 3; round += 1) {
    const answers = await Promise.all(Array.from({ length: 100 }, (_, at) => ask(round * 100 + at + 1)));
    expect(answers.map(({ told }) => told)).toEqual(answers.map(({ expected }) => expected));
  }
});

test("a long prompt is sent again whole when the first engine dies of it half-way", async () => {
  let deaths = 0;
  const once: FakeAgentBehaviour = {
    ...echo,
    onArrival: (incoming) => {
      if (deaths > 0) return false;
      deaths += 1;
      incoming.once("data", () => incoming.socket.destroy());
      return true;
    },
  };
  await using one = await startFakeAgent(once);
  await using other = await startFakeAgent(once);
  one.state = other.state = "READY";
  const agents = { kind: "static" as const, urls: [one.url, other.url] };
  await using under = await gatewayUnderTest({}, { fleets: [{ name: "test", agents }] });
  const body = conversation(1);
  expect(await (await under.post(path, body)).json()).toEqual({ hash: hash(body), model: "m" });
  expect(deaths).toBe(1);
});

test("what is wrong within a long string is the client's error, and no replica's", async () => {
  const hold = { maxRequests: 10, maxBytes: 2 ** 20, maxSeconds: 2 };
  await using under = await gatewayUnderTest(echo, { aliases, hold });
  // To tell the engine its own name the body must be written anew, as `model` stands in it twice; so it is read whole.
  const good = conversation(1, "other", { metadata: { model: "x" } });
  const bad = good.replace('59 "}', '59 \\x"}');
  expect((await under.post(path, good)).status).toBe(200);
  // Nothing says from now on that the replica is ready after all.
  under.agent.heartbeatFails = true;
  const refused = await under.post(path, bad);
  expect(refused.status).toBe(400);
  expect(await refused.json()).toMatchObject({ error: { code: "invalid_json" } });
  expect((await under.post(path, good)).status).toBe(200);
  expect(under.agent.loads).toBe(1);
});

test("the answer to a long prompt is kept for the same one, and for no other", async () => {
  let asked = 0;
  const counted: FakeAgentBehaviour = {
    onInfer: (_, outgoing) => {
      asked += 1;
      outgoing.writeHead(200, { "content-type": "application/json" }).end('{"n":1}');
    },
  };
  await using under = await gatewayUnderTest(counted, { responseCache: { models: ["m"], seconds: 60 } });
  const told: (string | null)[] = [];
  for (const seed of [1, 1, 2]) {
    const response = await under.post(path, conversation(seed, "m", { temperature: 0 }));
    await response.text();
    told.push(response.headers.get("x-penstock-cache"));
  }
  expect(told).toEqual([null, "hit", null]);
  expect(asked).toBe(2);
});
