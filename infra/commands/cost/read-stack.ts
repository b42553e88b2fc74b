import { execFile } from "node:child_process";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { parseDocument } from "yaml";
import { z } from "zod";
import { PenstockError } from "../../../runtime/contracts/errors.ts";
import { planStack } from "../../plan/plan-stack.ts";
import type { CloudPlan } from "../../plan/plan.ts";
import { checkStack, configKey, loadStack } from "../../stack/load.ts";
import type { CloudStack, StackConfig } from "../../stack/schema.ts";

/** The product's folder, with `stacks/` in it. */
export const productRoot = fileURLToPath(new URL("../../../", import.meta.url));
const run = promisify(execFile);
const maxFileBytes = 4 * 2 ** 20;

/** A stack on a cloud as it is written, with its name. */
export interface NamedStack {
  readonly name: string;
  readonly stack: CloudStack;
}

/** Names of the stacks in `stacks/`, sorted. */
export async function stackNames(root: string): Promise<string[]> {
  const files = await readdir(join(root, "stacks"));
  return files.flatMap((file) => /^Pulumi\.(.+)\.yaml$/.exec(file)?.[1] ?? []).toSorted();
}

/** Reads a stack of the working tree. Throws `invalid_config` with the stacks that there are, or what is wrong in it. */
export async function readStack(name: string, root: string): Promise<NamedStack> {
  const names = await stackNames(root);
  if (!names.includes(name)) {
    throw new PenstockError(
      "invalid_config",
      `There is no stack \`${name}\` in stacks/; there are ${names.join(", ")}.`,
    );
  }
  return { name, stack: onCloud(name, await loadStack(join(root, "stacks", `Pulumi.${name}.yaml`))) };
}

/**
 * Reads a stack as it was at a git ref; null: it was not there. Only the stack is of that time: today's planner and prices
 * judge both. Throws `invalid_config` for a ref that git does not know, and for a stack that today's schema refuses.
 */
export async function readStackAt(ref: string, name: string, root: string): Promise<NamedStack | null> {
  if (!/^[A-Za-z0-9_][A-Za-z0-9._/~^@{}+-]*$/.test(ref)) {
    throw new PenstockError("invalid_config", `\`${ref}\` is neither a stack nor a git ref; name one such as main.`);
  }
  const git = { cwd: root, maxBuffer: maxFileBytes, timeout: 30_000 };
  try {
    await run("git", ["rev-parse", "--verify", "--quiet", "--end-of-options", `${ref}^{commit}`], git);
  } catch (cause) {
    const there = (await stackNames(root)).join(", ");
    const problem = `\`${ref}\` is neither a stack (${there}) nor a git ref here; in a shallow clone, fetch it first.`;
    throw new PenstockError("invalid_config", problem, { cause });
  }
  const path = `stacks/Pulumi.${name}.yaml`;
  const listed = await run("git", ["ls-tree", "--name-only", ref, "--", path], git);
  if (listed.stdout.trim() === "") return null;
  const { stdout } = await run("git", ["show", `${ref}:${path}`], git);
  return { name, stack: onCloud(`${ref}:${path}`, parsedStack(stdout, `${ref}:${path}`)) };
}

/** The plan of a stack on a cloud. Throws `invalid_config` where the planner refuses it. */
export function planOfStack({ name, stack }: NamedStack): CloudPlan {
  const plan = planStack(stack, { stackName: name });
  if (plan.cloud === "local") throw new Error(`${name} is on a cloud, and its plan is not`);
  return plan;
}

const file = z.object({ config: z.record(z.string(), z.unknown()) });

function parsedStack(text: string, path: string): StackConfig {
  const document = parseDocument(text, { uniqueKeys: true, prettyErrors: true });
  const parsed = document.errors.length > 0 ? null : file.safeParse(document.toJS());
  const value = parsed?.success === true ? parsed.data.config[configKey] : undefined;
  if (value === undefined) throw new PenstockError("invalid_config", `${path} has no readable \`${configKey}\`.`);
  return checkStack(value, path);
}

function onCloud(name: string, stack: StackConfig): CloudStack {
  if (stack.cloud !== "local") return stack;
  throw new PenstockError(
    "invalid_config",
    `${name} is one machine: nothing is bought for it, so it has no cost report.`,
  );
}
