import { RESPONSE_ALREADY_SENT } from "@hono/node-server/utils/response";
import { Hono } from "hono";
import { PenstockError } from "../../../runtime/contracts/errors.ts";
import type { NodeEnv } from "../../../runtime/lib/serve.ts";
import type { SimEngine } from "./engine.ts";
import { EngineError } from "./errors.ts";
import { faultsSchema } from "./faults.ts";
import { readJson } from "./openai.ts";
import type { Persona } from "./personas/persona.ts";

/** What `GET /sim/state` tells. */
export interface SimState {
  readonly state: SimEngine["state"];
  readonly asleepLevel: number | null;
  readonly gpuMemoryBytes: number;
  readonly running: number;
  readonly waiting: number;
  readonly kvUsage: number;
  readonly adapters: readonly string[];
  readonly faults: SimEngine["faults"];
  readonly counters: SimEngine["batch"]["counters"];
  readonly finished: SimEngine["finished"];
  /** Every call so far, in order: `POST /sleep?level=1`. */
  readonly calls: readonly string[];
  /** How often each was called, without its query. */
  readonly callCounts: Readonly<Record<string, number>>;
}

/** What the simulator puts around a persona's app. */
export interface Control {
  readonly engine: SimEngine;
  readonly persona: Pick<Persona, "errorBody">;
}

/** An engine's app behind the faults of its server, and with the simulator's own calls under `/sim`. */
export function withControl(app: Hono<NodeEnv>, { engine, persona }: Control): Hono<NodeEnv> {
  const outer = new Hono<NodeEnv>();
  outer.onError((thrown, c) => {
    const error = asEngineError(thrown);
    return c.json(persona.errorBody(error), statusOf(error.status));
  });
  outer.notFound((c) => c.json({ detail: "Not Found" }, 404));
  outer.get("/sim/state", (c) => c.json(stateOf(engine)));
  outer.post("/sim/faults", async (c) => {
    engine.faults = { ...engine.faults, ...(await readJson(c, faultsSchema)) };
    return c.json(engine.faults);
  });
  outer.use("*", async (c, next) => {
    const { search } = new URL(c.req.url);
    engine.remember(`${c.req.method} ${c.req.path}${search}`);
    if (engine.faults.hang === true) await new Promise<never>(() => {});
    if (engine.faults.garbage_http === true) {
      c.env.incoming.socket.end("\u0000\u0001 not HTTP \r\n\r\n");
      return RESPONSE_ALREADY_SENT;
    }
    return await next();
  });
  outer.route("/", app);
  return outer;
}

function asEngineError(thrown: Error): EngineError {
  if (thrown instanceof EngineError) return thrown;
  if (thrown instanceof PenstockError) return new EngineError(thrown.kind.status, thrown.message);
  return new EngineError(500, `the simulator failed: ${thrown.stack ?? thrown.message}`);
}

/** hono asks for its own union of numbers; every status here has a body. */
function statusOf(status: number): 500 {
  return status as 500; // hono's type alone; any status with a body may stand here
}

function stateOf(engine: SimEngine): SimState {
  const callCounts: Record<string, number> = {};
  for (const call of engine.calls) {
    const key = call.replace(/\?.*$/, "");
    callCounts[key] = (callCounts[key] ?? 0) + 1;
  }
  return {
    state: engine.state,
    asleepLevel: engine.asleep?.level ?? null,
    gpuMemoryBytes: engine.gpuMemoryBytes,
    running: engine.batch.running.length,
    waiting: engine.batch.waiting.length,
    kvUsage: engine.pool.usage,
    adapters: [...engine.adapters.keys()],
    faults: engine.faults,
    counters: engine.batch.counters,
    finished: engine.finished,
    calls: engine.calls,
    callCounts,
  };
}
