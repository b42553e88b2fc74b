import { readFileSync } from "node:fs";

/** Tokens of a block of a trace (Mooncake's hash ids). */
export const traceBlockTokens = 512;

/** One request of a trace. */
export interface TraceRequest {
  readonly atMs: number;
  readonly promptTokens: number;
  readonly outputTokens: number;
  /** One id for each full block of the prompt; equal ids mean equal content up to there. */
  readonly blocks: readonly number[];
  readonly session: string;
}

/** Numbers in [0, 1) that are the same in each run (mulberry32). */
export function seeded(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Time stamps of Mooncake's traces are multiples of this. */
const tickMs = 3_000;

/** Reads a Mooncake trace (JSON lines). `jitterSeed` spreads requests over their tick; null leaves them where they are. */
export function readTrace(file: string, jitterSeed: number | null): TraceRequest[] {
  const random = seeded(jitterSeed ?? 0);
  const requests = readFileSync(file, "utf8")
    .split("\n")
    .filter((line) => line !== "")
    .map((line, row) => {
      // Mooncake's published columns; a file of another form shows as NaN in the table.
      const entry = JSON.parse(line) as Record<"timestamp" | "input_length" | "output_length", number> & {
        hash_ids: number[];
      };
      const blocks = entry.hash_ids.slice(0, Math.floor(entry.input_length / traceBlockTokens));
      return {
        atMs: entry.timestamp + (jitterSeed === null ? 0 : random() * tickMs),
        promptTokens: entry.input_length,
        outputTokens: Math.max(1, entry.output_length),
        blocks,
        // The block behind the system prompt that all requests share: a conversation, as far as the trace tells.
        session: String(blocks[1] ?? `row ${row}`),
      };
    });
  return requests.toSorted((a, b) => a.atMs - b.atMs);
}

/** Chance that a conversation goes on after its n-th turn, and the same for all later turns. */
const continues = [0.31, 0.42, 0.51, 0.59, 0.59, 0.68, 0.77];

/** Like Mooncake's conversation trace, with parameters fitted to it. Lasts `seconds`. */
export function generateConversations(seed: number, seconds = 600): TraceRequest[] {
  const random = seeded(seed);
  const { normal, exponential } = distributions(random);
  const logNormal = (mean: number, deviation: number): number => Math.exp(mean + deviation * normal());
  // Block 0 is the system prompt of all.
  let nextBlock = 1;
  const blocksFor = (tokens: number, kept: readonly number[]): number[] => {
    const blocks = kept.slice(0, Math.floor(tokens / traceBlockTokens));
    while (blocks.length < Math.floor(tokens / traceBlockTokens)) blocks.push(blocks.length === 0 ? 0 : nextBlock++);
    return blocks;
  };
  const requests: TraceRequest[] = [];
  // Conversations that began before the trace does fill it from the start, as in the real one.
  for (let startMs = -900_000, session = 0; startMs < seconds * 1_000; startMs += exponential(1_000 / 2.08)) {
    let atMs = startMs;
    let promptTokens = Math.min(126_000, Math.max(890, Math.round(logNormal(8.51, 1.26))));
    let blocks = blocksFor(promptTokens, []);
    for (let turn = 0; ; turn += 1) {
      const outputTokens = Math.round(random() < 0.17 ? 2 + 58 * random() : Math.max(1, logNormal(5.87, 0.42)));
      if (atMs >= 0 && atMs < seconds * 1_000) {
        requests.push({ atMs, promptTokens, outputTokens, blocks, session: String(session) });
      }
      if (random() > (continues[Math.min(turn, continues.length - 1)] ?? 0)) break;
      atMs += logNormal(4.88, 0.98) * 1_000;
      const pasted = random() < 0.12;
      const growth = pasted ? 3_500 + 8_500 * random() : logNormal(Math.log(454), 0.8);
      const kept = random() < 0.08 ? 0.1 + 0.8 * random() : 1;
      const keptBlocks = blocks.slice(0, Math.ceil(blocks.length * kept));
      promptTokens = Math.min(126_000, Math.round(promptTokens + growth));
      blocks = blocksFor(promptTokens, keptBlocks);
    }
    session += 1;
  }
  return requests.toSorted((a, b) => a.atMs - b.atMs);
}

/** llm-d's benchmark of shared prefixes: groups with a long system prompt, and a few questions in each, asked again and again. */
const ladder = { groups: 150, questions: 5, systemTokens: 6_000, questionTokens: 1_200, outputTokens: 1_000 };

/** Like llm-d's "150x5", at a steady rate of `perSecond` for `seconds`. The ladder is climbed by speeding it up. */
export function generateSharedPrefixes(seed: number, { seconds = 400, perSecond = 5 } = {}): TraceRequest[] {
  const random = seeded(seed);
  const { exponential } = distributions(random);
  const { groups, questions, systemTokens, questionTokens, outputTokens } = ladder;
  const systemBlocks = Math.floor(systemTokens / traceBlockTokens);
  const questionBlocks = Math.floor((systemTokens + questionTokens) / traceBlockTokens) - systemBlocks;
  const requests: TraceRequest[] = [];
  for (let atMs = exponential(1_000 / perSecond); atMs < seconds * 1_000; atMs += exponential(1_000 / perSecond)) {
    const group = Math.floor(random() * groups);
    const question = group * questions + Math.floor(random() * questions);
    const blocks = [
      ...Array.from({ length: systemBlocks }, (_, place) => group * systemBlocks + place),
      ...Array.from({ length: questionBlocks }, (_, place) => 1e6 + question * questionBlocks + place),
    ];
    const promptTokens = systemTokens + questionTokens;
    requests.push({ atMs, promptTokens, outputTokens, blocks, session: String(question) });
  }
  return requests;
}

function distributions(random: () => number): { normal: () => number; exponential: (mean: number) => number } {
  return {
    normal: () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random()),
    exponential: (mean) => -mean * Math.log(1 - random()),
  };
}
