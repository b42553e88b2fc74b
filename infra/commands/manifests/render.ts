import * as pulumi from "@pulumi/pulumi";
import { deployKubernetes } from "../../kubernetes/index.ts";
import type { CloudPlan } from "../../plan/plan.ts";
import { plainInputs, recordOf } from "../wire.ts";
import { placeholderOutputs, placeholderSecrets, secretPlaceholder } from "./placeholders.ts";

/** A Kubernetes object, as it would be applied. */
export interface Manifest {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly namespace?: string; readonly labels?: Record<string, string> };
  readonly [field: string]: unknown;
}

/** A chart, as it would be installed. */
export interface ChartRelease {
  readonly name: string;
  readonly namespace: string;
  readonly chart: string;
  readonly version: string;
  /** Null for charts whose name says where they are (`oci://`). */
  readonly repository: string | null;
  readonly values: Readonly<Record<string, unknown>>;
}

/** Everything of a stack that is in its cluster, sorted. */
export interface Rendering {
  readonly manifests: readonly Manifest[];
  readonly releases: readonly ChartRelease[];
}

const releaseType = "kubernetes:helm.sh/v3:Release";
const passwordType = "random:index/randomPassword:RandomPassword";

/**
 * Runs the Kubernetes part of the program against Pulumi's own mocks: no engine, no cloud, no cluster. What only a
 * deployment knows is named in angle brackets, secrets too. Sets Pulumi's runtime of this process, so it is for commands
 * and tests and not for the program itself.
 */
export async function renderKubernetes(plan: CloudPlan): Promise<Rendering> {
  const manifests: Manifest[] = [];
  const releases: ChartRelease[] = [];
  await pulumi.runtime.setMocks(
    {
      newResource({ type, name, custom = false, inputs }) {
        const plain = plainInputs(inputs);
        if (type === releaseType) releases.push(releaseOf(plain));
        else if (isManifest(plain)) manifests.push(plain);
        const made = type === passwordType ? { result: secretPlaceholder(name) } : {};
        return { id: custom ? name : undefined, state: { ...inputs, ...made } };
      },
      call: ({ inputs }) => inputs,
    },
    "penstock",
    plan.stack,
    false,
  );
  deployKubernetes(plan, placeholderOutputs(plan), placeholderSecrets(plan));
  await pulumi.runtime.disconnect();
  return {
    manifests: manifests.toSorted(byPlace),
    releases: releases.toSorted((one, other) => compare(one.name, other.name)),
  };
}

/** Folder of an object: its namespace, or `cluster`. */
export function folderOf({ metadata }: Manifest): string {
  return metadata.namespace ?? "cluster";
}

/** Name of an object's file, without its ending: unique in its folder. */
export function fileNameOf({ kind, metadata }: Manifest): string {
  return `${kind.toLowerCase()}-${metadata.name}`;
}

function byPlace(one: Manifest, other: Manifest): number {
  return compare(folderOf(one), folderOf(other)) || compare(fileNameOf(one), fileNameOf(other));
}

function compare(one: string, other: string): number {
  return one < other ? -1 : Number(one > other);
}

function isManifest(inputs: object): inputs is Manifest {
  return "apiVersion" in inputs && "kind" in inputs && "metadata" in inputs;
}

function releaseOf(inputs: Readonly<Record<string, unknown>>): ChartRelease {
  const { repo } = recordOf(inputs["repositoryOpts"]);
  return {
    name: String(inputs["name"]),
    namespace: String(inputs["namespace"]),
    chart: String(inputs["chart"]),
    version: String(inputs["version"]),
    repository: typeof repo === "string" ? repo : null,
    values: recordOf(inputs["values"]),
  };
}
