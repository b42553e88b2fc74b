import type { Environment } from "./rule.ts";

/*
 * What an organisation allows. These lists are the ones to edit: rules read them and have no others.
 */

/** Regions. Their prices are in the catalogue, so that what a stack costs is known before it is made. */
export const allowedRegions: readonly string[] = [
  "eastus",
  "eastus2",
  "northcentralus",
  "southcentralus",
  "westus",
  "westus2",
  "westus3",
  "canadacentral",
  "northeurope",
  "swedencentral",
  "uksouth",
  "westeurope",
  "us-east-1",
  "us-east-2",
  "us-west-2",
  "eu-central-1",
  "eu-north-1",
  "eu-west-1",
  "eu-west-2",
];

/** GPUs of one node at most. Development tries things out on one. */
export const gpusPerNode: Readonly<Record<Environment, number>> = { dev: 1, prod: 8 };

/** Share of the month's budget that a stack without a single request may cost. */
export const idleShare: Readonly<Record<Environment, number>> = { dev: 0.5, prod: 0.8 };

/** Tags of everything that costs money: who pays, who knows, what it is. */
export const requiredTags = ["application", "cost-center", "owner", "environment", "stack", "managed-by"] as const;

/** A development stack is gone, or looked at again, within so many days. */
export const longestTtlDays = 366;

/** Registries that images and charts may come from, by the beginning of their names. */
export const allowedRegistries: readonly string[] = [
  "ghcr.io/",
  "docker.io/",
  "mcr.microsoft.com/",
  "public.ecr.aws/",
  "registry.k8s.io/",
  "nvcr.io/",
  "quay.io/",
];

/** Pods that may enter the node, by namespace and name: what makes file systems on fresh disks. */
export const privilegedPods: ReadonlySet<string> = new Set(["penstock-system/penstock-node-setup"]);
