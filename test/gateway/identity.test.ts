import { setTimeout as delay } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { PenstockError } from "../../runtime/contracts/errors.ts";
import { tenant, type Principal, type Tenant } from "../../runtime/contracts/tenant.ts";
import { AddressList } from "../../runtime/gateway/identity/addresses.ts";
import { ApiKeys, type RecordCacheOptions } from "../../runtime/gateway/identity/api-keys.ts";
import { keyId } from "../../runtime/gateway/identity/api-key.ts";
import { authorizeModel, Identity } from "../../runtime/gateway/identity/identity.ts";
import { StaticKey } from "../../runtime/gateway/identity/static-key.ts";
import { KeyService } from "../../runtime/gateway/keys/key-service.ts";
import { createLog } from "../../runtime/lib/log.ts";
import { memoryRecords } from "./identity-records.ts";

const log = createLog("test", "silent");
const here = "127.0.0.1";
const acme = tenant.parse({ id: "acme" });

async function withKeys(tenants: readonly Tenant[] = [acme], cache: Partial<RecordCacheOptions> = {}) {
  const records = memoryRecords(tenants);
  const service = new KeyService(records);
  const apiKeys = new ApiKeys(records, log, cache);
  const identity = new Identity({ authenticators: [apiKeys], allowedAddresses: null });
  const authenticate = (key: string, address = here): Promise<Principal> =>
    identity.authenticate({ authorization: `Bearer ${key}` }, address);
  const { id: tenantId } = tenants[0] ?? acme;
  const create = (expiresInDays: number | null = null) =>
    service.createKey({ tenant: tenantId, name: "ci", admin: false, expiresInDays });
  return { records, service, apiKeys, identity, authenticate, create, created: await create() };
}

/** The error that a call ends with: message and code are what a client sees. */
async function refusal(call: Promise<unknown>): Promise<{ code: string; message: string }> {
  const error: unknown = await call.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof PenstockError)) throw new Error("was not refused", { cause: error });
  return { code: error.code, message: error.message };
}

function thrownBy(call: () => void): unknown {
  try {
    call();
    return undefined;
  } catch (thrown) {
    return thrown;
  }
}

describe("API keys", () => {
  it("belong to a tenant and show only their prefix", async () => {
    const { authenticate, created, service, records } = await withKeys();
    expect(created.key).toMatch(new RegExp(`^${created.prefix}-[0-9A-Za-z]{43}$`));
    expect(await authenticate(created.key)).toEqual({ tenant: acme, credentialId: created.id, isAdmin: false });
    const secret = created.key.slice(created.prefix.length + 1);
    expect(JSON.stringify([await service.listKeys(), await records.keys()])).not.toContain(secret);
  });

  it("are taken from x-api-key too, and a header of the client changes no tenant", async () => {
    const { identity, created } = await withKeys([acme, tenant.parse({ id: "other" })]);
    const headers = {
      "x-api-key": created.key,
      "openai-organization": "other",
      "x-tenant": "other",
      "x-tenant-id": "other",
      "x-user": "other",
    };
    expect((await identity.authenticate(headers, here)).tenant.id).toBe("acme");
  });

  it("answer an unknown key exactly as a wrong one, and ask the store for both alike", async () => {
    const { authenticate, created, records, apiKeys } = await withKeys();
    const wrong = `${created.key.slice(0, -1)}${created.key.endsWith("0") ? "1" : "0"}`;
    const unknown = `pk-00000000-${"0".repeat(43)}`;
    const asked: number[][] = [];
    const answers: unknown[] = [];
    for (const key of [wrong, unknown]) {
      apiKeys.invalidate();
      records.finds = 0;
      records.tenantFinds = 0;
      answers.push(await refusal(authenticate(key)), await refusal(authenticate(key)));
      asked.push([records.finds, records.tenantFinds]);
    }
    expect(new Set(answers.map((answer) => JSON.stringify(answer))).size).toBe(1);
    expect(asked).toEqual([
      [1, 1],
      [1, 1],
    ]);
  });

  it.each([
    ["nothing", {}],
    ["an empty bearer", { authorization: "Bearer " }],
    ["basic credentials", { authorization: "Basic YTpi" }],
    ["two words", { authorization: "Bearer a b" }],
    ["no key at all", { authorization: "Bearer hello" }],
    ["a huge credential", { authorization: `Bearer ${"a".repeat(15_000)}` }],
    ["two x-api-key headers", { "x-api-key": ["a", "b"] }],
  ])("are missing in %s", async (_name, headers) => {
    const { identity } = await withKeys();
    expect((await refusal(identity.authenticate(headers, here))).code).toBe("invalid_api_key");
  });

  it("stop working when revoked: at once where it is known, elsewhere when the cache is a second old", async () => {
    const { authenticate, created, service, records } = await withKeys();
    const told = new ApiKeys(records, log);
    await told.authenticate(created.key);
    await authenticate(created.key);
    const revokedAt = performance.now();
    await service.revokeKey(created.id);
    told.invalidate(created.id);
    await expect(async () => told.authenticate(created.key)).rejects.toThrow(/was revoked/);
    await expect
      .poll(() => refusal(authenticate(created.key)), { interval: 10 })
      .toMatchObject({
        message: `API key ${created.prefix} was revoked; use another one.`,
      });
    // One second by contract; the rest is for a machine that is busy.
    expect(performance.now() - revokedAt).toBeLessThan(3_000);
  });

  it("that were not used for a while are looked up before they count", async () => {
    const { authenticate, created, service } = await withKeys([acme], { freshMs: 20 });
    await authenticate(created.key);
    await service.revokeKey(created.id);
    await delay(25);
    await expect(authenticate(created.key)).rejects.toThrow(/was revoked/);
  });

  it("stop working when they expire, when their tenant is removed, and stay so when the tenant comes back", async () => {
    const { authenticate, create, created, service, apiKeys } = await withKeys();
    const short = await create(1 / 86_400_000);
    await expect
      .poll(() => refusal(authenticate(short.key)))
      .toMatchObject({ message: expect.stringContaining("expired") });
    await service.removeTenant("acme");
    apiKeys.invalidate();
    expect((await refusal(authenticate(created.key))).code).toBe("invalid_api_key");
    await service.putTenant(acme);
    apiKeys.invalidate();
    expect((await refusal(authenticate(created.key))).code).toBe("invalid_api_key");
  });

  it("are rotated: the new one works at once, the old one until its grace ends", async () => {
    const { authenticate, created, service, apiKeys } = await withKeys();
    const next = await service.rotateKey(created.id, 1);
    apiKeys.invalidate();
    expect((await authenticate(created.key)).tenant.id).toBe("acme");
    expect((await authenticate(next.key)).credentialId).toBe(next.id);
    await service.rotateKey(next.id, 0);
    apiKeys.invalidate();
    await expect(authenticate(next.key)).rejects.toThrow(/was revoked/);
    await expect(service.rotateKey(next.id, 0)).rejects.toThrow(/not active/);
  });

  it("go on working while the record store is down, and unknown ones are not called wrong", async () => {
    const { authenticate, created, create, records, apiKeys } = await withKeys([acme], { freshMs: 1, staleMs: 60_000 });
    const unseen = await create();
    await authenticate(created.key);
    records.isDown = true;
    for (let time = 0; time < 20; time += 1) {
      expect((await authenticate(created.key)).tenant.id).toBe("acme");
      await new Promise(setImmediate);
    }
    expect(await refusal(authenticate(unseen.key))).toMatchObject({ code: "overloaded" });
    records.isDown = false;
    expect((await authenticate(unseen.key)).tenant.id).toBe("acme");
    apiKeys.invalidate();
    expect((await authenticate(created.key)).tenant.id).toBe("acme");
  });

  it("are not worked out of the cache by guesses, nor do guesses pile up on the store", async () => {
    const { authenticate, created, records, identity } = await withKeys([acme], { maxEntries: 10, maxLoads: 5 });
    await authenticate(created.key);
    const guesses = Array.from({ length: 100 }, (_, guess) => `pk-${String(guess).padStart(8, "0")}-${"x".repeat(43)}`);
    records.finds = 0;
    const codes = await Promise.all(guesses.map(async (key) => (await refusal(authenticate(key))).code));
    expect(new Set(codes)).toEqual(new Set(["invalid_api_key", "overloaded"]));
    expect(records.finds).toBe(5);
    for (const key of guesses) await refusal(identity.authenticate({ "x-api-key": key }, here));
    records.isDown = true;
    expect((await authenticate(created.key)).tenant.id).toBe("acme");
  });

  it("record when they were used, to the minute", async () => {
    const { authenticate, created, records, apiKeys } = await withKeys();
    const before = Date.now();
    await authenticate(created.key);
    const used = (await records.key(created.id))?.lastUsedMs ?? 0;
    expect(used).toBeGreaterThanOrEqual(before);
    apiKeys.invalidate();
    await authenticate(created.key);
    expect((await records.key(created.id))?.lastUsedMs).toBe(used);
  });

  it("have a form that can be told from other credentials", () => {
    const secret = "a".repeat(43);
    expect(keyId(`pk-abcdefgh-${secret}`)).toBe("abcdefgh");
    for (const other of ["", "pk-", `pk-abcdefgh-${secret}a`, `pk-abc-${secret}`, `sk-abcdefgh-${secret}`]) {
      expect(keyId(other), other).toBeUndefined();
    }
  });
});

describe("a static key", () => {
  it("is one authenticator among others, whatever its form", async () => {
    const { apiKeys, created } = await withKeys();
    const local = tenant.parse({ id: "local" });
    const identity = new Identity({ authenticators: [new StaticKey("hello", local), apiKeys], allowedAddresses: null });
    const principal = await identity.authenticate({ authorization: "bearer hello" }, here);
    expect(principal).toEqual({ tenant: local, credentialId: "static", isAdmin: true });
    expect((await identity.authenticate({ "x-api-key": created.key }, here)).tenant.id).toBe("acme");
    expect((await refusal(identity.authenticate({ "x-api-key": "hallo" }, here))).code).toBe("invalid_api_key");
  });
});

describe("addresses", () => {
  const office = tenant.parse({ id: "office", allowedAddresses: ["10.1.0.0/16", "2001:db8::/32", "192.0.2.7"] });

  it.each([
    ["10.1.2.3", true],
    ["::ffff:10.1.2.3", true],
    ["::ffff:a01:203", true],
    ["192.0.2.7", true],
    ["2001:db8::5", true],
    ["10.2.0.1", false],
    ["192.0.2.8", false],
    ["2001:db9::5", false],
    ["::1", false],
    [undefined, false],
    ["not an address", false],
  ])("of a tenant: a key used from %s is let in: %s", async (address, isLetIn) => {
    const { identity, created } = await withKeys([office]);
    const call = identity.authenticate({ "x-api-key": created.key }, address).then(
      (principal) => principal.tenant.id,
      (error: unknown) => (error instanceof PenstockError ? error.code : error),
    );
    expect(await call).toBe(isLetIn ? "office" : "forbidden");
  });

  it("of the gateway count before any key", async () => {
    const { apiKeys, created, records } = await withKeys();
    const identity = new Identity({
      authenticators: [apiKeys],
      allowedAddresses: new AddressList(["::1", "10.0.0.0/8"]),
    });
    records.finds = 0;
    expect((await refusal(identity.authenticate({ "x-api-key": created.key }, "11.0.0.1"))).code).toBe("forbidden");
    expect(records.finds).toBe(0);
    expect((await identity.authenticate({ "x-api-key": created.key }, "10.0.0.1")).tenant.id).toBe("acme");
  });
});

describe("models", () => {
  const principal = (models: string[]): Principal => ({
    tenant: tenant.parse({ id: "acme", models }),
    credentialId: "x",
    isAdmin: false,
  });

  it.each([
    [["*"], "any", true],
    [["*"], "any:adapter", true],
    [["a", "b:x"], "a", true],
    [["a", "b:x"], "b:x", true],
    [["a", "b:x"], "b", false],
    [["a", "b:x"], "a:y", false],
    [["a", "b:x"], "__proto__", false],
  ])("of a tenant with %j: %s is allowed: %s", (models, name, isAllowed) => {
    const refused = expect.objectContaining({ code: "model_not_found", param: "model" });
    expect(thrownBy(() => authorizeModel(principal(models), name))).toEqual(isAllowed ? undefined : refused);
  });
});
