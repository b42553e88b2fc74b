/** What a report supposes where the plan cannot know. All of it is printed with the report. */
export interface Assumptions {
  /** Of the way from minimum to maximum replicas, what is there on average: 0 to 1. */
  readonly expected: number;
  /** Share of its throughput that a replica delivers on average, 0 to 1. */
  readonly utilisation: number;
  /** What a prompt token costs of what a completion token costs. */
  readonly promptTokenWeight: number;
  /** What a prompt token costs that the engine's cache had. */
  readonly cachedTokenWeight: number;
  /** Prompt tokens for each completion token. */
  readonly promptTokensPerCompletionToken: number;
  /** Logs of the control plane, in a month. */
  readonly logsGiBPerMonth: number;
  /** Metrics that a managed Prometheus takes in, each second and node. */
  readonly metricSamplesPerNodeSecond: number;
  /** What each model of a fleet is used of it; models that are not here share evenly. */
  readonly modelShares: Readonly<Record<string, number>>;
  /** The day of the report, such as 2026-11-21: prices are old by it. */
  readonly today: string;
  /** Prices older than this are called old. */
  readonly staleAfterDays: number;
}

/** Says each assumption in words, for every form of the report. */
export function assumptionLines(assumptions: Assumptions): string[] {
  const { expected, utilisation, promptTokenWeight, promptTokensPerCompletionToken } = assumptions;
  return [
    "A month has 730 hours; USD at list prices without taxes, credits or your contract's discounts.",
    "Minimum: replicas and nodes at their minima. Maximum: the most nodes of each pool, each at its dearest variant; " +
      "a spot node at most at its price on demand.",
    `Expected: ${percent(expected)} of the way from minimum to maximum replicas, on average (--what-if expected=0.4).`,
    `A replica delivers ${percent(utilisation)} of its throughput on average (--what-if utilisation=0.4).`,
    `Cost per million tokens: ${promptTokensPerCompletionToken} prompt token${promptTokensPerCompletionToken === 1 ? "" : "s"} ` +
      `for each completion token, and a prompt token costs ${percent(promptTokenWeight)} of one (--what-if prompt=0.25).`,
    `Logs: ${assumptions.logsGiBPerMonth} GiB a month. Metrics: ${assumptions.metricSamplesPerNodeSecond} samples a second and node.`,
  ];
}

/** A report's assumptions where nobody says otherwise. */
export function defaultAssumptions(today: string): Assumptions {
  return {
    expected: 0.4,
    utilisation: 0.4,
    promptTokenWeight: 0.25,
    cachedTokenWeight: 0.025,
    promptTokensPerCompletionToken: 1,
    logsGiBPerMonth: 20,
    metricSamplesPerNodeSecond: 100,
    modelShares: {},
    today,
    staleAfterDays: 90,
  };
}

function percent(share: number): string {
  return `${Number((share * 100).toFixed(1))} %`;
}
