import { z } from "zod";
import { awsStack, azureStack } from "./cloud.ts";
import { localStack } from "./local.ts";

/*
 * What an operator writes under `penstock:stack` in stacks/Pulumi.<stack>.yaml. Strict: an unknown key is an error.
 * Descriptions end up in stacks/stack.schema.json, where editors show them.
 */

/** The schema of `penstock:stack`, one member per cloud. */
export const stackSchema = z.discriminatedUnion("cloud", [localStack, azureStack, awsStack]);

/** A stack as the rest of Penstock sees it: checked, with every default filled in. */
export type StackConfig = z.infer<typeof stackSchema>;
/** A stack of one machine. */
export type LocalStack = Extract<StackConfig, { cloud: "local" }>;
/** A stack on a cloud. */
export type CloudStack = Exclude<StackConfig, { cloud: "local" }>;
/** Where a stack runs. */
export type Cloud = CloudStack["cloud"];
export type StackModel = StackConfig["models"][number];
export type CloudModel = CloudStack["models"][number];
export type StackPool = CloudStack["pools"][number];
export type CloudFleet = CloudStack["fleets"][number];
