import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { describe, expect, it } from "vitest";
import { UsageLedger, type LedgerOptions } from "../../runtime/gateway/stores/ledger.ts";
import type { UsageEntry } from "../../runtime/gateway/stores/record.ts";
import { openRecordStore } from "../../runtime/gateway/stores/index.ts";
import { temporaryFolder } from "../support/folders.ts";
import { repository } from "../support/repository.ts";
import { usageEntry } from "../contract/stores/record.contract.ts";

/** A ledger store that can be made to fail or to hang. */
function memoryUsage() {
  const written: UsageEntry[] = [];
  const batches: number[] = [];
  let behave: () => Promise<void> = async () => undefined;
  return {
    written,
    batches,
    behave: (next: () => Promise<void>) => void (behave = next),
    appendUsage: async (entries: readonly UsageEntry[]) => {
      await behave();
      batches.push(entries.length);
      written.push(...entries);
    },
  };
}

function ledgerOn(usage: ReturnType<typeof memoryUsage>, options: Partial<LedgerOptions> = {}) {
  const errors: unknown[] = [];
  const onError = (error: unknown) => void errors.push(error);
  return { ledger: new UsageLedger(usage, { flushIntervalMs: 60_000, onError, ...options }), errors };
}

const ids = (entries: readonly UsageEntry[]) => entries.map(({ id }) => id);

describe("the usage ledger", () => {
  it("writes batches, in order, and the rest when it is closed", async () => {
    const usage = memoryUsage();
    const entries = Array.from({ length: 25 }, () => usageEntry());
    {
      await using ledger = ledgerOn(usage, { batchEntries: 10 }).ledger;
      for (const entry of entries) ledger.append(entry);
      await expect.poll(() => usage.written.length).toBeGreaterThanOrEqual(10);
    }
    expect(ids(usage.written)).toEqual(ids(entries));
    expect(Math.max(...usage.batches)).toBe(10);
  });

  it("writes by time when little happens", async () => {
    const usage = memoryUsage();
    await using ledger = ledgerOn(usage, { flushIntervalMs: 10 }).ledger;
    ledger.append(usageEntry());
    await expect.poll(() => usage.written.length).toBe(1);
    expect(ledger.backlog).toEqual({ waiting: 0, lost: 0 });
  });

  it("never waits for a store, and loses nothing when that comes back", async () => {
    const usage = memoryUsage();
    const hanging = Promise.withResolvers<void>();
    usage.behave(() => hanging.promise);
    const { ledger, errors } = ledgerOn(usage, { batchEntries: 5 });
    const entries = Array.from({ length: 12 }, () => usageEntry());
    for (const entry of entries) ledger.append(entry);
    expect(ledger.backlog).toEqual({ waiting: 12, lost: 0 });
    hanging.reject(new Error("gone"));
    await expect.poll(() => errors.length).toBe(1);
    usage.behave(async () => undefined);
    expect(await ledger.flush()).toBe(true);
    expect(ids(usage.written)).toEqual(ids(entries));
    await ledger[Symbol.asyncDispose]();
  });

  it("is bounded while the store is lost, counts what it dropped, and keeps the newest", async () => {
    const usage = memoryUsage();
    usage.behave(() => Promise.reject(new Error("gone")));
    const { ledger } = ledgerOn(usage, { batchEntries: 10, maxEntries: 100 });
    const entries = Array.from({ length: 500 }, () => usageEntry());
    for (const entry of entries) ledger.append(entry);
    const { waiting, lost } = ledger.backlog;
    expect(waiting).toBeLessThanOrEqual(110);
    expect(waiting + lost).toBe(500);
    usage.behave(async () => undefined);
    await expect.poll(() => ledger.flush()).toBe(true);
    expect(ids(usage.written)).toEqual(ids(entries.slice(-waiting)));
    await ledger[Symbol.asyncDispose]();
  });

  it("counts what a store that stays away made it lose", async () => {
    const usage = memoryUsage();
    usage.behave(() => Promise.reject(new Error("gone")));
    const { ledger, errors } = ledgerOn(usage);
    ledger.append(usageEntry());
    await ledger[Symbol.asyncDispose]();
    expect(ledger.backlog).toEqual({ waiting: 0, lost: 1 });
    expect(errors).toHaveLength(3);
  });
});

it("what a ledger wrote outlives a kill of its process", async () => {
  await using folder = await temporaryFolder();
  const file = join(folder.path, "records.db");
  const url = (path: string) => JSON.stringify(pathToFileURL(join(repository, path)).href);
  const code = `
    import { openRecordStore } from ${url("runtime/gateway/stores/index.ts")};
    import { UsageLedger } from ${url("runtime/gateway/stores/ledger.ts")};
    const store = await openRecordStore({ kind: "sqlite", file: ${JSON.stringify(file)} }, console.error);
    const ledger = new UsageLedger(store, { flushIntervalMs: 60_000, onError: console.error });
    const entry = ${JSON.stringify(usageEntry())};
    for (let at = 0; at < 700; at += 1) ledger.append({ ...entry, id: String(at) });
    setInterval(() => undefined, 1_000);
    await ledger.flush();
    for (let at = 700; at < 750; at += 1) ledger.append({ ...entry, id: String(at) });
    console.log("written");`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", code], { stdio: ["ignore", "pipe", "inherit"] });
  const exited = once(child, "exit");
  await once(child.stdout, "data");
  child.kill("SIGKILL");
  await exited;
  await using store = await openRecordStore({ kind: "sqlite", file }, () => undefined);
  const [sum] = await store.sumUsage({ fromMs: 0, toMs: 2 ** 50 }, []);
  // All that was flushed; what came since is the batch that a kill loses.
  expect(sum?.requests).toBe(700);
});
