import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Endpoint, type Message } from "./endpoint.ts";

/*
 * Scores any OpenAI-compatible endpoint with evaluation.json: conversations whose replies must match, tool calls that
 * must be made, and sentences whose embeddings must lie closer to a paraphrase than to something else.
 */

/** One user turn and what must follow it. */
interface EvaluationTurn {
  readonly user: string;
  /** Pattern that the reply must match, ignoring case; with `result`, the reply to the tool's answer. */
  readonly expect?: string;
  /** The one tool call that must come first. */
  readonly call?: { readonly name: string; readonly arguments: Readonly<Record<string, unknown>> };
  /** What the tool answers. */
  readonly result?: string;
}

interface ConversationCase {
  readonly system?: string;
  /** Tools in short form: `get_weather(city)`. */
  readonly tools?: readonly string[];
  readonly turns: readonly EvaluationTurn[];
}

interface EmbeddingCase {
  readonly text: string;
  readonly near: string;
  readonly far: string;
}

/** evaluation.json. */
export interface Evaluation {
  /** Share of cases that must pass, from 0 to 1. */
  readonly passingScore: number;
  /** Words of the cases that the corpus does not have in its lists. */
  readonly heldOut: readonly string[];
  readonly conversations: Readonly<Record<string, readonly ConversationCase[]>>;
  readonly embeddings: readonly EmbeddingCase[];
}

/** How one case ended. */
export interface CaseResult {
  readonly group: string;
  readonly passed: boolean;
  /** What was asked, what was wanted and what came instead; empty when it passed. */
  readonly detail: string;
}

/** How an endpoint did. */
export interface Scorecard {
  readonly results: readonly CaseResult[];
  /** Share of cases that passed, from 0 to 1. */
  readonly score: number;
  readonly passingScore: number;
}

/** Where to ask. `url` ends in `/v1`; without `model` it is the first one that the endpoint lists. */
export interface EvaluatedEndpoint {
  readonly url: string;
  readonly apiKey?: string | undefined;
  readonly model?: string | undefined;
  readonly signal?: AbortSignal | undefined;
}

type Outcome = Omit<CaseResult, "group">;
const passed: Outcome = { passed: true, detail: "" };

/** The checked-in evaluation. */
export function readEvaluation(): Evaluation {
  return JSON.parse(readFileSync(join(import.meta.dirname, "evaluation.json"), "utf8")) as Evaluation; // a test checks it
}

/** Runs every case at temperature 0. A refused request fails its case; throws when nothing answers at `url`. */
export async function evaluateEndpoint(options: EvaluatedEndpoint): Promise<Scorecard> {
  const evaluation = readEvaluation();
  const endpoint = await Endpoint.open(options);
  const results: CaseResult[] = [];
  for (const [group, cases] of Object.entries(evaluation.conversations)) {
    for (const one of cases) results.push({ group, ...(await runConversation(endpoint, one)) });
  }
  for (const one of evaluation.embeddings) {
    results.push({ group: "embeddings", ...(await runEmbedding(endpoint, one)) });
  }
  const count = results.filter((result) => result.passed).length;
  return { results, score: count / results.length, passingScore: evaluation.passingScore };
}

async function runConversation(endpoint: Endpoint, one: ConversationCase): Promise<Outcome> {
  const messages: Message[] = one.system === undefined ? [] : [{ role: "system", content: one.system }];
  const tools = one.tools?.map(toolOf);
  for (const turn of one.turns) {
    messages.push({ role: "user", content: turn.user });
    const first = await endpoint.chat(messages, tools);
    if (typeof first === "string") return { passed: false, detail: first };
    messages.push(first);
    const reply = turn.call === undefined ? first : await answerCall(endpoint, { turn, messages, tools });
    if (reply === undefined) return failed(turn.user, turn.call, first);
    if (typeof reply === "string") return { passed: false, detail: reply };
    if (turn.call === undefined && (reply.tool_calls?.length ?? 0) > 0) return failed(turn.user, "no call", reply);
    if (turn.expect !== undefined && !new RegExp(turn.expect, "is").test(reply.content ?? "")) {
      return failed(turn.user, turn.expect, reply);
    }
  }
  return passed;
}

interface CallStep {
  readonly turn: EvaluationTurn;
  readonly messages: Message[];
  readonly tools: readonly object[] | undefined;
}

/** Checks the call in the last message and gives the tool's answer; undefined when it is not the wanted call. */
async function answerCall(endpoint: Endpoint, step: CallStep): Promise<Message | string | undefined> {
  const { turn, messages, tools } = step;
  const last = messages.at(-1);
  const [call, ...more] = last?.tool_calls ?? [];
  if (last === undefined || call === undefined || more.length > 0 || !isWanted(call.function, turn)) return undefined;
  if (turn.result === undefined) return last;
  messages.push({ role: "tool", tool_call_id: call.id, content: turn.result });
  const reply = await endpoint.chat(messages, tools);
  if (typeof reply !== "string") messages.push(reply);
  return reply;
}

function isWanted(made: { name: string; arguments: string }, { call }: EvaluationTurn): boolean {
  if (call === undefined || made.name !== call.name) return false;
  try {
    const given = JSON.parse(made.arguments) as Record<string, unknown>; // anything else fails the comparison
    const wanted = Object.entries(call.arguments);
    const same = wanted.every(([key, value]) => String(given[key]).toLowerCase() === String(value).toLowerCase());
    return same && Object.keys(given).length === wanted.length;
  } catch {
    return false;
  }
}

function failed(asked: string, wanted: unknown, reply: Message): Outcome {
  const got = reply.tool_calls?.[0]?.function ?? reply.content;
  return { passed: false, detail: `"${asked}" wants ${JSON.stringify(wanted)}, got ${JSON.stringify(got)}` };
}

/** OpenAI's form of `get_weather(city)`. Parameters of one letter are numbers. */
export function toolOf(short: string): object {
  const [, name = "", list = ""] = /^(\w+)\((.*)\)$/.exec(short) ?? [];
  const names = list.split(",").map((parameter) => parameter.trim());
  const properties = Object.fromEntries(names.map((key) => [key, { type: key.length === 1 ? "number" : "string" }]));
  return { type: "function", function: { name, parameters: { type: "object", properties, required: names } } };
}

async function runEmbedding(endpoint: Endpoint, { text, near, far }: EmbeddingCase): Promise<Outcome> {
  const vectors = await endpoint.embed([text, near, far]);
  if (typeof vectors === "string") return { passed: false, detail: vectors };
  const [own = [], close = [], distant = []] = vectors;
  const toNear = cosine(own, close);
  const toFar = cosine(own, distant);
  if (toNear > toFar) return passed;
  return { passed: false, detail: `"${text}" is ${toNear.toFixed(3)} to "${near}", ${toFar.toFixed(3)} to "${far}"` };
}

function cosine(a: readonly number[], b: readonly number[]): number {
  const dot = a.reduce((sum, value, index) => sum + value * (b[index] ?? 0), 0);
  return dot / (Math.hypot(...a) * Math.hypot(...b));
}
