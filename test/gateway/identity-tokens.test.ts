import { createSecretKey } from "node:crypto";
import { SignJWT, UnsecuredJWT } from "jose";
import { describe, expect, it } from "vitest";
import { tenant } from "../../runtime/contracts/tenant.ts";
import { Identity } from "../../runtime/gateway/identity/identity.ts";
import type { IssuerKeyOptions } from "../../runtime/gateway/identity/issuer-keys.ts";
import { issuer, type IssuerInput } from "../../runtime/gateway/identity/issuer.ts";
import { Tokens } from "../../runtime/gateway/identity/tokens.ts";
import { createLog } from "../../runtime/lib/log.ts";
import { signingKey, testIssuer } from "./identity-issuer.ts";
import { memoryRecords } from "./identity-records.ts";

const log = createLog("test", "silent");
const acme = tenant.parse({ id: "acme" });
const other = tenant.parse({ id: "other" });

interface Setup {
  readonly fields?: Partial<IssuerInput>;
  readonly keys?: Partial<IssuerKeyOptions>;
}

async function setUp({ fields = {}, keys = {} }: Setup = {}) {
  const server = await testIssuer();
  const second = await testIssuer();
  const records = memoryRecords([acme, other]);
  const issuers = [server, second].map(({ url }) =>
    issuer.parse({ issuer: url, audience: "penstock", tenant: { claim: "tenant" }, ...fields }),
  );
  const tokens = new Tokens({ issuers, records, log, keys });
  const identity = new Identity({ authenticators: [tokens], allowedAddresses: null });
  return {
    server,
    second,
    records,
    tokens,
    authenticate: (token: string) => identity.authenticate({ authorization: `Bearer ${token}` }, "127.0.0.1"),
    async [Symbol.asyncDispose]() {
      await server[Symbol.asyncDispose]();
      await second[Symbol.asyncDispose]();
    },
  };
}

const invalid = (message: RegExp) =>
  expect.objectContaining({ code: "invalid_api_key", message: expect.stringMatching(message) });
const forbidden = (message: RegExp) =>
  expect.objectContaining({ code: "forbidden", message: expect.stringMatching(message) });
const undecided = expect.objectContaining({ code: "overloaded", retryAfterSeconds: expect.any(Number) });

describe("a token", () => {
  it("of an issuer names its tenant by a claim", async () => {
    await using setup = await setUp();
    const { server, second, authenticate } = setup;
    expect(await authenticate(await server.sign({}))).toEqual({
      tenant: acme,
      credentialId: `${server.url} user-1`,
      isAdmin: false,
    });
    expect((await authenticate(await second.sign({ tenant: "other", sub: "user-2" }))).tenant).toEqual(other);
    expect(server.keyRequests).toBe(1);
  });

  it.each(["RS256", "PS256", "ES256", "EdDSA"])("may be signed with %s", async (alg) => {
    await using setup = await setUp();
    const { server, authenticate } = setup;
    const key = await signingKey("other-kind", alg);
    server.keys.push(key);
    expect((await authenticate(await server.sign({}, key))).tenant).toEqual(acme);
  });

  it("that has expired, is for another audience, or is not valid yet, is refused", async () => {
    await using setup = await setUp();
    const { server, authenticate } = setup;
    const now = Math.floor(Date.now() / 1_000);
    const refused = async (claims: Parameters<typeof server.sign>[0], message: RegExp) =>
      expect(authenticate(await server.sign(claims))).rejects.toEqual(invalid(message));
    await refused({ exp: now - 60 }, /has expired; get a new one/);
    await refused({ aud: "another" }, /for the audience `penstock`/);
    await refused({ nbf: now + 60 }, /claim `nbf`/);
    await refused({ iss: "https://elsewhere.example" }, /of this issuer are not accepted/);
    // Clocks may be 30 s apart.
    expect((await authenticate(await server.sign({ exp: now - 10 }))).tenant).toEqual(acme);
  });

  it("without expiry or subject is refused", async () => {
    await using setup = await setUp();
    const { server, authenticate } = setup;
    const [key] = server.keys;
    if (key === undefined) throw new Error("the issuer has no key");
    const base = new SignJWT({ iss: server.url, aud: "penstock", tenant: "acme", sub: "user-1" });
    const forever = await base.setProtectedHeader({ alg: key.alg, kid: key.kid }).sign(key.privateKey);
    await expect(authenticate(forever)).rejects.toEqual(invalid(/claim `exp`/));
    const nobody = await new SignJWT({ iss: server.url, aud: "penstock", tenant: "acme" })
      .setExpirationTime("1 minute")
      .setProtectedHeader({ alg: key.alg, kid: key.kid })
      .sign(key.privateKey);
    await expect(authenticate(nobody)).rejects.toEqual(invalid(/claim `sub`/));
  });

  it("that is unsigned, signed with a shared secret or with a stranger's key, is refused", async () => {
    await using setup = await setUp();
    const { server, second, authenticate } = setup;
    const claims = { iss: server.url, aud: "penstock", sub: "user-1", tenant: "acme", exp: Date.now() };
    await expect(authenticate(new UnsecuredJWT(claims).encode())).rejects.toEqual(invalid(/must be signed with RS256/));
    // The old trick: HMAC with the public key, which everyone has, as the secret.
    const [key] = server.keys;
    const hmac = new SignJWT(claims).setProtectedHeader({ alg: "HS256", kid: "first" });
    const forged = await hmac.sign(createSecretKey(Buffer.from(JSON.stringify(key))));
    await expect(authenticate(forged)).rejects.toEqual(invalid(/must be signed with RS256/));
    const stranger = await signingKey("first");
    await expect(authenticate(await server.sign({}, stranger))).rejects.toEqual(
      invalid(/signature could not be checked/),
    );
    // A real key of another issuer, which may not speak for this one.
    await expect(authenticate(await second.sign({ iss: server.url }))).rejects.toEqual(invalid(/signature/));
    const token = await server.sign({});
    const [head, , signature] = token.split(".");
    const changed = Buffer.from(JSON.stringify({ ...claims, tenant: "other" })).toString("base64url");
    await expect(authenticate(`${head}.${changed}.${signature}`)).rejects.toEqual(invalid(/signature/));
  });

  it.each(["a.b.c", "....", "e30.e30.", `${"a".repeat(3_000)}.b.c`, "e30.W10.e30", "e30.bnVsbA.e30"])(
    "that is no token, %.20s, is refused",
    async (token) => {
      await using setup = await setUp();
      await expect(setup.authenticate(token)).rejects.toMatchObject({ code: "invalid_api_key" });
    },
  );

  it("is not verified again for a while, but its tenant is read anew and its expiry counts", async () => {
    await using setup = await setUp({ fields: { clockToleranceSeconds: 0 } });
    const { server, authenticate, records, tokens } = setup;
    const token = await server.sign({ exp: Math.floor(Date.now() / 1_000) + 2 });
    await authenticate(token);
    await records.putTenant({ ...acme, models: ["only-this"] });
    tokens.invalidate();
    expect((await authenticate(token)).tenant.models).toEqual(["only-this"]);
    await records.deleteTenant("acme");
    tokens.invalidate();
    await expect(authenticate(token)).rejects.toEqual(forbidden(/`acme` does not exist here/));
    await records.putTenant(acme);
    tokens.invalidate();
    await expect.poll(() => authenticate(token).catch((error: unknown) => error)).toEqual(invalid(/has expired/));
  });
});

describe("the tenant of a token", () => {
  const table = { "group-a": "acme", "group-b": "other" };
  it.each([
    { because: "a missing claim", mapping: { claim: "org" }, claims: {}, error: forbidden(/`org` names no tenant/) },
    {
      because: "a claim that is no text",
      mapping: { claim: "org" },
      claims: { org: 7 },
      error: forbidden(/no tenant/),
    },
    {
      because: "a claim that is no name",
      mapping: { claim: "org" },
      claims: { org: "../acme" },
      error: forbidden(/no tenant/),
    },
    {
      because: "a tenant that does not exist",
      mapping: { claim: "org" },
      claims: { org: "nobody" },
      error: forbidden(/does not exist here/),
    },
    {
      because: "a name that objects have",
      mapping: { claim: "org", table },
      claims: { org: "constructor" },
      error: forbidden(/no tenant/),
    },
    {
      because: "a group outside the table",
      mapping: { claim: "groups", table },
      claims: { groups: ["x"] },
      error: forbidden(/no tenant/),
    },
    {
      because: "two tenants",
      mapping: { claim: "groups", table },
      claims: { groups: ["group-a", "group-b"] },
      error: forbidden(/more than one tenant/),
    },
    {
      because: "a wrong prefix",
      mapping: { claim: "org", prefix: "team-" },
      claims: { org: "acme" },
      error: forbidden(/no tenant/),
    },
  ])("is refused for $because", async ({ mapping, claims, error }) => {
    await using setup = await setUp({ fields: { tenant: mapping } });
    await expect(setup.authenticate(await setup.server.sign(claims))).rejects.toEqual(error);
  });

  it.each([
    ["a claim with a URL as name", { claim: "https://example.com/tenant" }, { "https://example.com/tenant": "acme" }],
    ["a prefix", { claim: "groups", prefix: "penstock-" }, { groups: ["staff", "penstock-acme"] }],
    ["a table", { claim: "cognito:groups", table }, { "cognito:groups": ["x", "group-a"] }],
    ["a prefix and a table", { claim: "groups", prefix: "my-", table }, { groups: ["my-group-a", "group-b"] }],
    ["the same tenant twice", { claim: "groups", table: { x: "acme", y: "acme" } }, { groups: ["x", "y"] }],
  ])("comes from %s", async (_name, mapping, claims) => {
    await using setup = await setUp({ fields: { tenant: mapping } });
    expect((await setup.authenticate(await setup.server.sign(claims))).tenant).toEqual(acme);
  });

  it("gets admin rights by an exact value alone", async () => {
    await using setup = await setUp({ fields: { admin: { claim: "roles", value: "penstock.admin" } } });
    const isAdmin = async (roles: unknown) => (await setup.authenticate(await setup.server.sign({ roles }))).isAdmin;
    expect(await isAdmin(["user", "penstock.admin"])).toBe(true);
    expect(await isAdmin("penstock.admin")).toBe(true);
    expect(await isAdmin("penstock.administrator")).toBe(false);
    expect(await isAdmin(true)).toBe(false);
    expect(await isAdmin(undefined)).toBe(false);
  });
});

describe("the keys of an issuer", () => {
  it("are asked for again when a token names a new one, however soon that token comes", async () => {
    await using setup = await setUp({ keys: { cooldownMs: 0 } });
    const { server, authenticate } = setup;
    await authenticate(await server.sign({}));
    const next = await signingKey("next");
    server.keys = [next];
    expect((await authenticate(await server.sign({}, next))).tenant).toEqual(acme);
    expect(server.keyRequests).toBe(2);
    // The key that is gone verifies nothing any more.
    await expect(authenticate(await server.sign({ sub: "late" }))).rejects.toEqual(invalid(/signature/));
  });

  it("are asked for once however many tokens name keys that do not exist", async () => {
    await using setup = await setUp();
    const { server, authenticate } = setup;
    const stranger = await signingKey("x");
    const flood = await Promise.all(
      Array.from({ length: 200 }, (_, each) => server.sign({}, { ...stranger, kid: `made-up-${each}` })),
    );
    const answers = await Promise.allSettled(flood.map(authenticate));
    expect(answers.every((answer) => answer.status === "rejected")).toBe(true);
    expect(server.keyRequests).toBe(1);
    expect((await authenticate(await server.sign({}))).tenant).toEqual(acme);
  });

  it("that were fetched go on working while the issuer is down; what cannot be decided is 503 and heals", async () => {
    await using setup = await setUp({ keys: { refreshMs: 0, cooldownMs: 0 } });
    const { server, second, authenticate } = setup;
    await authenticate(await server.sign({}));
    const down = { answer: (_in: unknown, outgoing: { destroy(): void }) => outgoing.destroy() };
    server.breakWith = down;
    second.breakWith = down;
    for (let time = 0; time < 5; time += 1) {
      expect((await authenticate(await server.sign({ jti: String(time) }))).tenant).toEqual(acme);
    }
    const next = await signingKey("next");
    server.keys.push(next);
    await expect(authenticate(await server.sign({}, next))).rejects.toEqual(undecided);
    await expect(authenticate(await second.sign({}))).rejects.toEqual(undecided);
    server.breakWith = undefined;
    second.breakWith = undefined;
    expect((await authenticate(await server.sign({}, next))).tenant).toEqual(acme);
    expect((await authenticate(await second.sign({}))).tenant).toEqual(acme);
  });

  it("count no more when the issuer was down for too long, and a failure is not tried again at once", async () => {
    await using setup = await setUp({ keys: { staleMs: 0, cooldownMs: 60_000 } });
    const { server, authenticate } = setup;
    await authenticate(await server.sign({}));
    await expect(authenticate(await server.sign({ jti: "later" }))).rejects.toEqual(undecided);
    expect(server.keyRequests).toBe(1);
  });

  const discovery = "/.well-known/openid-configuration";
  it.each<[string, string, (url: string) => string]>([
    [
      "a discovery document of another issuer",
      discovery,
      (url) => JSON.stringify({ issuer: "https://x.example", jwks_uri: `${url}/keys` }),
    ],
    ["keys over clear text", discovery, (url) => JSON.stringify({ issuer: url, jwks_uri: "http://192.0.2.1/keys" })],
    ["keys in a file", discovery, (url) => JSON.stringify({ issuer: url, jwks_uri: "file:///etc/passwd" })],
    ["no JSON", "/keys", () => "<html>"],
    ["no keys", "/keys", () => JSON.stringify({ keys: "none" })],
    ["too many keys", "/keys", () => JSON.stringify({ keys: Array.from({ length: 101 }, () => ({ kty: "RSA" })) })],
    ["an answer without end", "/keys", () => `{"keys":[${" ".repeat(300_000)}]}`],
  ])("are not taken from %s", async (_name, path, body) => {
    await using setup = await setUp();
    const { server, authenticate } = setup;
    server.breakWith = { path, answer: (_in, outgoing) => outgoing.end(body(server.url)) };
    await expect(authenticate(await server.sign({}))).rejects.toEqual(undecided);
  });

  it("are not waited for without end, nor looked for where a redirect points", async () => {
    await using setup = await setUp({ keys: { timeoutMs: 100 } });
    const { server, second, authenticate } = setup;
    server.breakWith = { answer: (_in, outgoing) => outgoing.write("{") };
    await expect(authenticate(await server.sign({}))).rejects.toEqual(undecided);
    second.breakWith = {
      path: "/keys",
      answer: (_in, outgoing) => outgoing.writeHead(302, { location: `${second.url}/moved` }).end(),
    };
    await expect(authenticate(await second.sign({}))).rejects.toEqual(undecided);
  });

  it("of a shared secret are dropped from the set", async () => {
    await using setup = await setUp({ fields: { algorithms: ["ES256"] } });
    const { server, authenticate } = setup;
    const answer = JSON.stringify({ keys: [{ kty: "oct", kid: "first", k: "c2VjcmV0" }] });
    server.breakWith = { path: "/keys", answer: (_in, outgoing) => outgoing.end(answer) };
    await expect(authenticate(await server.sign({}))).rejects.toEqual(invalid(/signature/));
  });
});

describe("an issuer's description", () => {
  const base = { issuer: "https://issuer.example", audience: "penstock", tenant: { claim: "tenant" } };
  it.each([
    ["clear text", { ...base, issuer: "http://issuer.example" }],
    ["symmetric signatures", { ...base, algorithms: ["HS256"] }],
    ["no signature", { ...base, algorithms: ["none"] }],
    ["an unknown field", { ...base, secret: "x" }],
    ["no claim", { ...base, tenant: {} }],
  ])("is refused with %s", (_name, description) => {
    expect(issuer.safeParse(description).success).toBe(false);
  });
});
