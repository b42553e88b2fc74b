import { spawn, type ChildProcess } from "node:child_process";

/** How `nvidia-smi` is run. */
export interface GpuTool {
  /** A name that is looked up in `env.PATH`, or a path. */
  readonly command: string;
  /** Environment of the tool; never the agent's own, which holds credentials. */
  readonly env: Readonly<Record<string, string>>;
  /** After this long the tool is killed. A healthy one without persistence mode takes up to about 3 s with 8 GPUs. */
  readonly timeoutMs: number;
}

/** What the tool printed before it ended. */
export interface ToolOutput {
  readonly exitCode: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** `nvidia-smi` is not there, or did not give an answer that can be trusted. Its message can be shown. */
export class GpuToolError extends Error {
  /** Whether there is no such program: no failure on a machine without GPUs. */
  readonly missing: boolean;
  /** Resolves when the process is really gone: a killed one stays for as long as its driver call hangs. */
  readonly gone: Promise<void>;

  constructor(message: string, options: { missing?: boolean; gone?: Promise<void>; cause?: unknown } = {}) {
    super(message, { cause: options.cause });
    this.name = "GpuToolError";
    this.missing = options.missing ?? false;
    this.gone = options.gone ?? Promise.resolve();
  }
}

/** The matrix of 16 GPUs with 20 network cards is about 8 KiB. */
const maxOutputBytes = 256 * 1024;

/**
 * Runs the tool. Throws `GpuToolError` when it cannot be started, takes too long, prints too much, or `signal` aborts.
 */
export async function runTool(tool: GpuTool, argv: readonly string[], signal?: AbortSignal): Promise<ToolOutput> {
  const child = start(tool, argv);
  const { promise, resolve, reject } = Promise.withResolvers<ToolOutput>();
  const { promise: gone, resolve: isGone } = Promise.withResolvers<void>();
  const output = { stdout: "", stderr: "" };
  const giveUp = (reason: string): void => {
    child.kill("SIGKILL");
    // Whoever still holds the other end of the pipes must not keep the agent waiting.
    child.stdout?.destroy();
    child.stderr?.destroy();
    reject(new GpuToolError(`${tool.command} ${reason}.`, { gone }));
  };
  const timer = setTimeout(() => giveUp(`gave no answer for ${tool.timeoutMs / 1_000} s`), tool.timeoutMs);
  const stop = (): void => giveUp("was stopped");
  signal?.addEventListener("abort", stop);
  for (const name of ["stdout", "stderr"] as const) {
    // Without a free file descriptor there are no pipes, and the error event follows.
    child[name]?.setEncoding("utf8").on("data", (text: string) => {
      output[name] += text;
      if (output[name].length > maxOutputBytes) giveUp(`printed more than ${maxOutputBytes} bytes`);
    });
  }
  child.once("error", (error: NodeJS.ErrnoException) => {
    isGone();
    reject(notStarted(tool, error));
  });
  child.once("exit", () => isGone());
  child.once("close", (exitCode) => resolve({ exitCode, ...output }));
  try {
    return await promise;
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", stop);
  }
}

function start(tool: GpuTool, argv: readonly string[]): ChildProcess {
  try {
    return spawn(tool.command, argv, { env: tool.env, stdio: ["ignore", "pipe", "pipe"] });
  } catch (thrown) {
    // Some failures of the system, such as no memory for a process, are thrown instead of emitted.
    throw notStarted(tool, thrown);
  }
}

function notStarted(tool: GpuTool, cause: unknown): GpuToolError {
  const missing = cause instanceof Error && "code" in cause && cause.code === "ENOENT";
  const why = cause instanceof Error ? cause.message : String(cause);
  const reason = missing ? "is not installed" : `cannot be started: ${why}`;
  return new GpuToolError(`${tool.command} ${reason}.`, { missing, cause });
}
