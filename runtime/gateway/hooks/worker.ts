import { registerHooks } from "node:module";
import { basename } from "node:path";
import { parentPort, workerData } from "node:worker_threads";
import { z } from "zod";
import { fieldPath } from "../../contracts/validate.ts";
import type { EventTransformer, Hook, HookStages } from "./hook.ts";
import { stages, type Call, type FromThread, type Problem, type ThreadData, type ToThread } from "./protocol.ts";

/*
 * The thread of one hook. A hook that never ends, throws outside of a call or fills its memory harms this thread alone.
 */

const { moduleUrl, options } = workerData as ThreadData; // what `thread.ts` gave it
const transformers = new Map<number, EventTransformer>();

/** Hooks of operators lie anywhere, and import what they need of Penstock by this name. */
registerHooks({
  resolve: (specifier, context, next) =>
    specifier === "penstock/hooks"
      ? { url: new URL("hook.ts", import.meta.url).href, format: "module-typescript", shortCircuit: true }
      : next(specifier, context),
});

function post(message: FromThread): void {
  parentPort?.postMessage(message, []);
}

const hookShape = z.object({
  name: z.string().regex(/^[a-z0-9][a-z0-9-]{0,62}$/, "must be 1 to 63 of a-z, 0-9 and `-`"),
  options: z.custom<z.ZodType>(
    (value) => value instanceof Object && "safeParse" in value,
    "must be a schema: z.object({...}) with `z` of penstock/hooks",
  ),
  create: z.custom<Hook["create"]>((value) => typeof value === "function", "must be a function"),
});

async function load(): Promise<{ name: string; hook: HookStages } | Problem[]> {
  let found: unknown;
  try {
    const exported: { hook?: unknown } = await import(moduleUrl);
    found = exported.hook;
  } catch (error) {
    return [{ path: "module", message: `cannot be loaded: ${messageOf(error)}` }];
  }
  const shape = hookShape.safeParse(found);
  if (!shape.success) return found === undefined ? [noHook] : problemsOf(shape.error, "module: hook");
  const checked = shape.data.options.safeParse(options ?? {});
  if (!checked.success) return problemsOf(checked.error, "options");
  try {
    return { name: shape.data.name, hook: await shape.data.create(checked.data) };
  } catch (error) {
    return [{ path: "options", message: `\`create\` failed: ${messageOf(error)}` }];
  }
}

const noHook = {
  path: "module",
  message:
    'exports no `hook`; write: import { defineHook } from "penstock/hooks"; export const hook = defineHook({...})',
};

function problemsOf(error: z.ZodError, root: string): Problem[] {
  return error.issues.map((issue) => ({
    path: [root, fieldPath(issue.path)].filter((part) => part !== "").join("."),
    message: issue.message,
  }));
}

async function answer(hook: HookStages, call: Call): Promise<unknown> {
  if (call.stage === "before") return await hook.before?.(call.request);
  if (call.stage === "after") return await hook.after?.(call.response, call.request);
  let transform = transformers.get(call.stream);
  if (transform === undefined) {
    if (call.request === null) throw new Error("the stream began in a thread that is gone");
    transform = hook.events?.(call.request) ?? (() => undefined);
    transformers.set(call.stream, transform);
  }
  const answers: unknown[] = [];
  for (const event of call.events) answers.push(await transform(event));
  return answers;
}

/** Where it was thrown; the message may hold what a client wrote, and goes into no log. */
function placeOf(error: unknown): string {
  if (!(error instanceof Error)) return "threw what is no Error";
  const place = /(?:file:\/\/)?([^\s(]+?:\d+:\d+)\)?$/m.exec(error.stack ?? "")?.[1];
  return `${error.name}${place === undefined ? "" : ` at ${basename(place)}`}`;
}

function messageOf(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).split("\n")[0] ?? "";
}

async function handle(hook: HookStages, id: number, call: Call): Promise<void> {
  try {
    post({ kind: "result", id, value: await answer(hook, call) });
  } catch (error) {
    post({ kind: "failed", id, reason: placeOf(error) });
  }
}

const loaded = await load();
if (Array.isArray(loaded)) post({ kind: "unusable", problems: loaded });
else {
  const { name, hook } = loaded;
  post({ kind: "ready", name, stages: stages.filter((stage) => typeof hook[stage] === "function") });
  parentPort?.on("message", (message: ToThread) => {
    if (message.kind === "ping") post({ kind: "pong" });
    else if (message.kind === "forget") transformers.delete(message.stream);
    else void handle(hook, message.id, message.call);
  });
}
