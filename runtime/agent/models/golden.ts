import { z } from "zod";
import { PenstockError } from "../../contracts/errors.ts";
import type { GoldenProbe } from "../../engines/engine.ts";
import { messageOf, parsedOr } from "../supervisor/call.ts";
import type { RunningEngine } from "../supervisor/start.ts";

/** What an engine answered to a golden prompt. */
export type Golden =
  | {
      readonly kind: "completion";
      readonly probe: GoldenProbe;
      readonly text: string;
      /** Empty where the engine gives none; then only the text counts. */
      readonly tokens: readonly string[];
      readonly logprobs: readonly number[];
    }
  | { readonly kind: "embedding"; readonly probe: GoldenProbe; readonly vector: readonly number[] };

/** 16 tokens of a large model that was just loaded; graphs may still be captured. */
const probeTimeoutMs = 120_000;

/**
 * How far a log-probability may move. The same weights under another batch shape or kernel choice move it by a few
 * hundredths in bfloat16; weights that are wrong move it by whole units.
 */
const logprobTolerance = 0.25;

/** A token that the model gave less than this much of its mind to may flip with another kernel; what follows differs. */
const surelyLogprob = Math.log(0.7);

/** Cosine of two embeddings of the same text. */
const cosineAtLeast = 0.999;

const finite = z.number();
const completion = z.object({
  choices: z
    .array(
      z.object({
        text: z.string(),
        logprobs: z
          .object({
            tokens: z.array(z.string()).optional(),
            token_logprobs: z.array(finite.nullable()).optional(),
            // llama-server answers completions in the shape of chat.
            content: z.array(z.object({ token: z.string(), logprob: finite })).nullish(),
          })
          .nullish(),
      }),
    )
    .min(1),
});
const embedding = z.object({ data: z.array(z.object({ embedding: z.array(finite).min(1) })).min(1) });

/**
 * Asks the first probe that the engine does not refuse. Null when it refuses all of them: nothing can be proven then.
 * Throws `engine_died`, or `verification_failed` when the answer is no answer.
 */
export async function askGolden(engine: RunningEngine, probes: readonly GoldenProbe[]): Promise<Golden | null> {
  for (const probe of probes) {
    const answer = await engine.call(probe.call, probeTimeoutMs);
    if (answer.ok) return parseGolden(probe, answer.text);
    if (answer.status >= 500 || answer.status === 404) {
      throw new PenstockError("verification_failed", `The engine does not answer a prompt: ${messageOf(answer)}`);
    }
  }
  return null;
}

/** Throws `verification_failed` when two answers are not those of the same weights. */
export function compareGolden(before: Golden, now: Golden): void {
  const difference = differenceOf(before, now);
  if (difference === null) return;
  throw new PenstockError(
    "verification_failed",
    `The engine does not compute what it computed before (${difference}); its weights or its cache are damaged.`,
  );
}

/** What sets two answers apart, in words without the text itself; null when nothing does. */
export function differenceOf(before: Golden, now: Golden): string | null {
  if (before.kind === "embedding") return now.kind === "embedding" ? embeddingDifference(before, now) : "another kind";
  return now.kind === "completion" ? completionDifference(before, now) : "another kind";
}

type Completion = Extract<Golden, { kind: "completion" }>;
type Embedding = Extract<Golden, { kind: "embedding" }>;

function completionDifference(before: Completion, now: Completion): string | null {
  if (before.logprobs.length === 0 || now.logprobs.length === 0) {
    return before.text === now.text ? null : "the text differs";
  }
  for (const [at, token] of before.tokens.entries()) {
    const was = before.logprobs[at];
    const is = now.logprobs[at];
    if (was === undefined || is === undefined) return `it ends at token ${at}`;
    if (now.tokens[at] !== token) {
      // Two tokens that were almost equally likely; all before it agree.
      return at > 0 && was < surelyLogprob ? null : `token ${at} differs`;
    }
    const moved = Math.abs(was - is);
    // Written so that NaN is a difference as well.
    if (!(moved <= logprobTolerance)) return `the log-probability of token ${at} moved by ${moved.toFixed(2)}`;
  }
  return null;
}

function embeddingDifference(before: Embedding, now: Embedding): string | null {
  if (before.vector.length !== now.vector.length) return "the length of the embedding differs";
  const cosine =
    dot(before.vector, now.vector) / Math.sqrt(dot(before.vector, before.vector) * dot(now.vector, now.vector));
  return cosine >= cosineAtLeast ? null : `the embeddings' cosine is ${cosine.toFixed(3)}`;
}

function dot(a: readonly number[], b: readonly number[]): number {
  return a.reduce((sum, value, at) => sum + value * (b[at] ?? 0), 0);
}

function parseGolden(probe: GoldenProbe, text: string): Golden {
  const body = parsedOr(text);
  if (probe.kind === "embedding") {
    const vector = embedding.safeParse(body).data?.data[0]?.embedding;
    if (vector === undefined) throw unreadable();
    return { kind: "embedding", probe, vector };
  }
  const choice = completion.safeParse(body).data?.choices[0];
  if (choice === undefined) throw unreadable();
  const { tokens, logprobs } = tokensOf(choice.logprobs);
  const complete = logprobs.length === tokens.length && logprobs.every((value) => value !== null);
  return {
    kind: "completion",
    probe,
    text: choice.text,
    tokens: complete ? tokens : [],
    logprobs: complete ? logprobs.filter((value) => value !== null) : [],
  };
}

function tokensOf(said: z.infer<typeof completion>["choices"][number]["logprobs"]): {
  tokens: readonly string[];
  logprobs: readonly (number | null)[];
} {
  if (Array.isArray(said?.content)) {
    return { tokens: said.content.map(({ token }) => token), logprobs: said.content.map(({ logprob }) => logprob) };
  }
  return { tokens: said?.tokens ?? [], logprobs: said?.token_logprobs ?? [] };
}

function unreadable(): PenstockError {
  return new PenstockError("verification_failed", "The engine's answer to a prompt is not in OpenAI's shape.");
}
