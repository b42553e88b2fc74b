import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const program = fileURLToPath(new URL("../../runtime/embedded/main.ts", import.meta.url));

/** How an engine process ended. */
export interface Ended {
  readonly code: number | null;
  readonly stderr: string;
  readonly stdout: string;
}

/** A running engine process. It is killed when its scope ends. */
export class EngineProcess implements AsyncDisposable {
  readonly child: ChildProcess;
  readonly url: string;
  readonly #ended: Promise<Ended>;

  private constructor(child: ChildProcess, url: string, ended: Promise<Ended>) {
    this.child = child;
    this.url = url;
    this.#ended = ended;
  }

  /** Starts an engine on a free port and waits until it is ready. */
  static async start(...argv: readonly string[]): Promise<EngineProcess> {
    const engine = await EngineProcess.listening(...argv);
    for (;;) {
      const response = await fetch(`${engine.url}/ready`).catch(() => undefined);
      if (response?.status === 200) return engine;
      if (engine.child.exitCode !== null) throw new Error(`the engine ended: ${(await engine.ended()).stderr}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  /** Starts an engine on a free port and waits only until it listens. */
  static async listening(...argv: readonly string[]): Promise<EngineProcess> {
    const child = spawn(process.execPath, [program, "--port", "0", "--log-level", "warn", ...argv], {
      stdio: ["pipe", "pipe", "pipe"],
    });
    const ended = collect(child);
    const lines = createInterface({ input: child.stdout });
    const first = await Promise.race([once(lines, "line"), ended]);
    if (!Array.isArray(first)) throw new Error(`the engine ended with ${first.code}: ${first.stderr}`);
    const { url } = JSON.parse(String(first[0])) as { url: string }; // the engine's first line
    return new EngineProcess(child, url, ended);
  }

  ended(): Promise<Ended> {
    return this.#ended;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.child.exitCode === null) this.child.kill("SIGKILL");
    await this.#ended;
  }

  async get(path: string): Promise<Response> {
    return await fetch(this.url + path);
  }

  async post(path: string, body: unknown, signal: AbortSignal | null = null): Promise<Response> {
    const text = typeof body === "string" ? body : JSON.stringify(body);
    return await fetch(this.url + path, { method: "POST", body: text, signal });
  }

  /** The JSON that a POST answers. */
  async json<T>(path: string, body: unknown): Promise<T> {
    const response = await this.post(path, body);
    const answer: unknown = await response.json();
    if (response.status !== 200) throw new Error(`${response.status}: ${JSON.stringify(answer)}`);
    return answer as T; // the test says what it expects
  }

  async stats(): Promise<Stats> {
    return (await (await this.get("/stats")).json()) as Stats; // as routes/status.ts writes it
  }

  /** Milliseconds until `/stats` meets `condition`. */
  async until(condition: (stats: Stats) => boolean): Promise<number> {
    const began = performance.now();
    while (!condition(await this.stats())) {
      if (performance.now() - began > 10_000) throw new Error("waited for 10 seconds");
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    return performance.now() - began;
  }
}

/** What tests read of `/stats`. */
export interface Stats {
  readonly state: string;
  readonly requests: { readonly running: number; readonly waiting: number };
  readonly tokens: { readonly generated: number; readonly prompt: number; readonly prompt_cached: number };
  readonly slots: { readonly busy: number; readonly total: number };
  readonly memory: { readonly loading: string };
  readonly model: { readonly context_tokens: number; readonly adapters: readonly string[] };
  readonly threads: number;
}

/** Runs the engine's program to its end. */
export async function runToEnd(...argv: readonly string[]): Promise<Ended> {
  const child = spawn(process.execPath, [program, ...argv], { stdio: ["ignore", "pipe", "pipe"] });
  const killer = setTimeout(() => child.kill("SIGKILL"), 15_000);
  const ended = await collect(child);
  clearTimeout(killer);
  return ended;
}

async function collect(child: ChildProcess): Promise<Ended> {
  let stderr = "";
  let stdout = "";
  child.stderr?.on("data", (bytes: Buffer) => (stderr += bytes.toString()));
  child.stdout?.on("data", (bytes: Buffer) => (stdout += bytes.toString()));
  const [code] = (await once(child, "close")) as [number | null];
  return { code, stderr, stdout };
}

/** Events of a server-sent event stream, as they come. */
export async function* sseEvents(response: Response): AsyncGenerator<{ event: string; data: string }> {
  const decoder = new TextDecoder();
  let buffer = "";
  for await (const bytes of response.body ?? []) {
    buffer += decoder.decode(bytes, { stream: true });
    for (let end = buffer.indexOf("\n\n"); end >= 0; end = buffer.indexOf("\n\n")) {
      const lines = buffer.slice(0, end).split("\n");
      buffer = buffer.slice(end + 2);
      const field = (name: string) => lines.find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2);
      yield { event: field("event") ?? "message", data: field("data") ?? "" };
    }
  }
}

/** A streamed chunk of either endpoint. */
export interface Chunk {
  readonly object: string;
  readonly model: string;
  readonly choices: readonly {
    readonly index: number;
    readonly text?: string;
    readonly delta?: {
      readonly role?: string;
      readonly content?: string;
      readonly tool_calls?: readonly ToolCallDelta[];
    };
    readonly finish_reason: string | null;
  }[];
  readonly usage?: Usage | null;
}

export interface ToolCallDelta {
  readonly index: number;
  readonly id: string;
  readonly type: string;
  readonly function: { readonly name: string; readonly arguments: string };
}

export interface Usage {
  readonly prompt_tokens: number;
  readonly completion_tokens: number;
  readonly total_tokens: number;
  readonly prompt_tokens_details: { readonly cached_tokens: number };
}

/** A whole completion. */
export interface Completion {
  readonly object: string;
  readonly choices: readonly { readonly index: number; readonly text: string; readonly finish_reason: string }[];
  readonly usage: Usage;
}

/** A whole chat completion. */
export interface ChatAnswer {
  readonly object: string;
  readonly choices: readonly {
    readonly index: number;
    readonly message: { readonly content: string | null; readonly tool_calls?: readonly ToolCallDelta[] };
    readonly finish_reason: string;
  }[];
  readonly usage: Usage;
}

/** An error answer. */
export interface ErrorAnswer {
  readonly error: {
    readonly message: string;
    readonly type: string;
    readonly code: string;
    readonly param: string | null;
  };
}

/** Every chunk of a complete stream; throws when it does not end with `[DONE]`. */
export async function chunksOf(response: Response): Promise<Chunk[]> {
  const events: string[] = [];
  for await (const { data } of sseEvents(response)) events.push(data);
  if (events.pop() !== "[DONE]") throw new Error("the stream did not end with [DONE]");
  return events.map((data) => JSON.parse(data) as Chunk);
}

/** The text of a stream's chunks for one choice. */
export function textOf(chunks: readonly Chunk[], index = 0): string {
  return chunks
    .flatMap(({ choices }) => choices.filter((choice) => choice.index === index))
    .map((choice) => choice.text ?? choice.delta?.content ?? "")
    .join("");
}
