import type { Hono } from "hono";
import type { NodeEnv } from "../../../../runtime/lib/serve.ts";
import type { Flags, FlagTable } from "../argv.ts";
import type { SimEngine } from "../engine.ts";
import type { EngineError } from "../errors.ts";
import type { EngineOptions } from "../options.ts";

/** Environment of the simulated process. */
export type Environment = Readonly<Record<string, string | undefined>>;

/** One port of an engine. */
export interface Door {
  readonly host: string;
  readonly port: number;
  readonly app: Hono<NodeEnv>;
}

/** A persona's command line, understood. */
export interface Launch {
  readonly options: Omit<EngineOptions, "version">;
  /** `early`: takes connections while it loads, and says so. `loaded`: refuses them until then. */
  readonly listens: "early" | "loaded";
  /** ms that running requests get after SIGTERM. */
  readonly shutdownMs: number;
  doors(engine: SimEngine): readonly Door[];
}

/** How the simulator plays one engine. */
export interface Persona {
  /** Name of the program in its messages. */
  readonly program: string;
  readonly style: "argparse" | "plain";
  readonly table: FlagTable;
  /** Sub-commands that stand before the rest of the arguments. */
  readonly commands: readonly string[];
  readonly defaultVersion: string;
  /** The flag that makes it tell its version. */
  readonly versionFlag: "--version" | "--help";
  versionLine(version: string): string;
  readonly versionOn: "stdout" | "stderr";
  errorBody(error: EngineError): object;
  /** What it prints when the GPU's memory is full. */
  readonly outOfMemory: readonly string[];
  launch(command: { positionals: readonly string[]; flags: Flags; env: Environment }): Launch;
}
