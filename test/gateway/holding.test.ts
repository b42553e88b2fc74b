import { PenstockError } from "../../runtime/contracts/errors.ts";
import { tenant } from "../../runtime/contracts/tenant.ts";
import type { Exchange } from "../../runtime/gateway/exchange.ts";
import { Holds } from "../../runtime/gateway/stages/hold.ts";
import { expect, test } from "vitest";
import { z } from "zod";
import { answers, chat, gatewayUnderTest, type GatewayUnderTest } from "./support.ts";
import { LoadFailure } from "../fakes/agent.ts";

const stats = z.object({ held: z.object({ requests: z.number() }) });

async function heldRequests(under: GatewayUnderTest): Promise<number> {
  return stats.parse(await (await under.get("/stats")).json()).held.requests;
}

test("200 requests for a REMOTE model cause one load, and all are answered", async () => {
  const { promise: released, resolve: release } = Promise.withResolvers<void>();
  await using under = await gatewayUnderTest({ onLoad: () => released, onInfer: answers({ ok: true }) });
  const pending = Array.from({ length: 200 }, () => under.post("/v1/chat/completions", chat));
  await expect
    .poll(async () => /penstock_gateway_held_requests (\d+)/.exec(await (await under.get("/metrics")).text())?.[1])
    .toBe("200");
  release();
  const statuses = await Promise.all(pending.map(async (response) => (await response).status));
  expect(statuses).toEqual(Array.from({ length: 200 }, () => 200));
  expect(under.agent.loads).toBe(1);
});

test("a held stream gets progress comments, then the engine's bytes unchanged", async () => {
  const { promise: released, resolve: release } = Promise.withResolvers<void>();
  const events = 'data: {"choices":[]}\n\ndata: [DONE]\n\n';
  await using under = await gatewayUnderTest({
    async onLoad(send) {
      send({
        type: "progress",
        progress: {
          model_id: "m",
          phase: "download",
          bytes_done: 42,
          bytes_total: 100,
          bytes_per_second: 10e6,
          eta_seconds: 6,
        },
      });
      await released;
    },
    onInfer(_, outgoing) {
      outgoing.writeHead(200, { "content-type": "text/event-stream" }).end(events);
    },
  });
  const response = await under.post("/v1/chat/completions", { ...chat, stream: true });
  expect(response.status).toBe(200);
  expect(response.headers.get("content-type")).toContain("text/event-stream");
  release();
  const body = await response.text();
  expect(body).toContain(": m: download 42 %, 10 MB/s, 6 s left\n\n");
  expect(body.endsWith(events)).toBe(true);
});

test("a model that cannot load answers with the agent's reason, as HTTP while nothing has left", async () => {
  await using under = await gatewayUnderTest({
    onLoad: () =>
      Promise.reject(
        new LoadFailure({
          error: { message: "m.gguf is cut short", type: "server_error", code: "model_file_invalid", param: null },
        }),
      ),
  });
  const response = await under.post("/v1/chat/completions", { ...chat, stream: true });
  expect(response.status).toBe(503);
  expect(await response.json()).toMatchObject({
    error: { code: "model_file_invalid", message: "m.gguf is cut short" },
  });
});

test("a held stream whose load fails late ends with an SSE error and no [DONE]", async () => {
  const { promise: failed, reject: fail } = Promise.withResolvers<void>();
  await using under = await gatewayUnderTest({ onLoad: () => failed });
  const response = await under.post("/v1/chat/completions", { ...chat, stream: true });
  fail(
    new LoadFailure({
      error: { message: "the disk is full", type: "server_error", code: "disk_full", param: null },
    }),
  );
  const body = await response.text();
  expect(body).toContain('event: error\ndata: {"error":{"message":"the disk is full"');
  expect(body).not.toContain("[DONE]");
});

test("a hold that cannot end in time is a 503 with Retry-After from the load's own estimate", async () => {
  const { promise: released, resolve: release } = Promise.withResolvers<void>();
  await using under = await gatewayUnderTest(
    {
      onLoad(send) {
        send({
          type: "progress",
          progress: {
            model_id: "m",
            phase: "download",
            bytes_done: 1,
            bytes_total: 100,
            bytes_per_second: 1,
            eta_seconds: 99,
          },
        });
        return released;
      },
    },
    { hold: { maxRequests: 10, maxBytes: 1e6, maxSeconds: 0.3 } },
  );
  const response = await under.post("/v1/chat/completions", chat);
  release();
  expect(response.status).toBe(503);
  expect(response.headers.get("retry-after")).toBe("99");
  expect(await response.json()).toMatchObject({ error: { code: "hold_expired" } });
});

test.each([
  ["count", { maxRequests: 1, maxBytes: 1e6, maxSeconds: 30 }],
  ["bytes", { maxRequests: 10, maxBytes: 100, maxSeconds: 30 }],
])("holds are bounded by %s: the next one is a 429 with Retry-After", async (_, hold) => {
  const { promise: released, resolve: release } = Promise.withResolvers<void>();
  await using under = await gatewayUnderTest({ onLoad: () => released, onInfer: answers({ ok: true }) }, { hold });
  const first = under.post("/v1/chat/completions", chat);
  await expect.poll(() => under.agent.loads).toBe(1);
  const second = await under.post("/v1/chat/completions", chat);
  expect(second.status).toBe(429);
  expect(Number(second.headers.get("retry-after"))).toBeGreaterThan(0);
  release();
  expect((await first).status).toBe(200);
});

test("a client that leaves while it is held frees its place", async () => {
  const { promise: released, resolve: release } = Promise.withResolvers<void>();
  await using under = await gatewayUnderTest({ onLoad: () => released });
  const leaving = new AbortController();
  const pending = under.post("/v1/chat/completions", chat, { signal: leaving.signal });
  await expect.poll(() => heldRequests(under)).toBe(1);
  leaving.abort();
  await expect(pending).rejects.toThrow();
  await expect.poll(() => heldRequests(under)).toBe(0);
  release();
});

test("a tenant that floods a model that loads leaves room for the others", async () => {
  const { promise: released, resolve: release } = Promise.withResolvers<void>();
  const hold = { maxRequests: 10, maxBytes: 2 ** 20, maxSeconds: 30, tenantShare: 0.5 };
  const issuedTo = (id: string) => ({ tenant: tenant.parse({ id }), credentialId: id, isAdmin: false });
  await using under = await gatewayUnderTest({ onLoad: () => released, onInfer: answers({ ok: true }) }, { hold });
  const holds = new Holds(hold);
  const { registry } = under.gateway;
  const { model } = registry.catalog.resolve("m");
  const load = registry.load(model);
  const held = (id: string) => {
    const exchange = {
      principal: issuedTo(id),
      request: { bytes: 100, streams: false },
      model,
      client: new AbortController().signal,
    };
    // A hold reads no more of an exchange than this.
    return holds.hold(exchange as unknown as Exchange, load).then(
      () => "served",
      (error: unknown) => (error instanceof PenstockError ? error.code : "unknown"),
    );
  };
  const greedy = Array.from({ length: 8 }, () => held("greedy"));
  const quiet = held("quiet");
  expect(holds.waiting.requests).toBe(6);
  release();
  expect((await Promise.all(greedy)).toSorted()).toEqual([
    ...Array.from({ length: 3 }, () => "queue_full"),
    ...Array.from({ length: 5 }, () => "served"),
  ]);
  expect(await quiet).toBe("served");
  expect(holds.waiting).toEqual({ requests: 0, bytes: 0 });
});
