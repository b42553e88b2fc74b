import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { MemoryHotStore } from "../../../runtime/gateway/stores/hot-memory.ts";
import { RedisHotStore } from "../../../runtime/gateway/stores/hot-redis.ts";
import { redis } from "../../support/servers/redis.ts";
import { lacking } from "../../support/servers/tools.ts";
import { hotContract } from "./hot.contract.ts";

describe("in this process", () => {
  const store = new MemoryHotStore();
  hotContract(() => store, { propertyRuns: 300 });
});

describe.skipIf(lacking("redis-server", "redis-cli") !== undefined).each([
  ["one Redis", false],
  ["a Redis cluster", true],
])("on %s", (_, cluster) => {
  const scope = new AsyncDisposableStack();
  let store: RedisHotStore;
  let url: string;
  const errors: unknown[] = [];

  beforeAll(async () => {
    ({ url } = scope.use(await redis({ cluster })));
    // A time-out that a busy machine cannot reach.
    store = scope.use(await RedisHotStore.open({ url, cluster, timeoutMs: 30_000 }, (error) => errors.push(error)));
  });
  afterAll(() => scope.disposeAsync());

  hotContract(() => store, { propertyRuns: 60 });

  it("shares its limits with other gateways, and keeps another prefix apart", async () => {
    await using peer = await RedisHotStore.open({ url, cluster, timeoutMs: 30_000 }, (error) => errors.push(error));
    await using stranger = await RedisHotStore.open({ url, cluster, timeoutMs: 30_000, prefix: "other:" }, (error) =>
      errors.push(error),
    );
    const charges = [{ meter: { kind: "concurrency", name: "requests", limit: 100 }, amount: 1 }] as const;
    const answers = await Promise.all(
      Array.from({ length: 300 }, (__, at) =>
        (at % 2 === 0 ? store : peer).reserve({ account: "shared", id: String(at), charges }, 60_000),
      ),
    );
    expect(answers.filter(({ granted }) => granted)).toHaveLength(100);
    expect((await stranger.reserve({ account: "shared", id: "1", charges }, 60_000)).granted).toBe(true);
    expect(errors).toEqual([]);
  });
});
