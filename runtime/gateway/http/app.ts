import { Hono } from "hono";
import { PenstockError } from "../../contracts/errors.ts";
import { notFound, onError, requireBearer } from "../../lib/http.ts";
import type { NodeEnv } from "../../lib/serve.ts";
import { modelNames, type Deployment } from "../registry/catalog.ts";
import type { ModelRegistry } from "../registry/registry.ts";
import { endpoints, type Endpoint } from "../stages/admit.ts";
import { generate, type GenerateOptions } from "./generate.ts";

/** What the gateway's routes need. */
export interface GatewayAppOptions extends GenerateOptions {
  readonly apiKey: string;
  /** Whether the gateway is stopping: it finishes what it has and takes nothing new. */
  readonly draining: () => boolean;
}

/** Unix seconds that `/v1/models` answers as `created`: OpenAI's clients want a number, and weights have no birthday. */
const created = 0;

/** The gateway's HTTP routes. */
export function gatewayApp(options: GatewayAppOptions): Hono<NodeEnv> {
  const { registry, meter, holds, log } = options;
  const app = new Hono<NodeEnv>();
  app.onError(onError(log));
  app.notFound(notFound);

  app.get("/health", (c) => c.json({ status: "ok" }));
  app.get("/ready", (c) => {
    if (options.draining()) throw new PenstockError("draining", "This gateway is stopping.");
    if (!registry.agents.some(({ reachable }) => reachable)) {
      throw new PenstockError("no_replica", "No agent can be reached.", { retryAfterSeconds: 1 });
    }
    return c.json({ status: "ready" });
  });

  app.use(requireBearer(options.apiKey));
  for (const endpoint of Object.keys(endpoints) as Endpoint[]) {
    app.post(endpoint, (c) => generate(c, endpoint, options));
    app.all(endpoint, (c) => {
      throw new PenstockError("method_not_allowed", `${c.req.method} ${endpoint} does not exist; send a POST.`);
    });
  }
  app.get("/v1/models", (c) =>
    c.json({ object: "list", data: registry.catalog.all.flatMap((m) => listing(m, registry)) }),
  );
  app.get("/v1/models/:id{.+}", (c) => {
    const name = c.req.param("id");
    const found = listing(registry.catalog.resolve(name).model, registry).find(({ id }) => id === name);
    return c.json(found);
  });
  app.get("/stats", (c) => c.json({ pid: process.pid, agents: registry.agents, held: holds.waiting }));
  app.get("/metrics", async (c) =>
    c.text(await meter.registry.metrics(), 200, { "content-type": meter.registry.contentType }),
  );
  return app;
}

/** A model and its adapters as `/v1/models` lists them; `penstock` says where the weights are. */
function listing(served: Deployment, registry: ModelRegistry) {
  const { state, tier } = registry.stateOf(served);
  return modelNames(served).map((id) => ({
    id,
    object: "model",
    created,
    owned_by: "penstock",
    parent: id === served.spec.id ? null : served.spec.id,
    penstock: { state, tier, engine: served.engine.kind },
  }));
}
