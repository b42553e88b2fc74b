import type { CostProfile } from "../fakes/engine/cost.ts";
import { model } from "./gateway-messages.ts";
import { traceBlockTokens, type TraceRequest } from "./routing-trace.ts";

/** Engines to start. */
export interface FleetOptions {
  /** One engine each. */
  readonly profiles: readonly CostProfile[];
  /** Simulated ms in a real one. */
  readonly scale: number;
}

/** Bytes of a token, as everywhere in the gateway. */
const tokenBytes = 4;
const blockBytes = traceBlockTokens * tokenBytes;

/** A chat whose text begins alike as far as the blocks of two requests are the same; what is no full block is its own. */
export function promptBody({ promptTokens, outputTokens, blocks }: TraceRequest, row: number): string {
  const rest = promptTokens * tokenBytes - blocks.length * blockBytes;
  const content = blocks.map((block) => filled(`${block}`, blockBytes)).join("") + filled(`row ${row}`, rest);
  // `min_tokens`, because a gateway would take `max_tokens` for what it can expect.
  return `{"model":"${model}","stream":true,"stream_options":{"include_usage":true},"ignore_eos":true,"min_tokens":${outputTokens},"messages":[{"role":"user","content":"${content}"}]}`;
}

function filled(name: string, bytes: number): string {
  return `${name} `.repeat(Math.ceil(bytes / (name.length + 1))).slice(0, bytes);
}

/** What an engine sees of a body of `promptBody`. */
export function readPrompt(body: string): Pick<TraceRequest, "promptTokens" | "outputTokens" | "blocks"> {
  const { messages, min_tokens } = JSON.parse(body) as { messages: [{ content: string }]; min_tokens: number }; // ours
  const [{ content }] = messages;
  const blocks: number[] = [];
  for (let at = 0; at + blockBytes <= content.length; at += blockBytes) {
    blocks.push(Number.parseInt(content.slice(at, at + 16), 10));
  }
  return { promptTokens: Math.ceil(content.length / tokenBytes), outputTokens: min_tokens, blocks };
}
