import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { isProxied } from "../../../runtime/agent/environment.ts";
import { createSource, type SourceOptions } from "../../../runtime/agent/sources/index.ts";
import { PenstockError } from "../../../runtime/contracts/errors.ts";
import { envNames } from "../../../runtime/contracts/names.ts";
import { formatBytes } from "../../../runtime/lib/bytes.ts";
import { parsed, runCommand } from "../cli.ts";
import { plannedStack } from "../stack-files.ts";
import { listCache, pushItem, removeItem, verifyItem, type Cache, type Listed, type Outcome } from "./command.ts";
import { TransferDisplay } from "./display.ts";
import { chosen, itemsOf, type Item } from "./items.ts";
import { readShape, shapeText } from "./shape.ts";
import { openModelStore } from "./store.ts";

const help = `Fills and looks after the model cache of a stack: Azure Blob Storage or S3.

Usage: npm run model -- COMMAND [MODEL] --stack STACK [options]

  push [MODEL]     copies a model, an adapter (model:adapter) or all of them into the cache: several files and parts at
                   once, with checksums; files that are there already are kept
      --from PLACE   in place of the source in the stack: hf://…, https://…, s3://…, az://…, or a folder
  list             what is in the cache, and what of the stack is not
  verify [MODEL]   reads files again and compares them with their checksums
  rm MODEL         removes a model or adapter from the cache
  shape PLACE      prints a model's shape for the stack file: a folder or hf://… (needs no stack)

  --stack STACK    such as azure-prod for stacks/Pulumi.azure-prod.yaml
  --json           print JSON
  --help

Azure: \`az login\` as somebody with the role Storage Blob Data Contributor, or AZURE_STORAGE_CONNECTION_STRING.
AWS: AWS_PROFILE or another of the SDK's ways. Gated models of the Hugging Face hub: HF_TOKEN.
`;

const { env } = process;
const options = {
  stack: { type: "string" },
  from: { type: "string" },
  json: { type: "boolean", default: false },
  help: { type: "boolean", short: "h", default: false },
} as const;

async function main(): Promise<void> {
  const { values, positionals } = parsed(() => parseArgs({ allowPositionals: true, options }));
  const [command, name = null, ...others] = positionals;
  if (values.help || command === undefined) {
    process.stdout.write(help);
    return;
  }
  if (others.length > 0) throw new PenstockError("invalid_config", `${others.join(" ")}: too much; see --help`);
  const say = values.json ? sayJson : sayText;
  if (command === "shape") {
    if (name === null) throw new PenstockError("invalid_config", "Name a folder or hf://…; see --help.");
    const shape = await readShape(createSource(placeOf(name), sources()), stopSignal());
    process.stdout.write(values.json ? `${JSON.stringify(shape, null, 2)}\n` : shapeText(shape));
    return;
  }
  const { cache, items } = await openCache(values.stack);
  switch (command) {
    case "push":
      await eachOf(chosen(items, name), say, (item) => pushed(cache, item, values.from));
      return;
    case "verify":
      await eachOf(chosen(items, name), say, (item) => verifyItem(cache, item));
      return;
    case "rm":
      if (name === null) throw new PenstockError("invalid_config", "Name what to remove; see --help.");
      await eachOf(chosen(items, name), say, (item) => removeItem(cache, item));
      return;
    case "list":
      sayList(await listCache(cache, items), values.json);
      return;
    default:
      throw new PenstockError("invalid_config", `${command} is no command; there are push, list, verify, rm, shape.`);
  }
}

async function openCache(stackName: string | undefined): Promise<{ cache: Cache; items: readonly Item[] }> {
  if (stackName === undefined) throw new PenstockError("invalid_config", "Name a stack with --stack; see --help.");
  const { stack, plan } = await plannedStack(stackName);
  if (stack.cloud === "local" || plan.cloud === "local") {
    throw new PenstockError("invalid_config", `The stack ${stackName} is one machine: it has no cache in a cloud.`);
  }
  const azureConnection = env[envNames.azureConnection];
  const { uri } = plan.cache;
  const store = openModelStore(uri, { azureConnection });
  return { cache: { uri, store, sources: sources(), signal: stopSignal() }, items: itemsOf(stack, plan) };
}

/** How sources are read: from the environment, as agents do. */
function sources(): SourceOptions {
  return {
    hubToken: env[envNames.hubToken],
    hubEndpoint: env[envNames.hubEndpoint],
    proxied: isProxied(env),
    azure: { connectionString: env[envNames.azureConnection], sasToken: env[envNames.azureSas] },
  };
}

/** Aborted by Ctrl-C and SIGTERM: what is under way leaves nothing half. */
function stopSignal(): AbortSignal {
  const stop = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    process.once(signal, () => stop.abort(new PenstockError("client_closed", "Stopped; what was whole stays.")));
  }
  return stop.signal;
}

/** A folder of this machine, or the URI as it is. */
function placeOf(text: string): string {
  return /^[a-z0-9]+:\/\//.test(text) ? text : pathToFileURL(resolve(text)).href;
}

async function pushed(cache: Cache, item: Item, from: string | undefined): Promise<Outcome> {
  const display = new TransferDisplay(process.stderr, item.name);
  const outcome = await pushItem(cache, { item, source: from === undefined ? null : placeOf(from) }, (progress) =>
    display.show(progress),
  );
  display.clear();
  return outcome;
}

/** One after the other; the exit code tells of any that is not well. */
async function eachOf(
  items: readonly Item[],
  say: (outcome: Outcome) => void,
  act: (item: Item) => Promise<Outcome>,
): Promise<void> {
  for (const item of items) {
    const outcome = await act(item);
    say(outcome);
    if (!outcome.ok) process.exitCode = 1;
  }
}

function sayText({ name, ok, text }: Outcome): void {
  process.stdout.write(`${name}: ${ok ? "" : "NOT DONE: "}${text}\n`);
}

function sayJson(outcome: Outcome): void {
  process.stdout.write(`${JSON.stringify(outcome)}\n`);
}

function sayList(listed: readonly Listed[], isJson: boolean): void {
  if (isJson) {
    process.stdout.write(`${JSON.stringify(listed, null, 2)}\n`);
    return;
  }
  for (const { name, folder, files, sizeBytes, isWhole } of listed) {
    const state = files === 0 ? "not there" : isWhole ? "whole" : "not whole: push it again";
    const what = name ?? `(no model of this stack) ${folder}`;
    process.stdout.write(`${what.padEnd(40)} ${formatBytes(sizeBytes).padStart(9)}  ${state}\n`);
  }
}

await runCommand("model", main);
