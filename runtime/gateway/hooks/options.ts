import { dirname, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import { modelId } from "../../contracts/model.ts";

/** Modules of this repository are named `penstock:redact-secrets`. */
const libraryScheme = "penstock:";

/** A hook in the gateway's config. */
export const hookOptions = z.strictObject({
  /** Path of an ES module in JavaScript or TypeScript, relative to the config; or `penstock:` and one of the library's. */
  module: z.string().min(1).max(4_096),
  /** For each call of the hook. */
  deadlineMs: z.int().min(1).max(60_000).default(250),
  /** What becomes of a request whose hook throws, answers nonsense or is late. */
  onError: z.enum(["refuse", "skip"]).default("refuse"),
  /** Models whose requests it sees; all unless told. */
  models: z.array(modelId).min(1).optional(),
  /** Checked by the hook's own schema. */
  options: z.unknown().optional(),
});

/** A hook to load: `module` is the path of a file. */
export type HookOptions = z.infer<typeof hookOptions>;

/** The same with the paths that `module` stands for in the config file `configPath`. */
export function locateHooks(hooks: readonly HookOptions[], configPath: string): HookOptions[] {
  return hooks.map((hook) => ({ ...hook, module: locate(hook.module, configPath) }));
}

function locate(module: string, configPath: string): string {
  if (!module.startsWith(libraryScheme)) return resolve(dirname(configPath), module);
  return fileURLToPath(new URL(`library/${module.slice(libraryScheme.length)}.ts`, import.meta.url));
}
