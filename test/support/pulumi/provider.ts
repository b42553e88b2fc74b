import { chmod, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import * as provider from "@pulumi/pulumi/provider/index.js";
import packageJson from "../../../package.json" with { type: "json" };
import { awsMocks } from "./aws.ts";
import { azureMocks } from "./azure.ts";
import type { Answer } from "./mocks.ts";

type Properties = Readonly<Record<string, unknown>>;
type Change = [id: string, urn: string, olds: Properties, news: Properties];

/** Providers that our programs use. */
export const providerNames = ["aws", "azure-native", "kubernetes", "random", "tls"] as const;
export type ProviderName = (typeof providerNames)[number];

/** Property of what was made that holds the inputs it was made from. */
const madeFrom = "standInInputs";

/** Inputs whose change makes a cloud replace what it is an input of, among those that our programs set. */
const fixed = /^(?!display)\w*Name$|^(name|location|region|vmSize|osDiskSizeGB|instanceTypes|subnetIds|zones)$/;

/**
 * A provider that takes every resource, and makes nothing: what it made has its inputs and what a cloud would add. It
 * tells a change, and a change that a cloud would answer with a replacement.
 */
export function standInProvider(name: ProviderName): provider.Provider {
  const version = packageJson.dependencies[`@pulumi/${name}`];
  return {
    version,
    schema: JSON.stringify({ name, version, resources: {}, functions: {} }),
    check: async (_urn: string, _olds: Properties, news: Properties) => ({ inputs: news, failures: [] }),
    diff: async (...[, , olds, news]: Change) => {
      const changed = changedKeys(propertiesOf(olds[madeFrom]), news);
      return { changes: changed.length > 0, replaces: changed.filter((key) => fixed.test(key)) };
    },
    create: async (urn: string, inputs: Properties) => {
      const { id, ...outputs } = answerOf(urn, inputs);
      return { id: id ?? `${partsOf(urn).name}-id`, outs: { ...inputs, ...outputs, [madeFrom]: inputs } };
    },
    update: async (...[, urn, , news]: Change) => {
      const { id: _same, ...outputs } = answerOf(urn, news);
      return { outs: { ...news, ...outputs, [madeFrom]: news } };
    },
    delete: async () => undefined,
    invoke: async (token: string) => ({ outputs: name === "aws" ? awsMocks.call(token) : azureMocks.call(token) }),
  };
}

/** Serves one as Pulumi's engine starts it: `argv` holds the engine's address, and the port goes to standard output. */
export async function serveProvider(name: ProviderName, argv: string[]): Promise<void> {
  await provider.main(standInProvider(name), argv);
}

/** Writes an executable for each provider, as the engine looks for them in PATH. */
export async function writeProviders(folder: string): Promise<void> {
  for (const name of providerNames) {
    const path = join(folder, `pulumi-resource-${name}`);
    const serve = `({ serveProvider }) => serveProvider(${JSON.stringify(name)}, process.argv.slice(2))`;
    const module = JSON.stringify(fileURLToPath(import.meta.url));
    await writeFile(path, `#!${process.execPath}\nimport(${module}).then(${serve});\n`);
    await chmod(path, 0o755);
  }
}

const made: Readonly<Record<string, Answer>> = {
  "random:index/randomPassword:RandomPassword": { result: "aB3".repeat(14) },
  "tls:index/privateKey:PrivateKey": { privateKeyPem: "-----BEGIN PRIVATE KEY----- of a stand-in" },
  "tls:index/selfSignedCert:SelfSignedCert": { certPem: "-----BEGIN CERTIFICATE----- of a stand-in" },
};

function answerOf(urn: string, inputs: Properties): Answer {
  const { type, name } = partsOf(urn);
  const cloud = { "azure-native": azureMocks, aws: awsMocks }[type.split(":")[0] ?? ""];
  return made[type] ?? cloud?.answer({ type, name, inputs }) ?? {};
}

/** `urn:pulumi:stack::project::parent$type::name`. */
function partsOf(urn: string): { readonly type: string; readonly name: string } {
  const [, , types = "", name = ""] = urn.split("::");
  return { type: types.split("$").at(-1) ?? "", name };
}

function changedKeys(olds: Properties, news: Properties): string[] {
  const keys = [...new Set([...Object.keys(olds), ...Object.keys(news)])];
  return keys.filter((key) => plain(olds[key]) !== plain(news[key]));
}

/** JSON with keys in order. */
function plain(value: unknown): string | undefined {
  return JSON.stringify(value, (_key, each: unknown) =>
    typeof each === "object" && each !== null && !Array.isArray(each)
      ? Object.fromEntries(Object.entries(each).toSorted(([a], [b]) => (a < b ? -1 : 1)))
      : each,
  );
}

function propertiesOf(value: unknown): Properties {
  return typeof value === "object" && value !== null ? { ...value } : {};
}
