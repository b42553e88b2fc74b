import { randomUUID } from "node:crypto";
import { expect, it } from "vitest";
import { tenant } from "../../../runtime/contracts/tenant.ts";
import type { KeyRecord } from "../../../runtime/gateway/identity/key-records.ts";
import type { RecordStore, UsageEntry } from "../../../runtime/gateway/stores/record.ts";

const dayMs = 86_400_000;
const noon = Date.UTC(2026, 0, 15, 12);

/** A key of `acme` that was never used. */
export function apiKey(about: Partial<KeyRecord> = {}): KeyRecord {
  const id = randomUUID();
  const [name, hash] = ["laptop", `hash of ${id}`];
  const times = { createdMs: noon, expiresMs: null, revokedMs: null, lastUsedMs: null };
  return { id, tenant: "acme", hash, prefix: "pst-1234", name, isAdmin: false, ...times, ...about };
}

/** A request of `acme`. */
export function usageEntry(about: Partial<UsageEntry> = {}): UsageEntry {
  return {
    id: randomUUID(),
    atMs: noon,
    tenant: "acme",
    credentialId: "key-1",
    model: "llama",
    adapter: null,
    requestClass: "chat",
    status: "200",
    promptTokens: 10,
    cachedTokens: 4,
    completionTokens: 5,
    nanoUsd: 1_500,
    durationMs: 200,
    ...about,
  };
}

async function collect(entries: AsyncIterable<UsageEntry>): Promise<UsageEntry[]> {
  const list: UsageEntry[] = [];
  for await (const entry of entries) list.push(entry);
  return list;
}

const all = { fromMs: 0, toMs: 2 ** 50 };

/** What every record store must do. `open` opens the same store once more, as another gateway or after a restart. */
export function recordContract(open: () => Promise<RecordStore>): void {
  it("keeps tenants", async () => {
    await using store = await open();
    const acme = tenant.parse({ id: "acme", weight: 2.5, limits: { requestsPerMinute: 60, budget: { usd: 12.5 } } });
    await store.putTenant(acme);
    await store.putTenant(tenant.parse({ id: "zeta" }));
    await store.putTenant({ ...acme, priority: 9 });
    await using again = await open();
    expect(await again.tenant("acme")).toEqual({ ...acme, priority: 9 });
    expect((await again.tenants()).map(({ id }) => id)).toEqual(["acme", "zeta"]);
    expect(await again.tenant("nobody")).toBeUndefined();
    await store.putTenants([{ ...acme, priority: 8 }, tenant.parse({ id: "omega" })]);
    expect((await again.tenants()).map(({ id, priority }) => [id, priority])).toEqual([
      ["acme", 8],
      ["omega", 5],
      ["zeta", 5],
    ]);
    expect(await again.deleteTenant("omega")).toBe(true);
    expect([await again.deleteTenant("zeta"), await again.deleteTenant("zeta")]).toEqual([true, false]);
  });

  it("keeps keys, and lets each be revoked once", async () => {
    await using store = await open();
    await store.putTenant(tenant.parse({ id: "keys" }));
    const older = apiKey({ tenant: "keys", createdMs: noon - 1 });
    const newer = apiKey({ tenant: "keys", isAdmin: true });
    await store.addKey(older);
    await store.addKey(newer);
    expect(await store.keys("keys")).toEqual([newer, older]);
    expect(await store.key(older.id)).toEqual(older);
    expect(await store.key("another")).toBeUndefined();
    expect([await store.revokeKey(older.id, noon + 5), await store.revokeKey(older.id, noon + 6)]).toEqual([
      true,
      false,
    ]);
    await store.touchKeys(new Map([[newer.id, noon + 9]]));
    await store.touchKeys(
      new Map([
        [newer.id, noon + 8],
        ["unknown", noon],
      ]),
    );
    await using again = await open();
    expect((await again.key(older.id))?.revokedMs).toBe(noon + 5);
    expect((await again.key(newer.id))?.lastUsedMs).toBe(noon + 9);
    expect(await store.deleteTenant("keys")).toBe(true);
    expect(await store.keys()).toEqual([]);
  });

  it("refuses a key twice, and one of nobody", async () => {
    await using store = await open();
    await store.putTenant(tenant.parse({ id: "acme" }));
    const key = apiKey();
    await store.addKey(key);
    for (const wrong of [key, apiKey({ hash: key.hash }), apiKey({ tenant: "nobody" })]) {
      await expect(store.addKey(wrong)).rejects.toMatchObject({ code: "invalid_value" });
    }
  });

  it("takes values as they are, whatever they hold", async () => {
    await using store = await open();
    const hostile = "'; DROP TABLE usage_entries; -- $1 ?1 \u{1F600}";
    await store.putSetting(hostile, hostile);
    expect(await store.setting(hostile)).toBe(hostile);
    const entry = usageEntry({ tenant: hostile, model: hostile });
    await store.appendUsage([entry]);
    const filter = { ...all, tenant: hostile, model: hostile };
    expect(await collect(store.usage(filter))).toEqual([entry]);
    // One entry that cannot be stored as it is must not hold up the others.
    await store.appendUsage([usageEntry({ tenant: "odd", model: "a\0b\uD800", durationMs: 1.5, nanoUsd: Number.NaN })]);
    const [odd] = await collect(store.usage({ ...all, tenant: "odd" }));
    expect(odd).toMatchObject({ model: "ab\uFFFD", durationMs: 2, nanoUsd: 0 });
  });

  it("keeps settings", async () => {
    await using store = await open();
    expect(await store.setting("limits")).toBeUndefined();
    await store.putSetting("limits", '{"a":1}');
    await store.putSetting("limits", '{"a":2}');
    await using again = await open();
    expect(await again.setting("limits")).toBe('{"a":2}');
  });

  it("counts an entry that is written twice once, and sums exactly", async () => {
    await using store = await open();
    const day = noon - (noon % dayMs);
    const entries = [
      usageEntry({ tenant: "sums", nanoUsd: 4_000_000_000_000_001 }),
      usageEntry({ tenant: "sums", model: "qwen", adapter: "sql", atMs: noon + dayMs }),
      usageEntry({ tenant: "sums", model: "qwen", atMs: day + dayMs, nanoUsd: 2 }),
      usageEntry({ tenant: "others", atMs: noon }),
    ];
    await Promise.all([store.appendUsage(entries), store.appendUsage(entries.slice(1))]);
    const filter = { fromMs: day, toMs: day + 2 * dayMs, tenant: "sums" };
    expect(await store.sumUsage(filter, [])).toEqual([
      {
        group: {},
        requests: 3,
        promptTokens: 30,
        cachedTokens: 12,
        completionTokens: 15,
        nanoUsd: 4_000_000_000_001_503,
      },
    ]);
    const daily = await store.sumUsage(filter, ["model", "day"]);
    expect(daily.map(({ group, requests, nanoUsd }) => ({ ...group, requests, nanoUsd }))).toEqual([
      { model: "llama", day, requests: 1, nanoUsd: 4_000_000_000_000_001 },
      { model: "qwen", day: day + dayMs, requests: 2, nanoUsd: 1_502 },
    ]);
    const adapters = await store.sumUsage({ ...filter, model: "qwen" }, ["adapter"]);
    expect(new Set(adapters.map(({ group }) => group.adapter))).toEqual(new Set([null, "sql"]));
    expect(await store.sumUsage({ ...filter, toMs: day }, [])).toMatchObject([{ requests: 0, nanoUsd: 0 }]);
    expect(await store.sumUsage({ ...filter, toMs: day }, ["tenant"])).toEqual([]);
  });

  it("exports every entry, in order and page by page", async () => {
    await using store = await open();
    // Many at one moment: pages end within it.
    const entries = Array.from({ length: 2_345 }, (_, at) =>
      usageEntry({
        id: `export-${String(at).padStart(5, "0")}`,
        tenant: "export",
        atMs: noon + Math.floor(at / 1_500),
      }),
    );
    await store.appendUsage(entries.toReversed());
    expect(await collect(store.usage({ ...all, tenant: "export" }))).toEqual(entries);
    const part = await collect(store.usage({ fromMs: noon + 1, toMs: noon + 2, tenant: "export" }));
    expect(part).toHaveLength(845);
  });

  it("is opened by many at once, and writes what all of them write", async () => {
    const stores = await Promise.all(Array.from({ length: 6 }, () => open()));
    await Promise.all(
      stores.map((store, at) =>
        store.appendUsage(Array.from({ length: 150 }, () => usageEntry({ tenant: "many", credentialId: String(at) }))),
      ),
    );
    const sums = await stores[0]?.sumUsage({ ...all, tenant: "many" }, ["credentialId"]);
    expect(sums?.map(({ requests }) => requests)).toEqual([150, 150, 150, 150, 150, 150]);
    for (const store of stores) await store[Symbol.asyncDispose]();
  });
}
