import { parseArgs } from "node:util";
import { policies } from "../../runtime/gateway/routing/index.ts";
import type { RouteRequest } from "../../runtime/gateway/routing/policy.ts";
import { prefixHashes } from "../../runtime/gateway/routing/prefix-hash.ts";
import { PrefixIndex } from "../../runtime/gateway/routing/prefix-index.ts";
import { Router } from "../../runtime/gateway/routing/router.ts";
import { quantile } from "./figures.ts";
import { generateConversations, generateSharedPrefixes, seeded, type TraceRequest } from "./routing-trace.ts";

const help = `Measures what a routing decision costs: look-up of the prefix, choice, and books; hashing of the prompt apart.

Usage: node test/bench/routing-decision.ts [--policy predicted_cost]
`;

const { values } = parseArgs({
  options: { policy: { type: "string", default: "predicted_cost" }, help: { type: "boolean", default: false } },
});

/** Prompt of 12k tokens, the mean of Mooncake's conversations; and one of 220 KB, where other gateways fall over. */
const promptSizes = [48 * 1_024, 220 * 1_024];
const rounds = 20_000;

function promptOf(sizeBytes: number): Uint8Array {
  const random = seeded(sizeBytes);
  return new Uint8Array(sizeBytes).map(() => Math.floor(random() * 256));
}

function microseconds(work: () => void): number {
  const started = performance.now();
  work();
  return (performance.now() - started) * 1_000;
}

function hashing(): void {
  for (const sizeBytes of promptSizes) {
    const prompt = promptOf(sizeBytes);
    const samples = Array.from({ length: 2_000 }, () => microseconds(() => prefixHashes(prompt)));
    report(`hash of ${sizeBytes / 1_024} KB`, samples);
  }
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

function deciding(what: string, requests: readonly RouteRequest[], replicas: number): void {
  const policy = Object.values(policies).find(({ name }) => name === values.policy);
  if (policy === undefined) throw new Error(`there is no policy ${values.policy}`);
  const index = new PrefixIndex();
  const router = new Router({ policy, index });
  for (let replica = 0; replica < replicas; replica += 1) router.add(`replica-${replica}`);
  const samples: number[] = [];
  for (let round = 0; round < rounds; round += 1) {
    const request = requests[round % requests.length];
    if (request === undefined) return;
    const nowMs = round * 10;
    samples.push(
      microseconds(() => {
        const route = router.route(request, nowMs);
        route?.firstByte(nowMs + 5);
        route?.end(nowMs + 9);
      }),
    );
  }
  report(`${what}, ${replicas} replicas`, samples.slice(rounds / 4));
  if (replicas === 1_000) process.stdout.write(`index: ${(index.sizeBytes / 2 ** 20).toFixed(0)} MiB of table\n`);
}

function report(what: string, samples: readonly number[]): void {
  const at = (share: number): string => quantile(samples, share).toFixed(1).padStart(7);
  process.stdout.write(`${what.padEnd(40)} p50 ${at(0.5)} µs  p99 ${at(0.99)} µs\n`);
}

if (values.help) {
  process.stdout.write(help);
} else {
  hashing();
  for (const replicas of [8, 100, 1_000]) {
    deciding("conversations", requestsOf(generateConversations(1)), replicas);
    deciding("shared prefixes", requestsOf(generateSharedPrefixes(1)), replicas);
  }
}
