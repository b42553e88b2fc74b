import { createServer, type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { AddressInfo } from "node:net";
import { text } from "node:stream/consumers";
import type { Heartbeat } from "../../runtime/contracts/agent.ts";
import type { ErrorBody } from "../../runtime/contracts/errors.ts";
import {
  providerConfig,
  spillRule,
  type ProviderOptions,
  type SpillRule,
} from "../../runtime/gateway/providers/options.ts";

/** What somebody sent to a provider. */
export interface Asked {
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

export type Answer = (incoming: IncomingMessage, outgoing: ServerResponse) => void | Promise<void>;

/** Somebody who speaks OpenAI's API, over real sockets. */
export interface FakeProvider extends AsyncDisposable {
  readonly url: string;
  readonly asked: Asked[];
  /** Connections that ended before their answer did. */
  left: number;
  answer: Answer;
}

export const usage = { prompt_tokens: 100, completion_tokens: 20, total_tokens: 120 };

/** A whole answer in JSON. */
export function json(body: unknown, status = 200, headers: Record<string, string> = {}): Answer {
  return (_, outgoing) => {
    outgoing.writeHead(status, { "content-type": "application/json", ...headers }).end(JSON.stringify(body));
  };
}

/** OpenAI's error body; its code is none of ours unless told otherwise. */
export function error(message: string, code = "theirs"): ErrorBody {
  return { error: { message, type: "invalid_request_error", code, param: null } };
}

export async function startProvider(
  answer: Answer = json({ from: "provider", usage }),
  tls?: { readonly key: string; readonly cert: string },
): Promise<FakeProvider> {
  const listener = (incoming: IncomingMessage, outgoing: ServerResponse): void => void handle(incoming, outgoing);
  const server = tls === undefined ? createServer(listener) : createTlsServer(tls, listener);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo; // it listens on TCP
  const made: FakeProvider = {
    url: tls === undefined ? `http://127.0.0.1:${port}` : `https://localhost:${port}`,
    asked: [],
    left: 0,
    answer,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
  return made;

  async function handle(incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
    outgoing.on("close", () => {
      if (!outgoing.writableFinished) made.left += 1;
    });
    const body = await text(incoming).catch(() => "");
    made.asked.push({ path: incoming.url ?? "", headers: incoming.headers, body });
    await made.answer(incoming, outgoing);
  }
}

/** A provider's configuration with its key. */
export function provider(url: string, more: Partial<ProviderOptions> = {}): ProviderOptions {
  const { key = "provider-key", ...rest } = more;
  const { keyEnv: _, ...config } = providerConfig.parse({
    name: "cloud",
    kind: "openai",
    url,
    residency: "eu",
    models: { m: "big/model" },
    prices: { m: { perMillionPromptTokens: 1_000, perMillionCompletionTokens: 10_000 } },
    ...rest,
  });
  return { ...config, key };
}

export function rule(to: readonly string[] = ["cloud"], more: object = {}): SpillRule {
  return spillRule.parse({ model: "m", to, ...more });
}

/** A heartbeat in which the model is ready. */
export function warm(truth: Heartbeat): Heartbeat {
  const models = truth.models.map((model) => ({
    ...model,
    cache_state: "READY" as const,
    cache_level: "GPU_RESIDENT" as const,
  }));
  return { ...truth, models };
}
