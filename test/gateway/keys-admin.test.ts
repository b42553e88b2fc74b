import { Hono } from "hono";
import { pino } from "pino";
import { describe, expect, it } from "vitest";
import { tenant } from "../../runtime/contracts/tenant.ts";
import { ApiKeys } from "../../runtime/gateway/identity/api-keys.ts";
import { Identity } from "../../runtime/gateway/identity/identity.ts";
import { adminApp } from "../../runtime/gateway/keys/admin-app.ts";
import { KeyService } from "../../runtime/gateway/keys/key-service.ts";
import { notFound, onError } from "../../runtime/lib/http.ts";
import { serve, type NodeEnv } from "../../runtime/lib/serve.ts";
import { memoryRecords } from "./identity-records.ts";

type Call = [method: string, path: string, body?: unknown, key?: string];

/** The admin API over a socket, with an admin's and a user's key, and what it logs. */
async function gateway() {
  const records = memoryRecords([tenant.parse({ id: "ops" })]);
  const keys = new KeyService(records);
  const logged: string[] = [];
  const log = pino({ level: "debug" }, { write: (line: string) => void logged.push(line) });
  const apiKeys = new ApiKeys(records, log, { freshMs: 60_000 });
  const identity = new Identity({ authenticators: [apiKeys], allowedAddresses: null });
  const app = new Hono<NodeEnv>();
  app.notFound(notFound);
  app.onError(onError(log));
  app.route(
    "/",
    adminApp({
      keys,
      log,
      principalOf: (incoming) => identity.authenticate(incoming.headers, incoming.socket.remoteAddress),
      onChange: () => apiKeys.invalidate(),
    }),
  );
  const admin = await keys.createKey({ tenant: "ops", name: "admin", admin: true, expiresInDays: null });
  const user = await keys.createKey({ tenant: "ops", name: "user", admin: false, expiresInDays: null });
  const listening = await serve(app, { host: "127.0.0.1", port: 0 });
  const call = async (...[method, path, body, key = admin.key]: Call) => {
    const response = await fetch(`${listening.url}${path}`, {
      method,
      headers: { authorization: `Bearer ${key}` },
      ...(body === undefined ? {} : { body: typeof body === "string" ? body : JSON.stringify(body) }),
    });
    const text = await response.text();
    // What an answer holds is what each test looks at.
    return { status: response.status, headers: response.headers, json: text === "" ? undefined : JSON.parse(text) };
  };
  return { call, admin, user, records, logged, [Symbol.asyncDispose]: () => listening.close(0) };
}

describe("the admin API", () => {
  it("creates a tenant and a key, which works at once and stops at once", async () => {
    await using server = await gateway();
    const { call } = server;
    expect((await call("POST", "/admin/tenants", { id: "acme", priority: 7 })).status).toBe(200);
    const created = await call("POST", "/admin/keys", { tenant: "acme", name: "root", admin: true });
    expect(created.status).toBe(201);
    expect(created.headers.get("cache-control")).toBe("no-store");
    const { key, id } = created.json;
    expect((await call("GET", "/admin/tenants/acme", undefined, key)).json).toMatchObject({ id: "acme", priority: 7 });
    expect((await call("DELETE", `/admin/keys/${id}`)).json).toMatchObject({ id, state: "revoked" });
    expect((await call("GET", "/admin/keys", undefined, key)).status).toBe(401);
  });

  it("lists keys by tenant, never with secret or hash", async () => {
    await using server = await gateway();
    const { call, records, admin, user } = server;
    const { json } = await call("GET", "/admin/keys?tenant=ops");
    expect(json.data.map(({ name }: { name: string }) => name).toSorted()).toEqual(["admin", "user"]);
    for (const { hash } of await records.keys()) expect(JSON.stringify(json)).not.toContain(hash);
    for (const { key } of [admin, user]) expect(JSON.stringify(json)).not.toContain(key.slice(12));
    expect((await call("GET", "/admin/keys?tenant=none")).json).toEqual({ data: [] });
  });

  it("rotates a key, and removes a tenant with its keys", async () => {
    await using server = await gateway();
    const { call, user } = server;
    const rotated = await call("POST", `/admin/keys/pk-${user.id}/rotate`);
    expect(rotated.status).toBe(201);
    expect((await call("GET", "/admin/keys", undefined, user.key)).status).toBe(401);
    expect((await call("GET", "/admin/keys", undefined, rotated.json.key)).status).toBe(403);
    await call("POST", "/admin/tenants", { id: "acme" });
    const { json } = await call("POST", "/admin/keys", { tenant: "acme", name: "ci", admin: true });
    expect((await call("DELETE", "/admin/tenants/acme")).status).toBe(204);
    expect((await call("GET", "/admin/keys", undefined, json.key)).status).toBe(401);
    expect((await call("GET", "/admin/tenants")).json.data).toHaveLength(1);
  });

  it.each([
    ["GET", "/admin/keys"],
    ["POST", "/admin/keys"],
    ["POST", "/admin/keys/abcdefgh/rotate"],
    ["DELETE", "/admin/keys/abcdefgh"],
    ["GET", "/admin/tenants"],
    ["GET", "/admin/tenants/ops"],
    ["POST", "/admin/tenants"],
    ["DELETE", "/admin/tenants/ops"],
    ["GET", "/admin/nothing"],
  ])("is for admins alone: %s %s", async (method, path) => {
    await using server = await gateway();
    const { call, user, records, logged } = server;
    const body = method === "POST" ? { id: "new", tenant: "ops", name: "x", admin: true } : undefined;
    const before = await records.keys();
    expect(await call(method, path, body, user.key)).toMatchObject({
      status: 403,
      json: { error: { code: "forbidden" } },
    });
    expect((await call(method, path, body, "pk-wrong")).status).toBe(401);
    expect(await records.keys()).toHaveLength(before.length);
    expect(await records.tenants()).toHaveLength(1);
    expect(logged.filter((line) => line.includes('"audit"'))).toEqual([]);
  });

  it.each([
    ["no JSON", "/admin/keys", "{", "invalid_json", null],
    ["an unknown field", "/admin/keys", { tenant: "ops", name: "x", scope: "all" }, "invalid_value", null],
    ["no name", "/admin/keys", { tenant: "ops" }, "missing_field", "name"],
    ["no such tenant", "/admin/keys", { tenant: "nobody", name: "x" }, "not_found", null],
    [
      "a range that is none",
      "/admin/tenants",
      { id: "acme", allowedAddresses: ["10.0.0.0/64"] },
      "invalid_config",
      null,
    ],
    ["a large body", "/admin/tenants", `"${"x".repeat(100_000)}"`, "body_too_large", null],
  ])("refuses %s", async (...[, path, body, code, param]) => {
    await using server = await gateway();
    const { json } = await server.call("POST", path, body);
    expect(json.error.code).toBe(code);
    expect(json.error.param).toBe(param);
  });

  it("answers 404 for keys, tenants and paths that do not exist, and 400 for ids that are none", async () => {
    await using server = await gateway();
    const status = async (method: string, path: string) => (await server.call(method, path)).status;
    expect(await status("DELETE", "/admin/keys/abcdefgh")).toBe(404);
    expect(await status("DELETE", "/admin/tenants/nobody")).toBe(404);
    expect(await status("GET", "/admin/tenants/nobody")).toBe(404);
    expect(await status("GET", "/admin/nothing")).toBe(404);
    expect(await status("DELETE", "/admin/keys/..%2f..%2fx")).toBe(400);
  });

  it("writes every change into the log, with who made it and without secrets", async () => {
    await using server = await gateway();
    const { call, admin, user, logged } = server;
    await call("POST", "/admin/tenants", { id: "acme" });
    const { json } = await call("POST", "/admin/keys", { tenant: "acme", name: "ci" });
    const rotated = await call("POST", `/admin/keys/${json.id}/rotate`, { graceHours: 1 });
    await call("DELETE", `/admin/keys/${user.id}`);
    await call("DELETE", "/admin/tenants/acme");
    await call("GET", "/admin/keys");
    const audits = logged.flatMap((line) => JSON.parse(line).audit ?? []);
    const by = { by: admin.id, tenant: "ops" };
    expect(audits).toEqual([
      { action: "put tenant", target: "acme", ...by },
      { action: "create key", target: json.prefix, ...by },
      { action: `rotate key ${json.prefix}`, target: rotated.json.prefix, ...by },
      { action: "revoke key", target: user.prefix, ...by },
      { action: "remove tenant", target: "acme", ...by },
    ]);
    for (const { key } of [admin, user, json, rotated.json]) expect(logged.join("")).not.toContain(key.slice(12));
  });
});
