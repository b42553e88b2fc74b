import type { IncomingMessage } from "node:http";
import { Hono, type Context } from "hono";
import { PenstockError } from "../../contracts/errors.ts";
import { tenant, type Principal } from "../../contracts/tenant.ts";
import { parseJson, parseRequest } from "../../contracts/validate.ts";
import { onError, readBody } from "../../lib/http.ts";
import type { Logger } from "../../lib/log.ts";
import type { NodeEnv } from "../../lib/serve.ts";
import { keyPrefix } from "../identity/api-key.ts";
import type { KeyService } from "./key-service.ts";
import { keyIdText, newKeyRequest, rotateRequest } from "./requests.ts";

export interface AdminAppOptions {
  readonly keys: KeyService;
  /** Who sent the request. Throws as `Identity.authenticate` does. */
  readonly principalOf: (incoming: IncomingMessage) => Promise<Principal>;
  /** Called after every change, so that this gateway follows it at once; others follow when their caches expire. */
  readonly onChange: () => void;
  readonly log: Logger;
}

const maxBodyBytes = 65_536;

type Audit = (c: Context<AdminEnv>, action: string, target: string) => void;
/** The environment of these routes: who calls is known in all of them. */
export type AdminEnv = NodeEnv & { Variables: { principal: Principal } };

/** `/admin/keys` and `/admin/tenants`, for principals with `isAdmin`. Every change is in the log, secrets never. */
export function adminApp({ keys, principalOf, onChange, log }: AdminAppOptions): Hono<AdminEnv> {
  const app = new Hono<AdminEnv>();
  app.onError(onError(log));
  app.use("/admin/*", async function admin(c, next) {
    const principal = await principalOf(c.env.incoming);
    if (!principal.isAdmin) {
      throw new PenstockError(
        "forbidden",
        "This needs an admin key; create one with `npm run keys -- create --admin`.",
      );
    }
    c.set("principal", principal);
    // Answers hold secrets and limits.
    c.header("cache-control", "no-store");
    await next();
  });
  const audit: Audit = (c, action, target) => {
    onChange();
    const by = c.get("principal");
    log.info({ audit: { action, target, by: by.credentialId, tenant: by.tenant.id } }, "admin change");
  };
  keyRoutes(app, keys, audit);
  tenantRoutes(app, keys, audit);
  return app;
}

function keyRoutes(app: Hono<AdminEnv>, keys: KeyService, audit: Audit): void {
  app.get("/admin/keys", async (c) => c.json({ data: await keys.listKeys(c.req.query("tenant")) }));
  app.post("/admin/keys", async (c) => {
    const created = await keys.createKey(parseRequest(newKeyRequest, await bodyOf(c)));
    audit(c, "create key", created.prefix);
    return c.json(created, 201);
  });
  app.post("/admin/keys/:id/rotate", async (c) => {
    const { graceHours } = parseRequest(rotateRequest, await bodyOf(c));
    const id = parseRequest(keyIdText, c.req.param("id"));
    const created = await keys.rotateKey(id, graceHours);
    audit(c, `rotate key ${keyPrefix(id)}`, created.prefix);
    return c.json(created, 201);
  });
  app.delete("/admin/keys/:id", async (c) => {
    const revoked = await keys.revokeKey(parseRequest(keyIdText, c.req.param("id")));
    audit(c, "revoke key", revoked.prefix);
    return c.json(revoked);
  });
}

function tenantRoutes(app: Hono<AdminEnv>, keys: KeyService, audit: Audit): void {
  app.get("/admin/tenants", async (c) => c.json({ data: await keys.listTenants() }));
  app.get("/admin/tenants/:id", async (c) => c.json(await keys.findTenant(c.req.param("id"))));
  app.post("/admin/tenants", async (c) => {
    const put = await keys.putTenant(parseRequest(tenant, await bodyOf(c)));
    audit(c, "put tenant", put.id);
    return c.json(put);
  });
  app.delete("/admin/tenants/:id", async (c) => {
    const id = c.req.param("id");
    await keys.removeTenant(id);
    audit(c, "remove tenant", id);
    return c.body(null, 204);
  });
}

/** The JSON of a body; no body counts as an empty object. */
async function bodyOf(c: Context<AdminEnv>): Promise<unknown> {
  const body = await readBody(c.env.incoming, maxBodyBytes);
  return body.length === 0 ? {} : parseJson(body);
}
