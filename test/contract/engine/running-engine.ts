import { delimiter, join } from "node:path";
import { askGolden, type Golden } from "../../../runtime/agent/models/golden.ts";
import type { EngineAnswer } from "../../../runtime/agent/supervisor/call.ts";
import { freePorts } from "../../../runtime/agent/supervisor/ports.ts";
import { startEngine, type RunningEngine } from "../../../runtime/agent/supervisor/start.ts";
import type { EngineSpec } from "../../../runtime/contracts/engine.ts";
import type { Command, EngineCall, EngineGroup } from "../../../runtime/engines/engine.ts";
import { engineOf } from "../../../runtime/engines/index.ts";
import { createLog } from "../../../runtime/lib/log.ts";
import { placeOf } from "../../engines/specs.ts";
import { temporaryFolder, type TemporaryFolder } from "../../support/folders.ts";

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

const callTimeoutMs = 30_000;

/** An engine that the agent's supervisor started from its `launch`. */
export class EngineOnTest implements AsyncDisposable {
  readonly servedName = "model-under-test";
  readonly running: RunningEngine;
  readonly #spec: EngineSpec;
  readonly #folder: TemporaryFolder;

  private constructor(spec: EngineSpec, running: RunningEngine, folder: TemporaryFolder) {
    this.#spec = spec;
    this.running = running;
    this.#folder = folder;
  }

  static async start({ spec, command, modelPath, ...more }: EngineUnderTest): Promise<EngineOnTest> {
    const folder = await temporaryFolder();
    const ports = await freePorts();
    const workDirectory = join(folder.path, "engine");
    const place = placeOf(spec.kind, {
      command,
      modelPath,
      servedName: "model-under-test",
      ports,
      adapters: more.adapters ?? {},
      group: more.group ?? null,
      gpus: [],
      workDirectory,
      compileCacheDirectory: join(folder.path, "compiled"),
      logLevel: "warn",
    });
    const programs = [more.programs, process.env["PATH"]].filter((part) => part !== undefined);
    try {
      const running = await startEngine({
        launch: engineOf(spec).launch(spec, place),
        ports,
        env: { PATH: programs.join(delimiter), HOME: folder.path },
        workDirectory,
        readyTimeoutMs: 50_000,
        signal: new AbortController().signal,
        log: createLog("test", "silent"),
      });
      return new EngineOnTest(spec, running, folder);
    } catch (error) {
      await folder[Symbol.asyncDispose]();
      throw error;
    }
  }

  call(call: EngineCall): Promise<EngineAnswer> {
    return this.running.call(call, callTimeoutMs);
  }

  /** Calls that must all succeed. */
  calls(calls: readonly EngineCall[]): Promise<void> {
    return this.running.callAll(calls, callTimeoutMs);
  }

  /** The golden probe of an adapter, else of the base model. Fails when the engine refuses every probe. */
  async probe(adapter?: string): Promise<Golden> {
    const model = adapter === undefined ? this.servedName : `${this.servedName}:${adapter}`;
    const golden = await askGolden(this.running, engineOf(this.#spec).golden(this.#spec, model));
    if (golden === null) throw new Error("the engine refuses every probe");
    return golden;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.running.stop(0);
    await this.#folder[Symbol.asyncDispose]();
  }
}
