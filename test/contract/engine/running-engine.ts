import { execFile, spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdir, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { delimiter, dirname, join } from "node:path";
import { promisify } from "node:util";
import { vi } from "vitest";
import { z } from "zod";
import type { EngineSpec } from "../../../runtime/contracts/engine.ts";
import type { Command, EngineCall, EngineGroup, EnginePorts, GoldenProbe } from "../../../runtime/engines/engine.ts";
import { engineOf } from "../../../runtime/engines/index.ts";
import { temporaryFolder, type TemporaryFolder } from "../../support/folders.ts";
import { placeOf } from "../../engines/specs.ts";

/** What to start. */
export interface EngineUnderTest {
  readonly spec: EngineSpec;
  /** In place of the engine's own program. */
  readonly command: Command;
  readonly modelPath: string;
  /** Adapters to be there from the start. */
  readonly adapters?: Readonly<Record<string, string>>;
  /** Part in a replica over several nodes. */
  readonly group?: EngineGroup;
  /** Folder of programs that win over those of the machine. */
  readonly programs?: string;
}

/** What a golden probe gave: a text with the log-probability of each token, or an embedding. */
export interface ProbeAnswer {
  readonly text: string;
  readonly numbers: readonly number[];
}

const servedName = "model-under-test";

/** An engine that was started from its `launch`, exactly: prelude, files, environment, ready, and the calls after it. */
export class RunningEngine implements AsyncDisposable {
  readonly spec: EngineSpec;
  readonly servedName = servedName;
  readonly child: ChildProcess;
  readonly #ports: EnginePorts;
  readonly #folder: TemporaryFolder;
  readonly #output: string[] = [];

  private constructor(spec: EngineSpec, child: ChildProcess, place: { ports: EnginePorts; folder: TemporaryFolder }) {
    this.spec = spec;
    this.child = child;
    this.#ports = place.ports;
    this.#folder = place.folder;
    for (const stream of [child.stdout, child.stderr]) stream?.on("data", (text) => this.#output.push(String(text)));
  }

  static async start({ spec, command, modelPath, ...more }: EngineUnderTest): Promise<RunningEngine> {
    const folder = await temporaryFolder();
    const ports = { api: await freePort(), admin: await freePort(), metrics: await freePort() };
    const place = placeOf(spec.kind, {
      command,
      modelPath,
      servedName,
      ports,
      adapters: more.adapters ?? {},
      group: more.group ?? null,
      gpus: [],
      workDirectory: folder.path,
      compileCacheDirectory: join(folder.path, "compiled"),
      logLevel: "warn",
    });
    const launch = engineOf(spec).launch(spec, place);
    const programs = [more.programs, process.env["PATH"]].filter((part) => part !== undefined).join(delimiter);
    const env = { PATH: programs, HOME: process.env["HOME"], ...launch.env };
    for (const [program, ...args] of launch.prelude) await promisify(execFile)(program, args, { env });
    for (const [path, content] of Object.entries(launch.files)) {
      await mkdir(dirname(join(folder.path, path)), { recursive: true });
      await writeFile(join(folder.path, path), content);
    }
    const [program, ...args] = launch.command;
    const child = spawn(program, args, { env, stdio: ["pipe", "pipe", "pipe"] });
    const engine = new RunningEngine(spec, child, { ports, folder });
    try {
      if (launch.ready !== null) await engine.#untilOk(launch.ready);
      for (const call of launch.afterReady) await engine.ok(call);
    } catch (error) {
      await engine[Symbol.asyncDispose]();
      throw error;
    }
    return engine;
  }

  /** Makes a call; `body` is parsed when it is JSON. */
  async call({ method, port = "api", path, body }: EngineCall): Promise<{ status: number; text: string }> {
    const response = await fetch(`http://127.0.0.1:${this.#ports[port]}${path}`, {
      method,
      ...(body === undefined ? {} : { body: JSON.stringify(body), headers: { "content-type": "application/json" } }),
    });
    return { status: response.status, text: await response.text() };
  }

  /** The answer's text. Fails unless it is a 2xx. */
  async ok(call: EngineCall): Promise<string> {
    const { status, text } = await this.call(call);
    if (status < 200 || status > 299) throw new Error(`${call.method} ${call.path} answered ${status}: ${text}`);
    return text;
  }

  /** The first golden probe that the engine does not refuse. `adapter`: of that adapter, else of the base model. */
  async probe(adapter?: string): Promise<ProbeAnswer> {
    const model = adapter === undefined ? servedName : `${servedName}:${adapter}`;
    const refused: string[] = [];
    for (const probe of engineOf(this.spec).golden(this.spec, model)) {
      const { status, text } = await this.call(probe.call);
      if (status === 200) return answerOf(probe, text);
      refused.push(`${status} ${text}`);
    }
    throw new Error(`every probe was refused: ${refused.join("; ")}`);
  }

  async #untilOk(call: EngineCall): Promise<void> {
    await vi.waitUntil(
      async () => {
        if (this.child.exitCode !== null) throw new Error(`the engine ended: ${this.#output.join("").slice(-2000)}`);
        return (await this.call(call).catch(() => undefined))?.status === 200;
      },
      { timeout: 50_000, interval: 50 },
    );
  }

  /** Ends it as an agent does. Resolves with the exit code, null when a signal ended it. */
  async terminate(): Promise<number | null> {
    const ended = once(this.child, "exit");
    this.child.kill("SIGTERM");
    await ended;
    return this.child.exitCode;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.child.exitCode === null && this.child.signalCode === null) {
      const ended = once(this.child, "exit");
      this.child.kill("SIGKILL");
      await ended;
    }
    await this.#folder[Symbol.asyncDispose]();
  }
}

const completionAnswer = z.object({
  choices: z.tuple([
    z.object({
      text: z.string(),
      // OpenAI's own shape, and the one of chat, which llama-server has here.
      logprobs: z
        .union([
          z.object({ token_logprobs: z.array(z.number()) }),
          z.object({ content: z.array(z.object({ logprob: z.number() })) }),
        ])
        .nullish(),
    }),
  ]),
});
const embeddingAnswer = z.object({ data: z.tuple([z.object({ embedding: z.array(z.number()).min(1) })]) });

function answerOf({ kind }: GoldenProbe, text: string): ProbeAnswer {
  if (kind === "embedding") return { text: "", numbers: embeddingAnswer.parse(JSON.parse(text)).data[0].embedding };
  const [{ text: generated, logprobs }] = completionAnswer.parse(JSON.parse(text)).choices;
  if (logprobs === null || logprobs === undefined) return { text: generated, numbers: [] };
  const numbers = "content" in logprobs ? logprobs.content.map(({ logprob }) => logprob) : logprobs.token_logprobs;
  return { text: generated, numbers };
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  await once(server, "close");
  if (address === null || typeof address === "string") throw new Error("a TCP server has a port");
  return address.port;
}
