import type { CloudPlan } from "../infra/plan/plan.ts";
import { rules } from "./rules.ts";
import type { Context, Environment, Finding, Level, PlannedResource, ResourceRule, Rule } from "./rule.ts";

/** Something that a stack must change, or should. */
export interface Violation extends Finding {
  readonly rule: string;
  readonly level: Exclude<Level, "off">;
  readonly severity: Rule["severity"];
  readonly reason: string;
  readonly remedy: string;
}

/** A stack: what was planned, and what the program makes of it. */
export interface Subject {
  readonly plan: CloudPlan;
  readonly resources: readonly PlannedResource[];
}

/** The set for a stack that nobody knows is the strictest. */
export function environmentOf(plan: CloudPlan | null): Environment {
  return plan?.environment ?? "prod";
}

/**
 * Everything that the rules of an environment have against a stack, mandatory ones first. What only an update knows is a
 * violation for them, since nobody could vouch for it.
 */
export function judge(subject: Subject, context: Context): Violation[] {
  return rules
    .flatMap((rule) => {
      const level = rule.levels[context.environment];
      if (level === "off") return [];
      const { id, severity, reason, remedy } = rule;
      return findingsOf(rule, subject, context).map((finding): Violation => ({
        rule: id,
        level,
        severity,
        reason,
        remedy,
        ...finding,
      }));
    })
    .toSorted((one, other) => Number(one.level === "advisory") - Number(other.level === "advisory"));
}

/** What one rule has against a stack. */
export function findingsOf(rule: Rule, { plan, resources }: Subject, context: Context): readonly Finding[] {
  if (rule.judges === "plan") return rule.judge(plan, context);
  if (rule.judges === "stack") return rule.judge(resources, plan);
  return resources.filter((resource) => appliesTo(rule, resource)).flatMap((resource) => findingsOn(rule, resource));
}

/** Whether a rule looks at resources of this type. */
export function appliesTo({ types }: ResourceRule, { type }: Pick<PlannedResource, "type">): boolean {
  return types === null || types.includes(type);
}

function findingsOn(rule: ResourceRule, resource: PlannedResource): Finding[] {
  const { name, urn } = resource;
  return rule.judge(resource).map((problem) => ({
    on: name,
    urn,
    problem: typeof problem === "string" ? problem : `${problem.notKnownYet} is not known before the update`,
  }));
}
