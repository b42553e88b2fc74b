import { describe, expect, it } from "vitest";
import { tenant } from "../../../runtime/contracts/tenant.ts";
import { Admission } from "../../../runtime/gateway/admission/admission.ts";
import { nanoUsd } from "../../../runtime/gateway/admission/charges.ts";
import { openHotStore, openRecordStore } from "../../../runtime/gateway/stores/index.ts";
import { lackingPostgres, postgres } from "../../support/servers/postgres.ts";
import { redis } from "../../support/servers/redis.ts";
import { lacking } from "../../support/servers/tools.ts";
import { usageEntry } from "./record.contract.ts";

const price = { promptUsd: 1, completionUsd: 2 };
const never = new AbortController().signal;
const fail = (error: unknown) => {
  throw error;
};

/** A gateway's admission and ledger, on the servers of all gateways. */
async function gateway(redisUrl: string, postgresUrl: string) {
  await using scope = new AsyncDisposableStack();
  const onChange = (_: unknown, error: unknown) => fail(error);
  const hot = scope.use(
    await openHotStore({ kind: "redis", url: redisUrl, timeoutMs: 30_000, onStoreFailure: "deny", onChange }, fail),
  );
  const records = scope.use(await openRecordStore({ kind: "postgres", url: postgresUrl }, fail));
  const queue = {
    maxRequests: 1e3,
    maxBytes: 1e6,
    maxRequestsPerTenant: 1e3,
    maxBytesPerTenant: 1e6,
    maxWaitMs: 60_000,
  };
  const admission = scope.use(
    new Admission({ meters: hot, capacity: () => 5, queue, defaultMaxTokens: 1_000, onError: fail }),
  );
  const running = scope.move();
  return { admission, records, [Symbol.asyncDispose]: () => running.disposeAsync() };
}

const missing = lacking("redis-server", "redis-cli") ?? lackingPostgres();

describe.skipIf(missing !== undefined)("two gateways on one Redis and one PostgreSQL", () => {
  it("spend a budget together, not one request more, and bill what they spent", async () => {
    await using scope = new AsyncDisposableStack();
    const [hot, records] = [scope.use(await redis()), scope.use(await postgres())];
    const database = await records.newDatabase();
    const gateways = [scope.use(await gateway(hot.url, database)), scope.use(await gateway(hot.url, database))];
    const budgetUsd = 0.05;
    const acme = tenant.parse({ id: "acme", limits: { budget: { usd: budgetUsd } } });
    const principal = { tenant: acme, credentialId: "key-1", isAdmin: false };
    const codes: string[] = [];
    // Each may cost 0.0021 USD, and costs less; every seventh fails and costs nothing.
    const send = async (at: number): Promise<void> => {
      const { admission, records: ledger } = gateways[at % 2] ?? fail("no gateway");
      try {
        const estimate = { model: "m", promptTokens: 100, price, bytes: 100 };
        using admitted = await admission.admit(principal, estimate, never);
        await new Promise((resolve) => setTimeout(resolve, at % 5));
        if (at % 7 === 0) return;
        const usage = { promptTokens: 100, completionTokens: 10 * (at % 50) };
        await admitted.settle(usage);
        await ledger.appendUsage([usageEntry({ id: String(at), ...usage, nanoUsd: nanoUsd(price, usage) })]);
      } catch (error) {
        codes.push(error instanceof Error && "code" in error ? String(error.code) : String(error));
      }
    };
    for (let sent = 0, refused = 0; refused < 100; sent += 100) {
      const before = codes.length;
      await Promise.all(Array.from({ length: 100 }, (_, at) => send(sent + at)));
      refused = codes.length - before;
    }
    const [sum] = (await gateways[0]?.records.sumUsage({ fromMs: 0, toMs: 2 ** 50 }, ["tenant"])) ?? [];
    expect(new Set(codes)).toEqual(new Set(["budget_exceeded"]));
    expect(sum?.requests).toBeGreaterThan(30);
    expect(sum?.nanoUsd).toBeLessThanOrEqual(budgetUsd * 1e9);
    // It was given up only when the next worst case did not fit.
    expect(sum?.nanoUsd).toBeGreaterThan((budgetUsd - 0.0021) * 1e9);
    expect(gateways.map(({ admission }) => admission.open)).toEqual([0, 0]);
  });
});
