import { execFile } from "node:child_process";
import { basename, dirname } from "node:path";
import { promisify } from "node:util";
import { parseDocument } from "yaml";
import { z } from "zod";
import { PenstockError } from "../../../runtime/contracts/errors.ts";
import { planStack } from "../../plan/plan-stack.ts";
import type { CloudPlan } from "../../plan/plan.ts";
import { checkStack, configKey, loadStack } from "../../stack/load.ts";
import type { CloudStack, StackConfig } from "../../stack/schema.ts";
import { stackNames, type StackFile } from "../stack-files.ts";

const run = promisify(execFile);
const maxFileBytes = 4 * 2 ** 20;

/** A stack on a cloud as it is written, with its name. */
export interface NamedStack {
  readonly name: string;
  readonly stack: CloudStack;
}

/** Reads a stack file; null: it is one machine. Throws `invalid_config` with what is wrong in it. */
export async function readStack({ name, path }: StackFile): Promise<NamedStack | null> {
  return onCloud(name, await loadStack(path));
}

/**
 * Reads a stack file as it was at a git ref; null: it was not there, or was one machine. Only the stack is of that time:
 * today's planner and prices judge it. Throws `invalid_config` for a ref that git does not know, and for a stack that
 * today's schema refuses.
 */
export async function readStackAt(ref: string, { name, path }: StackFile): Promise<NamedStack | null> {
  if (!/^[A-Za-z0-9_][A-Za-z0-9._/~^@{}+-]*$/.test(ref)) {
    throw new PenstockError("invalid_config", `\`${ref}\` is neither a stack nor a git ref; name one such as main.`);
  }
  const git = { cwd: dirname(path), maxBuffer: maxFileBytes, timeout: 30_000 };
  try {
    await run("git", ["rev-parse", "--verify", "--quiet", "--end-of-options", `${ref}^{commit}`], git);
  } catch (cause) {
    const there = (await stackNames()).join(", ");
    const problem = `\`${ref}\` is neither a stack (${there}) nor a git ref here; in a shallow clone, fetch it first.`;
    throw new PenstockError("invalid_config", problem, { cause });
  }
  const file = basename(path);
  const listed = await run("git", ["ls-tree", "--name-only", ref, "--", file], git);
  if (listed.stdout.trim() === "") return null;
  const { stdout } = await run("git", ["show", `${ref}:./${file}`], git);
  return onCloud(name, parsedStack(stdout, `${ref}:${file}`));
}

/** The plan of a stack on a cloud. Throws `invalid_config` where the planner refuses it. */
export function planOfStack({ name, stack }: NamedStack): CloudPlan {
  const plan = planStack(stack, { stackName: name });
  if (plan.cloud === "local") throw new Error(`${name} is on a cloud, and its plan is not`);
  return plan;
}

const configured = z.object({ config: z.record(z.string(), z.unknown()) });

function parsedStack(text: string, path: string): StackConfig {
  const document = parseDocument(text, { uniqueKeys: true, prettyErrors: true });
  const file = document.errors.length > 0 ? null : configured.safeParse(document.toJS());
  const value = file?.success === true ? file.data.config[configKey] : undefined;
  if (value === undefined) throw new PenstockError("invalid_config", `${path} has no readable \`${configKey}\`.`);
  return checkStack(value, path);
}

function onCloud(name: string, stack: StackConfig): NamedStack | null {
  return stack.cloud === "local" ? null : { name, stack };
}
