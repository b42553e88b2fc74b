import { fileURLToPath } from "node:url";
import { serve, type Listening } from "../../../runtime/lib/serve.ts";
import { Flags, parseArguments, readHelp, type ParsedArguments } from "./argv.ts";
import { withControl } from "./control.ts";
import type { ProfileName } from "./cost.ts";
import { SimEngine } from "./engine.ts";
import { findSettings, type Settings } from "./faults.ts";
import { personas, type PersonaName } from "./personas/index.ts";
import type { Environment, Launch, Persona } from "./personas/persona.ts";

/** The simulator's own flags. */
export interface SimFlags {
  readonly persona: PersonaName;
  readonly speed?: number;
  readonly profile?: ProfileName;
  readonly streamInterval?: number;
  readonly oldMetrics?: boolean;
  /** Settings file; found near the model when absent. */
  readonly config?: string;
}

/** One engine to start. */
export interface StartOptions {
  readonly sim: SimFlags;
  /** The real engine's arguments. */
  readonly argv: readonly string[];
  readonly env: Environment;
  /** Win over what `sim.json` says. */
  readonly settings: Settings;
  /** SIGKILL: the process, or in a library the server's sockets. */
  onKill(): void;
  /** A fatal error of a running engine. */
  onFail(): void;
}

/** A simulated engine that takes calls. */
export interface Simulator extends AsyncDisposable {
  /** Of the API. */
  readonly url: string;
  readonly port: number;
  /** One URL for each port, the API's first. */
  readonly urls: readonly string[];
  readonly engine: SimEngine;
  /** Stops taking calls and cuts the open ones after `deadlineMs`. */
  close(deadlineMs?: number): Promise<void>;
}

const helpFolder = fileURLToPath(new URL("../../contract/engine/help/", import.meta.url));

/** Reads the real engine's command line. Throws `UsageError` when the real one would not take it. */
export function readLaunch(name: PersonaName, argv: readonly string[], env: Environment): Launch {
  const persona: Persona = personas[name];
  const rest = persona.commands.includes(argv[0] ?? "") ? argv.slice(1) : argv;
  const { program, table, style } = persona;
  const parsed: ParsedArguments = parseArguments(rest, { program, table, style, help: readHelp(helpFolder, program) });
  return persona.launch({ positionals: parsed.positionals, flags: new Flags(parsed, program), env });
}

/** Starts an engine; resolves when it is ready. Throws `UsageError`, or `LoadFailure` when it dies while it loads. */
export async function startEngine(options: StartOptions): Promise<Simulator> {
  const { sim, env } = options;
  const launch = readLaunch(sim.persona, options.argv, env);
  const found = findSettings(launch.options.modelPath, sim.config);
  const settings: Settings = { ...found.settings, ...options.settings };
  if (sim.oldMetrics === true) settings.oldMetrics = true;
  const engine = new SimEngine(
    {
      ...launch.options,
      version: settings.wrong_version ?? personas[sim.persona].defaultVersion,
      streamInterval: Math.max(launch.options.streamInterval, sim.streamInterval ?? settings.streamInterval ?? 1),
    },
    {
      clock: { speed: sim.speed ?? settings.speed ?? 0 },
      profile: sim.profile ?? settings.profile ?? "8b-h100-tp1",
      settings,
      counterFolder: found.folder,
      kill: () => options.onKill(),
      fail: () => options.onFail(),
    },
  );
  const listening: Listening[] = [];
  const open = async (): Promise<void> => {
    for (const { app, host, port } of launch.doors(engine)) {
      listening.push(await serve(withControl(app, { engine, persona: personas[sim.persona] }), { host, port }));
    }
  };
  const early = launch.listens === "early" || settings.lie_ready === true;
  try {
    if (early) await open();
    await engine.load();
    if (!early) await open();
  } catch (error) {
    await Promise.all(listening.map((server) => server.close(0)));
    throw error;
  }
  return simulatorOf(engine, listening);
}

/** What a bench or a test in the same process asks for. */
export interface LibraryOptions extends Partial<SimFlags> {
  /** Also the source of the weights; the same model gives the same answers. Default `model`. */
  readonly model?: string;
  readonly settings?: Settings;
  readonly env?: Environment;
  /** Further arguments of the real engine. */
  readonly argv?: readonly string[];
}

/** A vLLM on a free port of loopback in this process, for benches with many engines. */
export async function startSimulator(options: LibraryOptions = {}): Promise<Simulator> {
  const { model = "model", settings = {}, env = {}, argv = [], ...sim } = options;
  let started: Simulator | null = null;
  const cut = (): void => void started?.close(0);
  started = await startEngine({
    sim: { persona: "vllm", ...sim },
    argv: ["serve", model, "--host", "127.0.0.1", "--port", "0", "--enable-prompt-tokens-details", ...argv],
    env,
    settings,
    onKill: cut,
    onFail: cut,
  });
  return started;
}

function simulatorOf(engine: SimEngine, listening: readonly Listening[]): Simulator {
  const [api] = listening;
  if (api === undefined) throw new Error("a persona has at least one door");
  const close = async (deadlineMs = 0): Promise<void> => {
    await Promise.all(listening.map((server) => server.close(deadlineMs)));
    engine.stop();
  };
  return {
    url: api.url,
    port: api.port,
    urls: listening.map(({ url }) => url),
    engine,
    close,
    [Symbol.asyncDispose]: () => close(),
  };
}
