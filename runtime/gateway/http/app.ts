import { randomUUIDv7 } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";
import { RESPONSE_ALREADY_SENT } from "@hono/node-server/utils/response";
import { Hono, type Context } from "hono";
import { PenstockError } from "../../contracts/errors.ts";
import { requestIdHeader } from "../../contracts/names.ts";
import { errorResponse, notFound } from "../../lib/http.ts";
import type { Logger } from "../../lib/log.ts";
import type { NodeEnv } from "../../lib/serve.ts";
import { endpointPaths, errorBodyOf, isEndpoint } from "../api/endpoints.ts";
import { openApiDocument } from "../api/openapi.ts";
import { referencePage, referencePolicy } from "../api/reference.ts";
import type { AdminEnv } from "../keys/admin-app.ts";
import { mayUseModel } from "../identity/identity.ts";
import { modelNames, type Deployment } from "../registry/catalog.ts";
import type { ModelRegistry } from "../registry/registry.ts";
import type { HotStore } from "../stores/hot.ts";
import { generate, type GenerateOptions } from "./generate.ts";

/** What the gateway's routes need. */
export interface GatewayAppOptions extends GenerateOptions {
  readonly version: string;
  /** Where limits are kept: `/stats` says how it is. */
  readonly store: Pick<HotStore, "health">;
  /** The admin API, when there are records to manage. */
  readonly admin: Hono<AdminEnv> | null;
}

/** Unix seconds that `/v1/models` answers as `created`: OpenAI's clients want a number, and weights have no birthday. */
const created = 0;

/** The gateway's HTTP routes. */
export function gatewayApp(options: GatewayAppOptions): Hono<NodeEnv> {
  const app = new Hono<NodeEnv>();
  app.onError((thrown, c) => errorResponse(thrown, logOf(c, options.log), (error) => errorBodyOf(c.req.path, error)));
  app.notFound(notFound);
  addOpenRoutes(app, options);
  for (const path of endpointPaths) {
    app.post(path, async (c) => {
      await generate(c.env, path, options);
      return RESPONSE_ALREADY_SENT;
    });
    app.all(path, (c) => {
      throw new PenstockError("method_not_allowed", `${c.req.method} ${path} does not exist; send a POST.`);
    });
  }
  addModelRoutes(app, options);
  addAdminRoutes(app, options);
  if (options.admin !== null) app.route("/", options.admin);
  return app;
}

/** The endpoints of engines, straight from Node's server; null for a request that the app has to look at. */
export function direct(
  incoming: IncomingMessage,
  outgoing: ServerResponse,
  options: GenerateOptions,
): Promise<void> | null {
  const { method, url = "" } = incoming;
  return method === "POST" && isEndpoint(url) ? generate({ incoming, outgoing }, url, options) : null;
}

/** Whatever goes wrong, the client gets the id that stands in the log. */
function logOf(c: Context<NodeEnv>, log: Logger): Logger {
  const { outgoing } = c.env;
  const given = outgoing.getHeader(requestIdHeader);
  const requestId = typeof given === "string" ? given : randomUUIDv7();
  if (given === undefined && !outgoing.headersSent) outgoing.setHeader(requestIdHeader, requestId);
  return log.child({ requestId });
}

/** Probes and the reference: nothing in them is a secret, and a client reads them before it has a key. */
function addOpenRoutes(app: Hono<NodeEnv>, { registry, draining, version }: GatewayAppOptions): void {
  app.get("/health", (c) => c.json({ status: "ok" }));
  app.get("/ready", (c) => {
    if (draining()) throw new PenstockError("draining", "This gateway is stopping.");
    if (!registry.agents.some(({ reachable }) => reachable)) {
      throw new PenstockError("no_replica", "No agent can be reached.", { retryAfterSeconds: 1 });
    }
    return c.json({ status: "ready" });
  });
  const document = openApiDocument(version);
  app.get("/openapi.json", (c) => c.json(document));
  app.get("/docs", (c) => {
    c.header("content-security-policy", referencePolicy);
    return c.html(referencePage(document));
  });
}

function addModelRoutes(app: Hono<NodeEnv>, options: GatewayAppOptions): void {
  const { registry } = options;
  app.get("/v1/models", async (c) => {
    const principal = await options.identify(c.env.incoming);
    const models = registry.catalog.all.flatMap((model) => listing(model, registry));
    return c.json({ object: "list", data: models.filter(({ id }) => mayUseModel(principal, id)) });
  });
  app.get("/v1/models/:id{.+}", async (c) => {
    const principal = await options.identify(c.env.incoming);
    const name = c.req.param("id");
    const found = listing(registry.catalog.resolve(name).model, registry).find(({ id }) => id === name);
    if (found === undefined || !mayUseModel(principal, name)) {
      throw new PenstockError("model_not_found", `There is no model \`${name.slice(0, 200)}\` here.`, {
        param: "model",
      });
    }
    return c.json(found);
  });
}

function addAdminRoutes(app: Hono<NodeEnv>, options: GatewayAppOptions): void {
  const { registry, holds, admission, meter } = options;
  app.get("/stats", (c) =>
    forAdmins(c, options, async () =>
      c.json({
        pid: process.pid,
        agents: registry.agents,
        held: holds.waiting,
        open: admission.open,
        policy: options.routing.policy,
        providers: options.spill.state,
        store: options.store.health,
      }),
    ),
  );
  app.get("/metrics", (c) =>
    forAdmins(c, options, async () =>
      c.text(await meter.registry.metrics(), 200, { "content-type": meter.registry.contentType }),
    ),
  );
}

async function forAdmins(
  c: Context<NodeEnv>,
  { identify }: GatewayAppOptions,
  answer: () => Promise<Response>,
): Promise<Response> {
  const { isAdmin } = await identify(c.env.incoming);
  if (!isAdmin) throw new PenstockError("forbidden", "This is for keys with admin rights.");
  return answer();
}

/** A model and its adapters as `/v1/models` lists them; `penstock` says where the weights are. */
function listing(served: Deployment, registry: ModelRegistry) {
  const { state, tier, stale } = registry.stateOf(served);
  return modelNames(served).map((id) => ({
    id,
    object: "model",
    created,
    owned_by: "penstock",
    parent: id === served.spec.id ? null : served.spec.id,
    penstock: { state, tier, engine: served.engine.kind, ...(stale ? { stale } : {}) },
  }));
}
