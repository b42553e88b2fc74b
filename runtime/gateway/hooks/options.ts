import { dirname, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import type { HookOptions } from "../../contracts/hooks.ts";

/** Modules of this repository are named `penstock:redact-secrets`. */
const libraryScheme = "penstock:";

/** The same with the paths that `module` stands for in the config file `configPath`. */
export function locateHooks(hooks: readonly HookOptions[], configPath: string): HookOptions[] {
  return hooks.map((hook) => ({ ...hook, module: locate(hook.module, configPath) }));
}

function locate(module: string, configPath: string): string {
  if (!module.startsWith(libraryScheme)) return resolve(dirname(configPath), module);
  return fileURLToPath(new URL(`library/${module.slice(libraryScheme.length)}.ts`, import.meta.url));
}
