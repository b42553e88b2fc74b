import { basename } from "node:path";
import { parseArgs } from "node:util";
import { z } from "zod";
import { defaultPorts } from "../contracts/names.ts";
import { logLevels } from "../lib/log.ts";
import type { GpuBuild } from "./install-gpu.ts";

/** A LoRA adapter to load at start. */
export interface LoraOption {
  readonly name: string;
  readonly path: string;
}

const whole = (least: number, most: number) =>
  z
    .string()
    .regex(/^\d+$/, "must be a whole number")
    .transform(Number)
    .refine((value) => value >= least && value <= most, `must be from ${least} to ${most}`);

/** Name of an adapter: it becomes part of `model:adapter`, never of a path. */
export const adapterName = z.string().regex(/^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$/, {
  message: "must be 1 to 64 letters, digits, `.`, `_` or `-`",
});

const lora = z.string().transform((text, context): LoraOption => {
  const cut = text.indexOf("=");
  const name = adapterName.safeParse(text.slice(0, Math.max(0, cut)));
  if (cut < 1 || cut === text.length - 1 || !name.success) {
    context.addIssue("must be name=path, such as --lora pirate=/models/pirate.gguf");
    return z.NEVER;
  }
  return { name: name.data, path: text.slice(cut + 1) };
});

const schema = z.object({
  "model-path": z
    .string({ error: "is required: the GGUF file to serve" })
    .min(1, "is required: the GGUF file to serve"),
  host: z.string().min(1, "must not be empty").default("127.0.0.1"),
  port: whole(0, 65_535).default(defaultPorts.engine),
  "n-ctx": whole(64, 10_000_000).default(4096),
  "n-gpu-layers": whole(0, 100_000).default(999),
  "max-concurrent-requests": whole(1, 10_000).default(10),
  "max-queue": whole(0, 100_000).optional(),
  parallel: whole(1, 64).default(4),
  threads: whole(1, 1024).optional(),
  "served-model-name": z.string().min(1, "must not be empty").max(200).optional(),
  lora: z
    .array(lora)
    .default([])
    .refine((list) => new Set(list.map(({ name }) => name)).size === list.length, "names an adapter twice"),
  memory: z.enum(["lazy", "eager"], { error: "must be lazy or eager" }).default("lazy"),
  "api-key": z.string().min(1, "must not be empty").optional(),
  "drain-seconds": whole(0, 3600).default(30),
  "log-level": z.enum(logLevels, { error: `must be one of ${logLevels.join(", ")}` }).default("info"),
  "stop-with-stdin": z.boolean().default(false),
});

const flags = {
  "model-path": { type: "string" },
  host: { type: "string" },
  port: { type: "string" },
  "n-ctx": { type: "string" },
  "n-gpu-layers": { type: "string" },
  "max-concurrent-requests": { type: "string" },
  "max-queue": { type: "string" },
  parallel: { type: "string" },
  threads: { type: "string" },
  "served-model-name": { type: "string" },
  lora: { type: "string", multiple: true },
  memory: { type: "string" },
  "api-key": { type: "string" },
  "drain-seconds": { type: "string" },
  "log-level": { type: "string" },
  "stop-with-stdin": { type: "boolean" },
  help: { type: "boolean", short: "h" },
  version: { type: "boolean", short: "v" },
} as const;

/** What the engine was started with. Times in seconds, context in tokens per sequence. */
export interface EngineOptions {
  readonly modelPath: string;
  readonly host: string;
  readonly port: number;
  readonly nCtx: number;
  readonly nGpuLayers: number;
  readonly maxConcurrentRequests: number;
  readonly maxQueue: number;
  readonly parallel: number;
  /** Chosen from the model and the CPU quota when undefined. */
  readonly threads: number | undefined;
  readonly servedModelName: string;
  readonly loras: readonly LoraOption[];
  readonly memory: "lazy" | "eager";
  readonly apiKey: string | undefined;
  readonly drainSeconds: number;
  readonly logLevel: (typeof logLevels)[number];
  readonly stopWithStdin: boolean;
}

/** What a command line asks for. */
export type Command =
  | { readonly kind: "help" }
  | { readonly kind: "version" }
  | { readonly kind: "wrong"; readonly problems: readonly string[] }
  | { readonly kind: "install"; readonly gpu: GpuBuild }
  | { readonly kind: "serve"; readonly options: EngineOptions };

/** Reads a command line, strictly: every problem at once, each naming its option. */
export function parseCommand(argv: readonly string[]): Command {
  if (argv[0] === "install") return parseInstall(argv.slice(1));
  // Not strict here, so that one unknown option does not hide the other problems; they are reported below.
  const { values, tokens } = parseArgs({ args: [...argv], options: flags, strict: false, tokens: true });
  if (values.help === true) return { kind: "help" };
  if (values.version === true) return { kind: "version" };
  const problems = tokens.flatMap((token) => shapeProblem(token));
  const parsed = schema.safeParse(values);
  if (!parsed.success) {
    for (const issue of parsed.error.issues) {
      const flag = String(issue.path[0]);
      if (!problems.some((line) => line.startsWith(`--${flag}:`))) problems.push(`--${flag}: ${issue.message}`);
    }
  }
  if (problems.length > 0 || !parsed.success) return { kind: "wrong", problems };
  return { kind: "serve", options: toOptions(parsed.data) };
}

type ArgToken = NonNullable<ReturnType<typeof parseArgs>["tokens"]>[number];

function shapeProblem(token: ArgToken): string[] {
  if (token.kind === "positional") return [`${token.value}: is not an option; options begin with --`];
  if (token.kind !== "option") return [];
  if (!Object.hasOwn(flags, token.name)) return [`${token.rawName}: is not an option of the engine; see --help`];
  const { type } = flags[token.name as keyof typeof flags]; // hasOwn above
  if (type === "boolean" && token.value !== undefined) return [`--${token.name}: takes no value`];
  if (type === "string" && token.value === undefined) return [`--${token.name}: needs a value`];
  return [];
}

function toOptions(values: z.infer<typeof schema>): EngineOptions {
  const maxConcurrentRequests = values["max-concurrent-requests"];
  return {
    modelPath: values["model-path"],
    host: values.host,
    port: values.port,
    nCtx: values["n-ctx"],
    nGpuLayers: values["n-gpu-layers"],
    maxConcurrentRequests,
    // Twice the running requests: a burst waits its turn, an overload is refused while waiting still makes sense.
    maxQueue: values["max-queue"] ?? 2 * maxConcurrentRequests,
    parallel: values.parallel,
    threads: values.threads,
    servedModelName: values["served-model-name"] ?? basename(values["model-path"]).replace(/\.gguf$/i, ""),
    loras: values.lora,
    memory: values.memory,
    apiKey: values["api-key"],
    drainSeconds: values["drain-seconds"],
    logLevel: values["log-level"],
    stopWithStdin: values["stop-with-stdin"],
  };
}

function parseInstall(argv: readonly string[]): Command {
  const { values, tokens } = parseArgs({
    args: [...argv],
    options: { gpu: { type: "string" }, help: { type: "boolean", short: "h" } },
    strict: false,
    tokens: true,
  });
  if (values.help === true) return { kind: "help" };
  const extra = tokens.find((token) => token.kind !== "option" || !["gpu", "help"].includes(token.name));
  if (extra !== undefined) return { kind: "wrong", problems: ["install: takes only --gpu cuda or --gpu vulkan"] };
  if (values.gpu === "cuda" || values.gpu === "vulkan") return { kind: "install", gpu: values.gpu };
  return { kind: "wrong", problems: ["install: --gpu must be cuda or vulkan"] };
}

/** Text of `--help`. */
export const helpText = `Serves one GGUF model with llama.cpp behind OpenAI's API.

  engine --model-path model.gguf [options]
  engine install --gpu cuda|vulkan      adds the GPU build of llama.cpp for this platform

  --model-path PATH            the GGUF file to serve (required)
  --host HOST                  address to listen on (127.0.0.1)
  --port N                     port to listen on; 0 takes a free one (${defaultPorts.engine})
  --n-ctx N                    context of each sequence in tokens, at most what the model was trained on (4096)
  --n-gpu-layers N             layers to put on the GPU, as far as they fit (999)
  --max-concurrent-requests N  requests that are worked on at once (10)
  --max-queue N                requests that may wait beyond those (twice --max-concurrent-requests)
  --parallel N                 sequences that the model evaluates in one batch (4)
  --threads N                  CPU threads (chosen from the model's size, the cores and the CPU quota)
  --served-model-name NAME     name of the model in the API (file name without .gguf)
  --lora NAME=PATH             LoRA adapter, served as MODEL:NAME; may be repeated
  --memory lazy|eager          map the file, or read it into RAM (lazy)
  --api-key KEY                ask clients for this bearer key (none; or PENSTOCK_ENGINE_KEY)
  --drain-seconds N            how long a stop waits for running requests (30)
  --log-level LEVEL            ${logLevels.join(", ")} (info)
  --stop-with-stdin            end when standard input closes
  --help, --version
`;
