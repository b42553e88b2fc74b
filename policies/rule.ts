import type { CloudPlan } from "../infra/plan/plan.ts";

/** Decides how strict the policies are: the stack's own `environment`. */
export type Environment = CloudPlan["environment"];

/** `mandatory`: nothing is deployed. `advisory`: said, and deployed all the same. */
export type Level = "mandatory" | "advisory" | "off";

/** A rule's level in each environment. */
export type Levels = Readonly<Record<Environment, Level>>;

/** The levels that there are: everywhere, in one environment alone, said in the other one. */
export const levels = {
  always: { dev: "mandatory", prod: "mandatory" },
  prodOnly: { dev: "off", prod: "mandatory" },
  devOnly: { dev: "mandatory", prod: "off" },
  strictInProd: { dev: "advisory", prod: "mandatory" },
  said: { dev: "advisory", prod: "advisory" },
  saidInProd: { dev: "off", prod: "advisory" },
} as const satisfies Record<string, Levels>;

/** A resource that the program would make. */
export interface PlannedResource {
  readonly urn: string;
  /** Such as `aws:s3/bucket:Bucket`. */
  readonly type: string;
  readonly name: string;
  /** `values.ts` reads them. */
  readonly properties: Readonly<Record<string, unknown>>;
  /** Pulumi refuses to remove it. */
  readonly protect: boolean;
  /** URNs of what it is made from. */
  readonly dependencies: readonly string[];
}

/** Something that a rule has against a stack. */
export interface Finding {
  /** Name of the resource, or of the part of the plan. */
  readonly on: string;
  /** What is wrong, with the value that is and the one that must be. */
  readonly problem: string;
  /** The resource, where it is one. */
  readonly urn?: string;
}

/** What everybody should know of a rule. */
interface About {
  /** Stable, such as `hourly-budget`. */
  readonly id: string;
  readonly title: string;
  readonly levels: Levels;
  readonly severity: "low" | "medium" | "high" | "critical";
  /** Why there is the rule. */
  readonly reason: string;
  /** What to change. */
  readonly remedy: string;
}

/** What a plan is judged for. */
export interface Context {
  /** A day such as 2026-11-21. */
  readonly today: string;
  /** Usually the plan's own. */
  readonly environment: Environment;
}

/** A rule over the plan: sizes, prices and counts, all of them known before anything is made. */
export interface PlanRule extends About {
  readonly judges: "plan";
  readonly judge: (plan: CloudPlan, context: Context) => readonly Finding[];
}

/** A rule over each resource by itself. Answers problems; `notKnownYet` for what must wait for the update. */
export interface ResourceRule extends About {
  readonly judges: "resource";
  /** Types of resources that it looks at; null for all. */
  readonly types: readonly string[] | null;
  readonly judge: (resource: PlannedResource) => readonly (string | NotKnownYet)[];
}

/** A rule over all resources together, and the plan that they must be of. */
export interface StackRule extends About {
  readonly judges: "stack";
  readonly judge: (resources: readonly PlannedResource[], plan: CloudPlan) => readonly Finding[];
}

export type Rule = PlanRule | ResourceRule | StackRule;

/** Where in a resource the value is that the rule waits for. */
export interface NotKnownYet {
  readonly notKnownYet: string;
}

/** What a rule has against one resource. */
export function findingOn({ name, urn }: PlannedResource, problem: string): Finding {
  return { on: name, urn, problem };
}

/** Resources of a type. */
export function ofType(resources: readonly PlannedResource[], ...types: readonly string[]): PlannedResource[] {
  return resources.filter(({ type }) => types.includes(type));
}

/** Whether a resource of one of these types is made from `resource`. */
export function hasCompanion(
  resources: readonly PlannedResource[],
  { urn }: PlannedResource,
  ...types: readonly string[]
): boolean {
  return ofType(resources, ...types).some(({ dependencies }) => dependencies.includes(urn));
}
