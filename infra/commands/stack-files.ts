import { readdir } from "node:fs/promises";
import { basename, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { PenstockError } from "../../runtime/contracts/errors.ts";
import { planStack } from "../plan/plan-stack.ts";
import type { Plan } from "../plan/plan.ts";
import { loadStack } from "../stack/load.ts";
import type { StackConfig } from "../stack/schema.ts";

const folder = fileURLToPath(new URL("../../stacks/", import.meta.url));
const fileName = /^Pulumi\.([A-Za-z0-9._-]+)\.yaml$/;

/** A stack file: the name that Pulumi has for the stack, and where it is. */
export interface StackFile {
  readonly name: string;
  readonly path: string;
}

/**
 * The file of a stack: by its name (`azure-prod`), or a path to a `Pulumi.<stack>.yaml` anywhere.
 * Throws `invalid_config` that lists the stacks there are.
 */
export async function stackFile(nameOrPath: string): Promise<StackFile> {
  const named = fileName.exec(basename(nameOrPath))?.[1];
  if (named !== undefined) return { name: named, path: resolve(nameOrPath) };
  const names = await stackNames();
  if (names.includes(nameOrPath)) return { name: nameOrPath, path: `${folder}Pulumi.${nameOrPath}.yaml` };
  throw new PenstockError(
    "invalid_config",
    `There is no stack \`${nameOrPath}\`; there are ${names.join(", ")}. A new one is a file stacks/Pulumi.<stack>.yaml.`,
  );
}

/** Names of the stacks in `stacks/`, sorted. */
export async function stackNames(): Promise<string[]> {
  const files = await readdir(folder);
  return files.flatMap((file) => fileName.exec(file)?.[1] ?? []).toSorted();
}

/** The stack that a command line names. Throws `invalid_config` with the names there are when it is not just one. */
export async function oneStack([name, ...others]: readonly string[]): Promise<string> {
  if (name !== undefined && others.length === 0) return name;
  throw new PenstockError("invalid_config", `Name one stack: ${(await stackNames()).join(", ")}; see --help.`);
}

/** Loads and plans a stack. Throws `invalid_config` with every problem of the file, or of the plan. */
export async function plannedStack(nameOrPath: string): Promise<{ stack: StackConfig; plan: Plan }> {
  const { name, path } = await stackFile(nameOrPath);
  const stack = await loadStack(path);
  return { stack, plan: planStack(stack, { stackName: name }) };
}
