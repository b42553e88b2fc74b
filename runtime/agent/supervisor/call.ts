import { PenstockError } from "../../contracts/errors.ts";
import type { EngineCall, EnginePorts } from "../../engines/engine.ts";

/** An engine's answer to a call of the agent's own is small. What is longer is not read. */
const maxAnswerBytes = 4 * 2 ** 20;

/** What an engine answered. */
export interface EngineAnswer {
  readonly status: number;
  readonly ok: boolean;
  readonly text: string;
}

/** URL of a call on this node. */
export function urlOf(call: EngineCall, ports: EnginePorts): string {
  return `http://127.0.0.1:${ports[call.port ?? "api"]}${call.path}`;
}

/** Sends one call to an engine. Throws what `fetch` throws, and `engine_died` for an answer that is too long. */
export async function sendCall(
  call: EngineCall,
  { ports, signal }: { ports: EnginePorts; signal: AbortSignal },
): Promise<EngineAnswer> {
  const body = call.body === undefined ? undefined : JSON.stringify(call.body);
  const response = await fetch(urlOf(call, ports), {
    method: call.method,
    // Keep-alive sockets of a stopped engine would meet the next one on the same port.
    headers: { connection: "close", ...(body === undefined ? {} : { "content-type": "application/json" }) },
    redirect: "error",
    signal,
    ...(body === undefined ? {} : { body }),
  });
  return { status: response.status, ok: response.ok, text: await boundedText(response) };
}

/** The message inside an engine's error answer, in OpenAI's or FastAPI's shape; else the start of the text. */
export function messageOf({ status, text }: EngineAnswer): string {
  const parsed = parsedOr(text);
  const candidates = [field(field(parsed, "error"), "message"), field(parsed, "message"), field(parsed, "detail")];
  const said = candidates.find((candidate) => typeof candidate === "string") ?? text;
  const words = said.trim().slice(0, 500);
  return words === "" ? `HTTP ${status}` : `HTTP ${status}: ${words}`;
}

/** JSON of an answer, or undefined when it is none. */
export function parsedOr(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function field(value: unknown, name: string): unknown {
  if (typeof value !== "object" || value === null || !Object.hasOwn(value, name)) return undefined;
  return Reflect.get(value, name);
}

async function boundedText(response: Response): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  let bytes = 0;
  for await (const chunk of response.body ?? []) {
    bytes += chunk.length;
    if (bytes > maxAnswerBytes) throw new PenstockError("engine_died", "The engine's answer has no end.");
    text += decoder.decode(chunk, { stream: true });
  }
  return text + decoder.decode();
}
