import type { Violation } from "../../../policies/judge.ts";
import type { Environment } from "../../../policies/rule.ts";

/** What was judged, and what came of it. */
export interface Verdict {
  readonly stack: string;
  readonly environment: Environment;
  /** Rules that are not off in the environment, and resources that they looked at. */
  readonly rules: number;
  readonly resources: number;
  readonly violations: readonly Violation[];
}

/** Whether nothing keeps the stack from being deployed. */
export function passes({ violations }: Pick<Verdict, "violations">): boolean {
  return violations.every(({ level }) => level === "advisory");
}

/** A verdict for people: what broke each rule, why there is the rule, and what to change. */
export function verdictText(verdict: Verdict): string {
  const { stack, environment, rules, resources, violations } = verdict;
  const mandatory = violations.filter(({ level }) => level === "mandatory").length;
  const said = violations.length - mandatory;
  const counted = `${mandatory} ${mandatory === 1 ? "violation" : "violations"}, ${said} to know`;
  return [
    `${stack} as ${environment}: ${rules} rules over its plan and ${resources} resources: ${counted}`,
    ...[...Map.groupBy(violations, ({ rule }) => rule)].flatMap(([rule, broken]) => ruleText(rule, broken)),
    ...(passes(verdict) ? [] : ["", "Not to be deployed: what is mandatory comes first above."]),
    "",
  ].join("\n");
}

function ruleText(rule: string, broken: readonly Violation[]): string[] {
  const [first] = broken;
  if (first === undefined) return [];
  const { level, severity, reason, remedy } = first;
  return [
    "",
    `${rule} (${level}, ${severity})`,
    ...broken.map(({ on, problem }) => `  ${on}: ${problem}`),
    `  why: ${reason}`,
    `  do: ${remedy}`,
  ];
}
