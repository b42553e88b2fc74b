import { readFile } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { parseDocument } from "yaml";
import { z } from "zod";
import { PenstockError } from "../../runtime/contracts/errors.ts";
import { fieldPath } from "../../runtime/contracts/validate.ts";
import { crossChecks } from "./cross-checks.ts";
import { knownKeys, knownValues } from "./json-schema.ts";
import { stackSchema, type LocalStack, type StackConfig, type StackModel } from "./schema.ts";

/** Name of the one configuration value of a stack. */
export const configKey = "penstock:stack";

/**
 * Reads a stack file. Throws `invalid_config` that lists every problem at once, each with its path and what is right.
 * `file://` sources may be relative to the stack file; they come back absolute.
 */
export async function loadStack(path: string): Promise<StackConfig> {
  const text = await readStackFile(path);
  const document = parseDocument(text, { uniqueKeys: true, prettyErrors: true });
  if (document.errors.length > 0) {
    throw invalid(
      path,
      document.errors.map((error) => `YAML: ${error.message}`),
    );
  }
  const file = z.object({ config: z.record(z.string(), z.unknown()) }).safeParse(document.toJS());
  const value = file.success ? file.data.config[configKey] : undefined;
  if (value === undefined) throw invalid(path, [`config: add a \`${configKey}\` object`]);
  return checkStack(value, path);
}

/** Reads the stack file of one machine. Throws `invalid_config` also when it describes a cloud. */
export async function loadLocalStack(path: string): Promise<LocalStack> {
  const stack = await loadStack(path);
  if (stack.cloud === "local") return stack;
  throw new PenstockError(
    "invalid_config",
    `${path} describes a stack on ${stack.cloud}: \`npm run up\` makes it. \`npm start\` serves stacks with \`cloud: local\`.`,
  );
}

/** Checks a value that came from `penstock:stack`; `path` is named in errors and anchors relative sources. */
export function checkStack(value: unknown, path: string): StackConfig {
  const parsed = stackSchema.safeParse(value);
  if (!parsed.success)
    throw invalid(
      path,
      parsed.error.issues.flatMap((issue) => explain(issue, value)),
    );
  const problems = crossChecks(parsed.data);
  if (problems.length > 0) throw invalid(path, problems);
  return withAbsoluteSources(parsed.data, dirname(path));
}

async function readStackFile(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (cause) {
    throw new PenstockError("invalid_config", `Cannot read the stack file ${path}; check its name.`, { cause });
  }
}

function explain(issue: z.core.$ZodIssue, value: unknown): string[] {
  const path = fieldPath(issue.path);
  if (issue.code === "unrecognized_keys") {
    const known = knownKeys(issue.path, value);
    return issue.keys.map(
      (key) => `${path === "" ? "" : `${path}.`}${key}: unknown key; there are ${known.join(", ")}`,
    );
  }
  const values = knownValues(issue.path, value);
  const isChoice = issue.code === "invalid_union" || issue.code === "invalid_value";
  if (isChoice && values.length > 0) return [`${path || configKey}: must be one of ${values.join(", ")}`];
  const isMissing = issue.code === "invalid_type" && issue.message.endsWith("received undefined");
  return [`${path || configKey}: ${isMissing ? `is missing; write a ${issue.expected}` : issue.message}`];
}

function invalid(path: string, problems: readonly string[]): PenstockError {
  const lines = problems.map((problem) => `  ${problem}`).join("\n");
  const count = problems.length === 1 ? "1 problem" : `${problems.length} problems`;
  return new PenstockError("invalid_config", `${path} has ${count}:\n${lines}`);
}

function withAbsoluteSources(stack: StackConfig, directory: string): StackConfig {
  const absolute = (source: string): string =>
    source.startsWith("file://") && !source.startsWith("file:///")
      ? pathToFileURL(resolve(directory, source.slice("file://".length))).href
      : source;
  const placed = <Model extends StackModel>(model: Model): Model => ({
    ...model,
    source: absolute(model.source),
    adapters: model.adapters.map((adapter) => ({ ...adapter, source: absolute(adapter.source) })),
  });
  // The same line twice: a model's type depends on the cloud.
  return stack.cloud === "local"
    ? { ...stack, models: stack.models.map(placed) }
    : { ...stack, models: stack.models.map(placed) };
}
