import { plannedResources } from "../../infra/commands/policy/resources.ts";
import type { CloudPlan } from "../../infra/plan/plan.ts";
import { findingsOf, type Subject } from "../../policies/judge.ts";
import type { PlannedResource, Rule } from "../../policies/rule.ts";
import { rules } from "../../policies/rules.ts";
import { planOf, stackOf } from "../support/plans.ts";

/** Stacks that come with Penstock and are Pulumi's. */
export const cloudStackNames = ["aws-dev", "aws-prod", "azure-dev", "azure-prod"] as const;
export type CloudStackName = (typeof cloudStackNames)[number];

const known = new Map<CloudStackName, Promise<Subject>>();
let last: Promise<unknown> = Promise.resolve();

/** A stack that comes with Penstock: its plan, and what the program makes of it. Pulumi's mocks are global: one by one. */
export async function subjectOf(name: CloudStackName): Promise<Subject> {
  const found = known.get(name) ?? last.then(async () => await made(name));
  known.set(name, found);
  last = found;
  return await found;
}

async function made(name: CloudStackName): Promise<Subject> {
  const stack = await stackOf(name);
  if (stack.cloud === "local") throw new Error(`${name} is no stack of a cloud`);
  return { plan: await planOf(name), resources: await plannedResources(stack, name) };
}

/** The day on which tests judge. */
export const today = "2026-11-21";

/** What a rule says of a subject, one line for each finding. */
export function saidOf(id: string, subject: Subject, day = today): string[] {
  const context = { today: day, environment: subject.plan.environment };
  return findingsOf(ruleOf(id), subject, context).map(({ on, problem }) => `${on}: ${problem}`);
}

export function ruleOf(id: string): Rule {
  const rule = rules.find((each) => each.id === id);
  if (rule === undefined) throw new Error(`there is no rule ${id}`);
  return rule;
}

/** The subject with another plan. */
export function planned(subject: Subject, change: (plan: CloudPlan) => Partial<CloudPlan>): Subject {
  return { ...subject, plan: { ...subject.plan, ...change(subject.plan) } };
}

/** The subject with a value at a path of every resource of a type; undefined takes it away. Throws where there is none. */
export function having(subject: Subject, type: string, [path, value]: readonly [string, unknown]): Subject {
  return changed(subject, type, (resource) => ({
    ...resource,
    properties: { ...resource.properties, ...Object(withValue(resource.properties, path.split("/"), value)) },
  }));
}

/** The subject with every resource of a type changed. */
export function changed(
  subject: Subject,
  type: string,
  change: (resource: PlannedResource) => PlannedResource,
): Subject {
  if (!subject.resources.some((resource) => resource.type === type)) throw new Error(`no resource is a ${type}`);
  return { ...subject, resources: subject.resources.map((each) => (each.type === type ? change(each) : each)) };
}

/** The subject without the resources of a type. */
export function without(subject: Subject, type: string): Subject {
  if (!subject.resources.some((resource) => resource.type === type)) throw new Error(`no resource is a ${type}`);
  return { ...subject, resources: subject.resources.filter((each) => each.type !== type) };
}

/** The subject with one more resource. */
export function adding(subject: Subject, type: string, properties: PlannedResource["properties"]): Subject {
  const urn = `urn:pulumi:test::penstock::${type}::added`;
  const added = { urn, type, name: "added", properties, protect: false, dependencies: [] };
  return { ...subject, resources: [...subject.resources, added] };
}

function withValue(whole: unknown, [key, ...rest]: readonly string[], value: unknown): unknown {
  if (key === undefined) return value;
  if (Array.isArray(whole)) {
    return whole.map((each, index) => (String(index) === key ? withValue(each, rest, value) : each));
  }
  const record: Readonly<Record<string, unknown>> = { ...Object(whole) };
  return { ...record, [key]: withValue(record[key], rest, value) };
}
