import { spawn } from "node:child_process";
import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { Agent } from "undici";
import { temporaryFolder } from "../support/folders.ts";
import { startProgram, type Program } from "../support/program.ts";
import { quantile } from "./figures.ts";
import { cpuSeconds } from "./gateway-contenders.ts";
import { model } from "./gateway-messages.ts";
import { goal } from "./routing-report.ts";
import { promptBody, type FleetOptions } from "./routing-prompt.ts";
import type { Driver, Outcome, Replay } from "./routing-simulation.ts";
import type { TraceRequest } from "./routing-trace.ts";

/** How busy the programs were while requests were sent: shares of one core, and how late the load was, in real ms. */
export interface Busy {
  readonly gateway: number;
  readonly engines: number;
  readonly load: number;
  readonly lateP99Ms: number;
}

/** A driver that also tells how busy the machine was; `onRun` hears of each run. */
export interface GatewayDriverOptions extends FleetOptions {
  onRun(what: string, busy: Busy): void;
}

const key = "routing-bench-key";
const agentToken = "routing-bench-agent-token";
/** Requests that make the gateway's code hot before the trace begins. */
const warmUps = 64;

/**
 * Replays through the gateway's own program over sockets, with engines in a second one and the load in this one. All times
 * of engines and arrivals are divided by `scale`; outcomes are in simulated ms again. Programs are new in each run, so
 * that no run knows of another. A run in which the machine was too busy is made again. Throws when a request fails.
 */
export function throughGateway(options: GatewayDriverOptions): Driver {
  return {
    async run(trace, policy, { speed, stops }) {
      for (let attempt = 1; ; attempt += 1) {
        const { outcomes, busy } = await runOnce(trace, policy.name, { speed, stops });
        options.onRun(`${policy.name} at ${speed.toFixed(2)}`, busy);
        if (attempt === mostAttempts || !isTooBusy(busy, options.scale)) return outcomes;
      }
    },
  };

  async function runOnce(trace: readonly TraceRequest[], policy: string, how: Replay): Promise<Run> {
    await using folder = await temporaryFolder();
    await using fleet = await startFleet(options);
    await using gateway = await startGatewayFor(fleet.urls, policy, folder.path);
    return await replay(trace, { gateway, fleet, scale: options.scale, ...how });
  }
}

/** Times that a run is made when the machine was too busy: a machine that halts for a second fails many requests. */
const mostAttempts = 3;
/** Above these shares of a core, and of the goal in simulated time, the machine is part of what is measured. */
const tooBusy = { core: 0.7, goal: 0.05 };

/** Whether figures of a run say more about the machine than about the policy. */
export function isTooBusy({ gateway, engines, load, lateP99Ms }: Busy, scale: number): boolean {
  const isLate = lateP99Ms * scale > goal.ttftMs * tooBusy.goal;
  return gateway > tooBusy.core || engines + load > tooBusy.core || isLate;
}

interface Run {
  readonly outcomes: readonly Outcome[];
  readonly busy: Busy;
}

interface Fleet extends AsyncDisposable {
  readonly pid: number;
  readonly urls: readonly string[];
}

async function startFleet({ profiles, scale }: FleetOptions): Promise<Fleet> {
  const program = fileURLToPath(new URL("routing-fleet.ts", import.meta.url));
  const child = spawn(process.execPath, [program, JSON.stringify({ profiles, scale })], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const exited = once(child, "exit");
  const ended = exited.then(() => Promise.reject(new Error("the engines' program ended")));
  const [line] = (await Promise.race([once(createInterface(child.stdout), "line"), ended])) as [string]; // one line
  ended.catch(() => undefined);
  return {
    pid: child.pid ?? -1,
    urls: (JSON.parse(line) as { urls: string[] }).urls, // what that program writes
    async [Symbol.asyncDispose]() {
      child.kill("SIGKILL");
      await exited;
    },
  };
}

async function startGatewayFor(urls: readonly string[], policy: string, folder: string): Promise<Program> {
  const config = {
    port: 0,
    fleets: [{ name: "bench", agents: { kind: "static", urls } }],
    models: [{ id: model, source: "file:///model", format: "safetensors", fleet: "bench", engine: { kind: "vllm" } }],
    stores: { directory: join(folder, "stores") },
    routing: policy,
    logLevel: "error",
  };
  const path = join(folder, "gateway.yaml");
  await writeFile(path, JSON.stringify(config));
  return await startProgram("gateway", {
    args: ["--config", path],
    env: { PENSTOCK_AGENT_TOKEN: agentToken, PENSTOCK_API_KEY: key },
  });
}

interface Programs {
  readonly gateway: Program;
  readonly fleet: Fleet;
  readonly scale: number;
}

async function replay(
  trace: readonly TraceRequest[],
  { gateway, fleet, scale, speed, stops }: Programs & Replay,
): Promise<Run> {
  const client = new Client(gateway.url);
  await warmUp(client);
  const pids = [gateway.pid, fleet.pid, process.pid];
  const before = await Promise.all(pids.map(cpuSeconds));
  const late: number[] = [];
  const outcomes: Outcome[] = [];
  const ended = Promise.withResolvers<void>();
  ended.promise.catch(() => undefined);
  let hasEnded = false;
  const startMs = performance.now() + 100;
  for (const [row, request] of trace.entries()) {
    const dueMs = startMs + request.atMs / speed / scale;
    const body = promptBody(request, row);
    const waitMs = dueMs - performance.now();
    if (waitMs > 0.5) await delay(waitMs);
    if (hasEnded) break;
    late.push(performance.now() - dueMs);
    const isOver = (answer: Answer): void => {
      const outcome = outcomeOf(request, answer, { startMs, dueMs, scale });
      outcomes.push(outcome);
      if (outcomes.length < trace.length && stops?.(outcome) !== true) return;
      hasEnded = true;
      ended.resolve();
    };
    void client.send(body).then(isOver, ended.reject);
  }
  const elapsed = (performance.now() - startMs) / 1_000;
  const after = await Promise.all(pids.map(cpuSeconds));
  const [gatewayShare = 0, engines = 0, load = 0] = after.map((seconds, at) => (seconds - (before[at] ?? 0)) / elapsed);
  await ended.promise;
  const known = [...outcomes];
  await client.close();
  return { outcomes: known, busy: { gateway: gatewayShare, engines, load, lateP99Ms: quantile(late, 0.99) } };
}

async function warmUp(client: Client): Promise<void> {
  const short = { atMs: 0, promptTokens: 100, outputTokens: 2, blocks: [], session: "" };
  for (let warm = 0; warm < warmUps; warm += 8) {
    await Promise.all(Array.from({ length: 8 }, (_, at) => client.send(promptBody(short, -1 - warm - at))));
  }
}

/** In simulated ms; from when a request was due, so that a load that is late does not make the gateway look quick. */
function outcomeOf(
  { promptTokens, outputTokens }: TraceRequest,
  { firstMs, endMs, cachedTokens }: Answer,
  { startMs, dueMs, scale }: { readonly startMs: number; readonly dueMs: number; readonly scale: number },
): Outcome {
  return {
    promptTokens,
    outputTokens,
    cachedTokens,
    arrivedMs: (dueMs - startMs) * scale,
    ttftMs: (firstMs - dueMs) * scale,
    tokenMs: ((endMs - firstMs) * scale) / Math.max(1, outputTokens - 1),
    endMs: (endMs - startMs) * scale,
  };
}

/** When an answer's first and last bytes came, in real ms, and what its engine says of its cache. */
interface Answer {
  readonly firstMs: number;
  readonly endMs: number;
  readonly cachedTokens: number;
}

/** Sends chats over as many connections as are open at once. */
class Client {
  readonly #agent = new Agent({ pipelining: 1, headersTimeout: 0, bodyTimeout: 0 });
  readonly #origin: string;

  constructor(url: string) {
    this.#origin = url;
  }

  async send(body: string): Promise<Answer> {
    const answer = await this.#agent.request({
      origin: this.#origin,
      path: "/v1/chat/completions",
      method: "POST",
      headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
      body,
    });
    let firstMs = 0;
    let end = "";
    for await (const chunk of answer.body as AsyncIterable<Buffer>) {
      if (firstMs === 0) firstMs = performance.now();
      // The usage is in the last event but one.
      end = (end + chunk.toString("latin1")).slice(-1_000);
    }
    const cached = /"cached_tokens":(\d+)/.exec(end)?.[1];
    if (answer.statusCode !== 200 || cached === undefined) throw new Error(`${answer.statusCode}: ${end}`);
    return { firstMs, endMs: performance.now(), cachedTokens: Number(cached) };
  }

  /** Gives up what is still open. */
  async close(): Promise<void> {
    await this.#agent.destroy();
  }
}
