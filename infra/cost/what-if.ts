import { PenstockError } from "../../runtime/contracts/errors.ts";
import { capacityTypes, type CapacityType } from "../stack/cloud.ts";
import type { CloudStack } from "../stack/schema.ts";
import type { Assumptions } from "./assumptions.ts";

/** Changes to try on a stack and on a report's assumptions, without writing them anywhere. */
export interface WhatIf {
  readonly stack: (stack: CloudStack) => CloudStack;
  readonly assumptions: (assumptions: Assumptions) => Assumptions;
  /** For people: what was asked. */
  readonly text: string;
}

type Change = Partial<Pick<WhatIf, "stack" | "assumptions">>;

const names = "replicas, nodes, capacity, expected, utilisation, prompt, logs, share";

/**
 * Reads `replicas=large:2-6,capacity=spot,utilisation=0.6`. A value may name the fleet, pool or model that it is for;
 * without a name it is for all. Throws `invalid_config` for what it does not know, with what there is.
 */
export function parseWhatIf(text: string): WhatIf {
  const changes = text.split(",").map((part) => changeOf(part.trim()));
  return {
    text,
    stack: (stack) => changes.reduce((changed, { stack: change }) => change?.(changed) ?? changed, stack),
    assumptions: (given) => changes.reduce((changed, { assumptions: change }) => change?.(changed) ?? changed, given),
  };
}

function changeOf(part: string): Change {
  const [, key, name, value] = /^([a-z]+)=(?:(.+):)?([^:]+)$/.exec(part) ?? [];
  if (key === undefined || value === undefined) throw wrong(`\`${part}\` is no change; write key=value`);
  const target = name ?? null;
  switch (key) {
    case "replicas":
      return { stack: (stack) => withReplicas(stack, target, boundsOf(part, value)) };
    case "nodes":
      return { stack: (stack) => withNodes(stack, target, wholeNumber(part, value)) };
    case "capacity":
      return { stack: (stack) => withCapacity(stack, target, capacitiesOf(part, value)) };
    case "share":
      return { assumptions: (given) => withShare(given, target, shareOf(part, value)) };
    case "expected":
      return { assumptions: (given) => ({ ...given, expected: shareOf(part, value) }) };
    case "utilisation":
      return { assumptions: (given) => ({ ...given, utilisation: positiveShare(part, value) }) };
    case "prompt":
      return { assumptions: (given) => ({ ...given, promptTokenWeight: shareOf(part, value) }) };
    case "logs":
      return { assumptions: (given) => ({ ...given, logsGiBPerMonth: wholeNumber(part, value) }) };
    default:
      throw wrong(`\`${key}\` is none of ${names}`);
  }
}

function withReplicas(
  stack: CloudStack,
  target: string | null,
  replicas: { readonly min: number; readonly max: number },
): CloudStack {
  checkName(stack.fleets, target, "fleet");
  const fleets = stack.fleets.map((fleet) => (isMeant(fleet, target) ? { ...fleet, replicas } : fleet));
  return { ...stack, fleets };
}

function withNodes(stack: CloudStack, target: string | null, maxNodes: number): CloudStack {
  checkName(stack.pools, target, "pool");
  const pools = stack.pools.map((pool) => (isMeant(pool, target) ? { ...pool, maxNodes } : pool));
  return { ...stack, pools };
}

/** A pool of spot nodes alone is of use to fleets that tolerate them, so they do. */
function withCapacity(stack: CloudStack, target: string | null, capacity: CapacityType[]): CloudStack {
  checkName(stack.pools, target, "pool");
  const pools = stack.pools.map((pool) => (isMeant(pool, target) ? { ...pool, capacity } : pool));
  const spot = capacity.includes("spot");
  const fleets = stack.fleets.map((fleet) => {
    const isHere = target === null || fleet.pool === target;
    return isHere ? { ...fleet, spot: spot && (fleet.spot || !capacity.includes("on-demand")) } : fleet;
  });
  return { ...stack, pools, fleets };
}

function withShare(given: Assumptions, model: string | null, share: number): Assumptions {
  if (model === null) throw wrong("share needs a model: share=llama-3.1-8b:0.7");
  return { ...given, modelShares: { ...given.modelShares, [model]: share } };
}

function isMeant({ name }: { readonly name: string }, target: string | null): boolean {
  return target === null || target === name;
}

function checkName(all: readonly { readonly name: string }[], target: string | null, kind: string): void {
  if (target === null || all.some(({ name }) => name === target)) return;
  throw wrong(`there is no ${kind} \`${target}\`; there are ${all.map(({ name }) => name).join(", ")}`);
}

function boundsOf(part: string, value: string): { min: number; max: number } {
  const [, min, max] = /^(\d{1,6})(?:-(\d{1,6}))?$/.exec(value) ?? [];
  if (min === undefined) throw wrong(`\`${part}\`: write a number such as 3, or bounds such as 2-6`);
  const bounds = { min: Number(min), max: Number(max ?? min) };
  if (bounds.max < Math.max(1, bounds.min)) throw wrong(`\`${part}\`: the maximum must be at least 1 and the minimum`);
  return bounds;
}

function capacitiesOf(part: string, value: string): CapacityType[] {
  return value.split("+").map((word) => {
    const found = capacityTypes.find((type) => type === word);
    if (found === undefined) {
      throw wrong(`\`${part}\`: ${word} is none of ${capacityTypes.join(", ")}; join several with +`);
    }
    return found;
  });
}

function wholeNumber(part: string, value: string): number {
  if (!/^\d{1,6}$/.test(value)) throw wrong(`\`${part}\`: write a whole number`);
  return Number(value);
}

function shareOf(part: string, value: string): number {
  const share = /^\d(\.\d{1,6})?$/.test(value) ? Number(value) : Number.NaN;
  if (!(share >= 0 && share <= 1)) throw wrong(`\`${part}\`: write a number from 0 to 1, such as 0.4`);
  return share;
}

function positiveShare(part: string, value: string): number {
  const share = shareOf(part, value);
  if (share === 0) throw wrong(`\`${part}\`: must be more than 0`);
  return share;
}

function wrong(problem: string): PenstockError {
  return new PenstockError("invalid_config", `--what-if: ${problem}. See --help.`);
}
