import { costProfiles, profileNames, type ProfileName } from "./cost.ts";
import { UsageError } from "./argv.ts";
import { findSettings, parseSettings, type Settings } from "./faults.ts";
import { LoadFailure } from "./errors.ts";
import { isPersona, personas } from "./personas/index.ts";
import { readLaunch, startEngine, type SimFlags, type Simulator } from "./simulator.ts";

/** The simulator's flags in front of and among the engine's; `--as ray` is no engine and apart. */
function splitArguments(argv: readonly string[]): { sim: Map<string, string>; rest: string[] } {
  const sim = new Map<string, string>();
  const rest: string[] = [];
  for (let index = 0; index < argv.length; index += 1) {
    const word = argv[index] ?? "";
    if (word !== "--as" && !word.startsWith("--sim-")) {
      rest.push(word);
      continue;
    }
    const [flag = word, value] = word.split("=", 2);
    if (value !== undefined || flag === "--sim-old-metrics") sim.set(flag, value ?? "");
    else sim.set(flag, argv[(index += 1)] ?? "");
  }
  return { sim, rest };
}

const simFlagNames = new Set([
  "--as",
  "--sim-speed",
  "--sim-profile",
  "--sim-stream-interval",
  "--sim-old-metrics",
  "--sim-config",
  "--sim-version",
]);

function simFlagsOf(given: ReadonlyMap<string, string>): SimFlags {
  const strange = [...given.keys()].find((flag) => !simFlagNames.has(flag));
  if (strange !== undefined) throw new UsageError(`simulator: error: unknown flag ${strange}`);
  const persona = given.get("--as") ?? "vllm";
  if (!isPersona(persona)) {
    throw new UsageError(`simulator: error: --as takes ${Object.keys(personas).join(", ")} or ray, not ${persona}`);
  }
  const profile = given.get("--sim-profile");
  if (profile !== undefined && !isProfile(profile)) {
    throw new UsageError(`simulator: error: --sim-profile takes ${profileNames.join(", ")}`);
  }
  const config = given.get("--sim-config");
  return {
    persona,
    ...(given.has("--sim-speed") ? { speed: numberOf(given, "--sim-speed") } : {}),
    ...(given.has("--sim-stream-interval") ? { streamInterval: numberOf(given, "--sim-stream-interval") } : {}),
    ...(given.has("--sim-old-metrics") ? { oldMetrics: true } : {}),
    ...(profile === undefined ? {} : { profile }),
    ...(config === undefined ? {} : { config }),
  };
}

function isProfile(name: string): name is ProfileName {
  return Object.hasOwn(costProfiles, name);
}

function numberOf(given: ReadonlyMap<string, string>, flag: string): number {
  const value = Number(given.get(flag));
  if (Number.isFinite(value) && value >= 0) return value;
  throw new UsageError(`simulator: error: ${flag} takes a number`);
}

/** Settings from the environment and from flags, which win over `sim.json`. */
function ownSettings(given: ReadonlyMap<string, string>): Settings {
  const text = process.env["PENSTOCK_SIM_FAULTS"];
  const version = given.get("--sim-version");
  return {
    ...(text === undefined ? {} : parseSettings(text, "PENSTOCK_SIM_FAULTS")),
    ...(version === undefined ? {} : { wrong_version: version }),
  };
}

async function run(sim: SimFlags, given: { settings: Settings; rest: readonly string[] }): Promise<void> {
  const { settings, rest } = given;
  const persona = personas[sim.persona];
  const { options, shutdownMs } = readLaunch(sim.persona, rest, process.env);
  const { modelPath } = options;
  const faults: Settings = { ...findSettings(modelPath, sim.config).settings, ...settings };
  let simulator: Simulator | null = null;
  stopOnSignals(() => ({ simulator, faults: simulator?.engine.faults ?? faults, shutdownMs }));
  // A loading engine has nothing else that keeps the process alive.
  const alive = setInterval(() => flood(simulator?.engine.faults ?? faults), 50);
  console.log(`INFO [api_server.py:1272] ${persona.program} API server version ${persona.defaultVersion}`);
  console.log(`INFO [core.py:77] Initializing an engine with model='${modelPath}'`);
  try {
    simulator = await startEngine({
      sim,
      argv: rest,
      env: process.env,
      settings,
      onKill: () => process.kill(process.pid, "SIGKILL"),
      onFail: () => process.exit(1),
    });
  } catch (error) {
    clearInterval(alive);
    if (!(error instanceof LoadFailure)) throw error;
    for (const line of persona.outOfMemory) console.error(line);
    process.exit(1);
  }
  console.log(`INFO: Application startup complete on ${simulator.url}`);
}

/** What is there to stop: no simulator while it loads. */
interface Stoppable {
  readonly simulator: Simulator | null;
  readonly faults: Settings;
  readonly shutdownMs: number;
}

function stopOnSignals(current: () => Stoppable): void {
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    process.on(signal, () => {
      const { simulator, faults, shutdownMs } = current();
      if (faults.ignore_sigterm === true) return;
      console.log(`INFO: ${signal} received, shutting down`);
      const isBusy = simulator !== null && simulator.engine.batch.running.length > 0;
      void Promise.resolve(simulator?.close(isBusy ? shutdownMs : 0)).then(() => process.exit(0));
    });
  }
}

function flood(faults: Settings): void {
  if (faults.flood_logs !== true) return;
  for (let line = 0; line < 200; line += 1) console.log(`INFO: flood ${"x".repeat(200)}`);
}

/** `ray start`: says that it has started, and stays with `--block`. */
function ray(rest: readonly string[]): void {
  if (rest.includes("--version")) {
    console.log("ray, version 2.53.0");
    return;
  }
  if (rest[0] !== "start" && rest[0] !== "stop") throw new UsageError(`Error: No such command '${rest[0] ?? ""}'.`);
  console.log(rest[0] === "start" ? "Ray runtime started." : "Stopped all Ray processes.");
  if (rest.includes("--block")) setInterval(() => {}, 60_000);
}

async function main(): Promise<void> {
  const { sim: given, rest } = splitArguments(process.argv.slice(2));
  if (given.get("--as") === "ray") return ray(rest);
  const sim = simFlagsOf(given);
  const settings = ownSettings(given);
  const persona = personas[sim.persona];
  if (rest.includes(persona.versionFlag)) {
    const named = sim.config === undefined ? {} : findSettings("", sim.config).settings;
    const version = settings.wrong_version ?? named.wrong_version ?? persona.defaultVersion;
    process[persona.versionOn].write(`${persona.versionLine(version)}\n`);
    return;
  }
  await run(sim, { settings, rest });
}

try {
  await main();
} catch (error) {
  console.error(error instanceof UsageError ? error.message : error);
  process.exit(error instanceof UsageError ? 2 : 1);
}
