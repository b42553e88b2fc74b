import type { Policies, ReportViolation, ResourceValidationArgs, ResourceValidationPolicy } from "@pulumi/policy";
import type { CloudPlan } from "../infra/plan/plan.ts";
import { appliesTo, environmentOf } from "./judge.ts";
import type { Context, Finding, PlannedResource, PlanRule, ResourceRule, Rule, StackRule } from "./rule.ts";
import { at, plainProperties } from "./values.ts";

/** What a pack knows of the stack that it judges. */
export interface PackSubject {
  /** Null: it could not be planned, and `why` says it. Then every rule that needs it is broken. */
  readonly plan: CloudPlan | null;
  readonly why: string;
  /** A day such as 2026-11-21. */
  readonly today: string;
}

/** The rules as Pulumi takes them, with the levels of the stack's environment. */
export function policiesFor(rules: readonly Rule[], subject: PackSubject): Policies {
  const environment = environmentOf(subject.plan);
  return rules.map((rule) => {
    const level = rule.levels[environment];
    const about = {
      name: rule.id,
      displayName: rule.title,
      description: `${rule.title}. ${rule.remedy}`,
      enforcementLevel: level === "off" ? ("disabled" as const) : level,
      severity: rule.severity,
      remediationSteps: rule.remedy,
    };
    if (rule.judges === "resource") return { ...about, validateResource: validation(rule) };
    if (rule.judges === "plan") return { ...about, validateResource: planValidation(rule, subject) };
    return { ...about, validateStack: stackValidation(rule, subject) };
  });
}

type ValidateResource = Extract<ResourceValidationPolicy["validateResource"], (...args: never[]) => unknown>;

function validation(rule: ResourceRule): ValidateResource {
  return (args, report) => {
    if (!appliesTo(rule, args)) return;
    const problems = rule.judge(resourceOf(args));
    for (const problem of problems) if (typeof problem === "string") report(problem);
    for (const problem of problems) {
      if (typeof problem === "string") continue;
      // The SDK throws where an unknown value is read, and says in its own words that the update will judge it.
      at(args.props, problem.notKnownYet);
      report(`${problem.notKnownYet} is not known`);
    }
  };
}

/** The plan is judged with the first resource, before anything is made: rules for stacks come when everything is. */
function planValidation(rule: PlanRule, { plan, why, today }: PackSubject): ValidateResource {
  let first: string | undefined;
  return ({ urn }, report) => {
    first ??= urn;
    if (urn !== first) return;
    if (plan === null) report(why);
    else reportAll(rule.judge(plan, contextOf(plan, today)), report);
  };
}

function contextOf(plan: CloudPlan, today: string): Context {
  return { today, environment: environmentOf(plan) };
}

function stackValidation(rule: StackRule, { plan, why }: PackSubject) {
  return (
    {
      resources,
    }: { readonly resources: readonly (StackResource & { readonly dependencies: readonly StackResource[] })[] },
    report: ReportViolation,
  ): void => {
    if (plan === null) report(why);
    else {
      const planned = resources.map((each) => ({
        ...resourceOf(each),
        dependencies: each.dependencies.map(({ urn }) => urn),
      }));
      reportAll(rule.judge(planned, plan), report);
    }
  };
}

type StackResource = Pick<ResourceValidationArgs, "urn" | "type" | "name" | "props" | "opts">;

function resourceOf({ urn, type, name, props, opts }: StackResource): PlannedResource {
  return { urn, type, name, properties: plainProperties(props), protect: opts.protect, dependencies: [] };
}

function reportAll(findings: readonly Finding[], report: ReportViolation): void {
  for (const { on, problem, urn } of findings) report(`${on}: ${problem}`, urn);
}
