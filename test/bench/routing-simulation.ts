import type { Policy } from "../../runtime/gateway/routing/policy.ts";
import { mix32 } from "../../runtime/gateway/routing/prefix-hash.ts";
import { Router } from "../../runtime/gateway/routing/router.ts";
import type { CostProfile } from "../fakes/engine/cost.ts";
import { FastEngine } from "./routing-engine.ts";
import { seeded, type TraceRequest } from "./routing-trace.ts";

/** What became of one request. */
export interface Outcome {
  readonly promptTokens: number;
  readonly cachedTokens: number;
  readonly outputTokens: number;
  readonly arrivedMs: number;
  readonly ttftMs: number;
  /** Mean time between two tokens; 0 for answers of one token. */
  readonly tokenMs: number;
  readonly endMs: number;
}

/** How a trace is replayed. */
export interface Replay {
  /** How many times as fast. */
  readonly speed: number;
  /** Hears of each outcome; true when nothing else needs to be known, so that the rest is left out. */
  readonly stops?: ((outcome: Outcome) => boolean) | undefined;
}

/** Replays a trace with a policy against a fleet. The bench knows nothing else of what it measures. */
export interface Driver {
  run(trace: readonly TraceRequest[], policy: Policy, replay: Replay): Promise<readonly Outcome[]>;
}

/** Between two looks at whether to stop, once all requests are there. */
const drainStepMs = 10_000;

/** A fleet to simulate. */
export interface SimulationOptions {
  /** One engine each. */
  readonly profiles: readonly CostProfile[];
  /** Time between two heartbeats of a replica. */
  readonly heartbeatMs: number;
}

/** Router and engines in one process, in simulated time: the same result in each run. */
export function simulation(options: SimulationOptions): Driver {
  return { run: (trace, policy, replay) => Promise.resolve(simulate(trace, { ...options, ...replay, policy })) };
}

function simulate(
  trace: readonly TraceRequest[],
  { profiles, heartbeatMs, policy, speed, stops }: SimulationOptions & Replay & { policy: Policy },
): Outcome[] {
  const router = new Router({ policy, random: seeded(1) });
  const engines = profiles.map((profile) => new FastEngine(profile));
  for (const [index, { kvTokens }] of profiles.entries()) router.add(`replica-${index}`, { kvTokens });
  const outcomes: Outcome[] = [];
  /** Outcomes that are wanted: fewer than all once `stops` has said so. */
  let wanted = trace.length;
  const beat = (atMs: number): void => {
    for (const [index, engine] of engines.entries()) {
      engine.advance(atMs);
      const { waiting, running, cache } = engine;
      router.account(`replica-${index}`)?.measured({ waiting, running, kvUsage: cache.usage }, atMs);
    }
  };
  let beatMs = 0;
  for (const request of trace) {
    if (outcomes.length >= wanted) return outcomes;
    const atMs = request.atMs / speed;
    for (; beatMs <= atMs; beatMs += heartbeatMs) beat(beatMs);
    for (const engine of engines) engine.advance(atMs);
    send(request, atMs);
  }
  for (let atMs = beatMs; outcomes.length < wanted; atMs += drainStepMs) {
    for (const engine of engines) engine.advance(atMs);
  }
  return outcomes;

  function send({ promptTokens, outputTokens, blocks, session }: TraceRequest, atMs: number): void {
    const route = router.route({ promptTokens, prefix: hashesOf(blocks), sessionKey: session, adapter: null }, atMs);
    if (route === null) throw new Error("no replica is ready");
    let cachedTokens = 0;
    let firstMs = 0;
    engines[Number(route.replica.slice("replica-".length))]?.submit(
      {
        promptTokens,
        outputTokens,
        blocks,
        onStart: (cached) => (cachedTokens = cached),
        onFirstToken: (now) => {
          firstMs = now;
          route.firstByte(now);
        },
        onEnd: (now) => {
          route.end(now);
          const tokenMs = (now - firstMs) / Math.max(1, outputTokens - 1);
          const ttftMs = firstMs - atMs;
          const sizes = { promptTokens, cachedTokens, outputTokens };
          const outcome = { ...sizes, arrivedMs: atMs, ttftMs, tokenMs, endMs: now };
          outcomes.push(outcome);
          if (stops?.(outcome) === true) wanted = 0;
        },
      },
      atMs,
    );
  }
}

/** A block of the trace is two of the gateway's. */
function hashesOf(blocks: readonly number[]): Uint32Array {
  const hashes = new Uint32Array(blocks.length * 2);
  for (const [index, block] of blocks.entries()) {
    hashes[2 * index] = mix32(2 * block);
    hashes[2 * index + 1] = mix32(2 * block + 1);
  }
  return hashes;
}
