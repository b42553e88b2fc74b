/**
 * Simulated engines behind the agent protocol, in scaled time, for the routing bench.
 * `node test/bench/routing-fleet.ts '{"profiles":[...],"scale":5}'` prints `{"urls":[...]}`.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { text } from "node:stream/consumers";
import { heartbeat } from "./gateway-heartbeat.ts";
import { FastEngine } from "./routing-engine.ts";
import { readPrompt, type FleetOptions } from "./routing-prompt.ts";

/** Tokens that an engine puts into one event (vLLM's `--stream-interval`), so that events are not what is measured. */
const tokensAnEvent = 20;
/** Real ms between two looks at what engines have done. */
const tickMs = 2;

const { profiles, scale } = JSON.parse(process.argv[2] ?? "") as FleetOptions; // what the bench wrote
const startedMs = performance.now();
const nowMs = (): number => (performance.now() - startedMs) * scale;
const engines = profiles.map((profile) => new FastEngine(profile));

async function serve(engine: FastEngine, kvTokens: number): Promise<string> {
  const server: Server = createServer((incoming, outgoing) => {
    if (incoming.url === "/heartbeat") {
      incoming.resume();
      outgoing.end(heartbeat(urlOf(server), loadOf(engine, kvTokens)));
    } else {
      void infer(engine, incoming, outgoing);
    }
  });
  server.listen(0, "127.0.0.1", 8_192);
  await once(server, "listening");
  return urlOf(server);
}

function urlOf(server: Server): string {
  const { port } = server.address() as AddressInfo; // a TCP server that listens has one
  return `http://127.0.0.1:${port}`;
}

function loadOf({ running, waiting, cache }: FastEngine, kvTokens: number): Parameters<typeof heartbeat>[1] {
  return { running, waiting, kv_usage: cache.usage, kv_hit_rate: null, kv_tokens: kvTokens, missing_signals: [] };
}

async function infer(engine: FastEngine, incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
  const prompt = readPrompt(await text(incoming));
  let cachedTokens = 0;
  let written = 0;
  const write = (tokens: number): void => {
    outgoing.write(`data: {"choices":[{"index":0,"delta":{"content":"${" word".repeat(tokens - written)}"}}]}\n\n`);
    written = tokens;
  };
  engine.submit(
    {
      ...prompt,
      onStart: (cached) => (cachedTokens = cached),
      onFirstToken() {
        outgoing.writeHead(200, { "content-type": "text/event-stream" });
        write(1);
      },
      onTokens(tokens) {
        if (tokens - written >= tokensAnEvent) write(tokens);
      },
      onEnd() {
        if (prompt.outputTokens > written) write(prompt.outputTokens);
        const { promptTokens, outputTokens } = prompt;
        const usage = {
          prompt_tokens: promptTokens,
          completion_tokens: outputTokens,
          total_tokens: promptTokens + outputTokens,
          prompt_tokens_details: { cached_tokens: cachedTokens },
        };
        outgoing.end(`data: ${JSON.stringify({ choices: [], usage })}\n\ndata: [DONE]\n\n`);
      },
    },
    nowMs(),
  );
}

setInterval(() => {
  for (const engine of engines) engine.advance(nowMs());
}, tickMs);
const urls = await Promise.all(engines.map((engine, index) => serve(engine, profiles[index]?.kvTokens ?? 0)));
process.stdout.write(`${JSON.stringify({ urls })}\n`);
