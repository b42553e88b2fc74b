import { toPenstockError } from "../contracts/errors.ts";
import { envNames } from "../contracts/names.ts";
import { createLog } from "../lib/log.ts";
import { serve } from "../lib/serve.ts";
import { createApp } from "./app.ts";
import { Engine } from "./engine.ts";
import { installGpuBuild } from "./install-gpu.ts";
import { helpText, parseCommand, type EngineOptions } from "./options.ts";
import { engineVersion } from "./version.ts";

/** How long answers that are complete may take to leave. */
const lastBytesMs = 500;

const command = parseCommand(process.argv.slice(2));
switch (command.kind) {
  case "help":
    process.stdout.write(helpText);
    break;
  case "version":
    process.stdout.write(`${engineVersion}\n`);
    break;
  case "wrong":
    process.stderr.write(`${command.problems.join("\n")}\n`);
    process.exitCode = 2;
    break;
  case "install":
    await orExit(installGpuBuild(command.gpu, (line) => process.stdout.write(`${line}\n`)));
    break;
  case "serve":
    await orExit(run(command.options));
    break;
}

async function run(given: EngineOptions): Promise<void> {
  const options = { ...given, apiKey: given.apiKey ?? (process.env[envNames.engineKey] || undefined) };
  const log = createLog("engine", options.logLevel);
  const engine = new Engine(options, log);
  // Listening comes first, so that probes see a process that is alive and not yet ready.
  const server = await serve(createApp(engine, log), options);
  let isStopping = false;
  const stop = (reason: NodeJS.Signals): void => {
    if (isStopping) process.exit(1);
    isStopping = true;
    const seconds = options.drainSeconds;
    log.info({ reason, seconds, running: engine.gate.running }, "stopping");
    // Goes on listening, so that probes and clients hear that it drains.
    engine.drain();
    void engine.gate
      .whenIdle(seconds * 1000)
      .then(() => server.close(lastBytesMs))
      .then(() => process.exit(0));
  };
  process.on("SIGTERM", stop).on("SIGINT", stop);
  // `npm run engine` holds a channel to this process: without it nobody is left who could stop the engine.
  process.on("disconnect", () => stop("SIGTERM"));
  if (options.stopWithStdin)
    process.stdin
      .on("end", () => process.exit(0))
      .on("error", () => process.exit(0))
      .resume();
  log.info({ url: server.url }, "listening");
  process.stdout.write(`${JSON.stringify({ url: server.url })}\n`);
  await engine.load();
}

/** Ends the process with one line when `work` fails; a bug keeps its stack. */
async function orExit(work: Promise<void>): Promise<void> {
  try {
    await work;
  } catch (thrown) {
    const error = toPenstockError(thrown);
    const isBug = error.code === "internal_error";
    process.stderr.write(`engine: ${isBug && thrown instanceof Error ? String(thrown.stack) : error.message}\n`);
    process.exit(1);
  }
}
