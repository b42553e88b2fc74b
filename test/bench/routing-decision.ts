import type { Policy, RouteRequest } from "../../runtime/gateway/routing/policy.ts";
import { prefixHashes } from "../../runtime/gateway/routing/prefix-hash.ts";
import { Router } from "../../runtime/gateway/routing/router.ts";
import { quantile } from "./figures.ts";
import { generateConversations, generateSharedPrefixes, seeded, type TraceRequest } from "./routing-trace.ts";

/** Prompt of 12k tokens, the mean of Mooncake's conversations; and one of 220 KB, where other gateways fall over. */
const promptSizes = [48 * 1_024, 220 * 1_024];
const rounds = 20_000;
/** What a decision shall take at most, at `targetReplicas`. */
const targetMicroseconds = 50;
const targetReplicas = 100;

/** Times of one thing, in microseconds. */
export interface DecisionTimes {
  readonly what: string;
  readonly p50: number;
  readonly p99: number;
  /** What the median must stay under; null for a figure that is only there to know. */
  readonly target: number | null;
}

/** What a routing decision costs: look-up of the prefix, choice, and books; hashing of the prompt apart. */
export function decisionTimes(policy: Policy): DecisionTimes[] {
  const kinds = { conversations: generateConversations(1), "shared prefixes": generateSharedPrefixes(1) };
  return [
    ...promptSizes.map(hashing),
    ...[8, targetReplicas, 1_000].flatMap((replicas) =>
      Object.entries(kinds).map(([kind, trace]) => ({
        what: `decision, ${kind}, ${replicas.toLocaleString("en")} replicas`,
        ...deciding(policy, requestsOf(trace), replicas),
        target: replicas === targetReplicas ? targetMicroseconds : null,
      })),
    ),
  ];
}

/** Prints them. */
export function printDecisions(times: readonly DecisionTimes[]): void {
  for (const { what, p50, p99, target } of times) {
    const number = (value: number): string => value.toFixed(1).padStart(7);
    const goal = target === null ? "" : `  target ${target} µs: ${p50 < target ? "met" : "MISSED"}`;
    process.stdout.write(`${what.padEnd(44)} p50 ${number(p50)} µs  p99 ${number(p99)} µs${goal}\n`);
  }
}

function microseconds(work: () => void): number {
  const started = performance.now();
  work();
  return (performance.now() - started) * 1_000;
}

function hashing(sizeBytes: number): DecisionTimes {
  const random = seeded(sizeBytes);
  const prompt = new Uint8Array(sizeBytes).map(() => Math.floor(random() * 256));
  const samples = Array.from({ length: 2_000 }, () => microseconds(() => prefixHashes(prompt)));
  return { what: `hash of ${sizeBytes / 1_024} KB`, ...ofSamples(samples), target: null };
}

/** Requests whose prompts all have 48 blocks, 12k tokens, and share as much as those of the trace do. */
function requestsOf(trace: readonly TraceRequest[]): RouteRequest[] {
  return trace.map(({ blocks, session }, row) => ({
    promptTokens: 12_288,
    prefix: Uint32Array.from({ length: 48 }, (_, at) => blocks[at >> 1] ?? 1e9 + row * 64 + at),
    sessionKey: session,
    adapter: null,
  }));
}

function deciding(policy: Policy, requests: readonly RouteRequest[], replicas: number): { p50: number; p99: number } {
  const router = new Router({ policy });
  for (let replica = 0; replica < replicas; replica += 1) router.add(`replica-${replica}`);
  const samples: number[] = [];
  for (let round = 0; round < rounds; round += 1) {
    const request = requests[round % requests.length];
    if (request === undefined) throw new Error("a trace has requests");
    const nowMs = round * 10;
    samples.push(
      microseconds(() => {
        const route = router.route(request, nowMs);
        route?.firstByte(nowMs + 5);
        route?.end(nowMs + 9);
      }),
    );
  }
  return ofSamples(samples.slice(rounds / 4));
}

function ofSamples(samples: readonly number[]): { p50: number; p99: number } {
  return { p50: quantile(samples, 0.5), p99: quantile(samples, 0.99) };
}
