import { afterEach, describe, expect, it, test, vi } from "vitest";
import { Demand } from "../../runtime/gateway/demand/demand.ts";
import { MemoryHotStore } from "../../runtime/gateway/stores/hot-memory.ts";
import { freePort } from "../support/servers/free-port.ts";
import { KedaClient } from "./keda-client.ts";
import { answers, chat, gatewayUnderTest } from "./support.ts";

const fleet = { fleet: "test", targetRequests: "4" };

async function scaled(behaviour: Parameters<typeof gatewayUnderTest>[0]) {
  const scaler = { host: "127.0.0.1", port: await freePort() };
  const under = await gatewayUnderTest(behaviour, { scaler });
  return { under, address: `127.0.0.1:${scaler.port}` };
}

test("a first request wakes a fleet at once, and demand is what is held or running", async () => {
  const { promise: released, resolve: release } = Promise.withResolvers<void>();
  const { under, address } = await scaled({ onLoad: () => released, onInfer: answers({ ok: true }) });
  await using _under = under;
  using keda = new KedaClient(address);
  expect(await keda.isActive(fleet)).toBe(false);
  expect(await keda.metricSpec(fleet)).toEqual({ name: "penstock-demand-test", whole: 4, float: 4 });
  const said: boolean[] = [];
  const stop = keda.watch(fleet, (active) => said.push(active));
  await expect.poll(() => said).toEqual([false]);
  const pending = Array.from({ length: 3 }, () => under.post("/v1/chat/completions", chat));
  await expect.poll(() => said).toEqual([false, true]);
  await expect.poll(() => keda.metrics(fleet, "penstock-demand-test")).toMatchObject({ whole: 3, float: 3 });
  expect(await keda.isActive(fleet)).toBe(true);
  release();
  const statuses = await Promise.all(pending.map(async (response) => (await response).status));
  expect(statuses).toEqual([200, 200, 200]);
  stop();
});

test("a trigger that names no fleet, or one that is not there, is told so", async () => {
  const { under, address } = await scaled({});
  await using _under = under;
  using keda = new KedaClient(address);
  await expect(keda.isActive({})).rejects.toMatchObject({ details: expect.stringContaining("must have `fleet`") });
  await expect(keda.metricSpec({ fleet: "chat" })).rejects.toMatchObject({
    details: "No fleet is named chat; there are test.",
  });
  await expect(keda.metricSpec({ fleet: "test", targetRequests: "-1" })).rejects.toMatchObject({
    details: expect.stringContaining("targetRequests"),
  });
});

test("a gateway whose scaler port is taken says so and does not start", async () => {
  const { under, address } = await scaled({});
  await using _under = under;
  const port = Number(address.split(":")[1]);
  await expect(gatewayUnderTest({}, { scaler: { host: "127.0.0.1", port } })).rejects.toMatchObject({
    code: "port_in_use",
  });
});

describe("demand", () => {
  afterEach(() => {
    vi.useRealTimers();
  });

  function clocked() {
    let nowMs = 0;
    const tallies = new MemoryHotStore();
    const of = (gatewayId: string) =>
      new Demand({ tallies, gatewayId, now: () => nowMs, onError: (error) => expect.fail(String(error)) });
    return {
      of,
      pass: (ms: number) => {
        nowMs += ms;
      },
    };
  }

  it("stays at what Little's law says between two requests, and fades", async () => {
    const { of, pass } = clocked();
    await using demand = of("a");
    for (let at = 0; at < 600; at += 1) {
      const open = demand.open("chat");
      pass(500);
      open.serviceMs = 500;
      open[Symbol.dispose]();
    }
    // 2 requests a second of half a second each.
    expect(demand.here("chat")).toBeCloseTo(1, 1);
    pass(60_000);
    expect(demand.here("chat")).toBeCloseTo(Math.exp(-1), 1);
    pass(600_000);
    expect(demand.here("chat")).toBeLessThan(0.001);
  });

  it("does not take the wait for a cold start for service", async () => {
    const { of, pass } = clocked();
    await using demand = of("a");
    const open = demand.open("chat");
    pass(300_000);
    open.serviceMs = 1_000;
    open[Symbol.dispose]();
    expect(demand.here("chat")).toBeLessThan(0.02);
  });

  it("adds up over gateways, and forgets one that is gone", async () => {
    vi.useFakeTimers();
    const { of } = clocked();
    await using one = of("one");
    const two = of("two");
    one.watch("chat");
    using _first = two.open("chat");
    using _second = two.open("chat");
    using _own = one.open("chat");
    await vi.advanceTimersByTimeAsync(2_000);
    expect(one.total("chat")).toBe(3);
    expect(two.total("chat")).toBe(3);
    await two[Symbol.asyncDispose]();
    await vi.advanceTimersByTimeAsync(10_000);
    expect(one.total("chat")).toBe(1);
  });
});
