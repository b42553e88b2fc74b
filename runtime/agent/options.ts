import { parseArgs } from "node:util";
import { PenstockError } from "../contracts/errors.ts";
import { logLevels } from "../lib/log.ts";
import { checkConfig, readConfig, type AgentConfig } from "./config.ts";

export const helpText = `Runs models on this node: downloads them, starts engines, and puts models to sleep, wakes and evicts them.

Usage: npm run agent -- [options]

  --config FILE        YAML file with everything below and more (runtime/agent/README.md lists it)
  --cache DIR          folder for models, on the fastest disk (.penstock/cache)
  --cache-budget GIB   most that models may take there (the disk)
  --host ADDRESS       address to listen on (127.0.0.1)
  --port N             port to listen on; 0 takes a free one (8081)
  --reclaim WHO        whose spot notices to follow: auto, aws, azure, none (auto)
  --ready-timeout S    seconds that an engine may take to become ready (1200)
  --log-level LEVEL    ${logLevels.join(", ")} (info)
  --check              print the config that would be used, as JSON, and end
  --help, --version

Environment: PENSTOCK_AGENT_TOKEN is the bearer token that callers must send (required). HF_TOKEN opens gated models of
the Hugging Face hub. az:// takes the usual Azure identity, AZURE_STORAGE_SAS_TOKEN or AZURE_STORAGE_CONNECTION_STRING;
s3:// takes the usual AWS credentials. In a LeaderWorkerSet, LWS_LEADER_ADDRESS, LWS_GROUP_SIZE and LWS_WORKER_INDEX
make this node a part of a replica. SIGTERM drains and stops; a second one stops at once.
`;

const flags = {
  config: { type: "string" },
  cache: { type: "string" },
  "cache-budget": { type: "string" },
  host: { type: "string" },
  port: { type: "string" },
  reclaim: { type: "string" },
  "ready-timeout": { type: "string" },
  "log-level": { type: "string" },
  check: { type: "boolean" },
  help: { type: "boolean", short: "h" },
  version: { type: "boolean", short: "v" },
} as const;

/** What a command line asks for. */
export type AgentCommand =
  | { readonly kind: "help" }
  | { readonly kind: "version" }
  | { readonly kind: "check"; readonly config: AgentConfig }
  | { readonly kind: "run"; readonly config: AgentConfig };

/** Reads the command line and the config file. Throws `invalid_config` that names every problem. */
export async function parseAgentCommand(argv: readonly string[]): Promise<AgentCommand> {
  const values = parseFlags(argv);
  if (values.help === true) return { kind: "help" };
  if (values.version === true) return { kind: "version" };
  const file = values.config === undefined ? {} : await readConfig(values.config);
  const config = checkConfig(withFlags(file, values));
  return { kind: values.check === true ? "check" : "run", config };
}

function parseFlags(argv: readonly string[]) {
  try {
    return parseArgs({ args: [...argv], options: flags, strict: true }).values;
  } catch (cause) {
    throw new PenstockError("invalid_config", `${cause instanceof Error ? cause.message : String(cause)}; see --help`);
  }
}

/** A config with what the command line says laid over it. */
function withFlags(file: unknown, values: ReturnType<typeof parseFlags>): unknown {
  if (typeof file !== "object" || file === null || Array.isArray(file)) return file;
  const cache = Reflect.get(file, "cache");
  return {
    ...file,
    ...given({
      host: values.host,
      port: number(values.port),
      reclaim: values.reclaim,
      readySeconds: number(values["ready-timeout"]),
      logLevel: values["log-level"],
    }),
    cache: {
      ...(typeof cache === "object" ? cache : {}),
      ...given({ directory: values.cache, budgetGiB: number(values["cache-budget"]) }),
    },
  };
}

/** What is no number stays text, and the schema says so. */
function number(text: string | undefined): string | number | undefined {
  return text === undefined || text.trim() === "" || Number.isNaN(Number(text)) ? text : Number(text);
}

function given(values: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined));
}
