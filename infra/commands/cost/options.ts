import { parseArgs } from "node:util";
import { PenstockError } from "../../../runtime/contracts/errors.ts";
import { levels, type Level } from "../../cost/report.ts";
import { parsed } from "../cli.ts";

/** For `--help`. */
export const help = `What a stack costs, by its plan and the checked-in prices. Calls no cloud.

Usage: npm run cost -- STACK [form] [options]

  STACK                such as azure-prod for stacks/Pulumi.azure-prod.yaml, or the path of such a file

Form (default: text for a terminal)
  --json  --markdown   the report as JSON or Markdown
  --html               one page with charts, to open or to print
  --focus              FOCUS 1.2 rows (CSV) of --level
  --out FILE           write to a file

Comparing
  --against OTHER      the difference to another stack, or to this stack at a git ref (main, HEAD~1, origin/main):
                       the ref's stack file, today's planner and prices; or between two refs (main..my-branch).
                       Markdown for a pull request, or --json
  --fail-above USD     exit with 3 when the expected month can rise by more than that (with --against), or can cost more
  --what-if CHANGES    such as replicas=large:2-6,capacity=single:spot,nodes=h100:4,expected=0.5,utilisation=0.6,prompt=0.25,
                       logs=50,share=llama-3.1-8b:0.7; a change without a name is for all. Prints the difference too

Usage joined with prices
  --usage FILE         the gateway's usage export; FILE.1, FILE.2, ... are read too
  --times FILE         a gateway's metrics page: how long replicas were busy, idle and loading
  --hours H            length of the time that the bills are for; default: from the first request to the last
  --bill POOL=USD      what a pool cost by the invoice (or shared=USD); may be repeated. Default: list prices at --level
  --level LEVEL        minimum, expected (default) or maximum: how many nodes there were
  --gauges             Prometheus gauges with OpenCost's names

  --today DATE         the day that prices are judged old by; default: today
  --help
`;

const options = {
  json: { type: "boolean", default: false },
  markdown: { type: "boolean", default: false },
  html: { type: "boolean", default: false },
  focus: { type: "boolean", default: false },
  gauges: { type: "boolean", default: false },
  out: { type: "string" },
  against: { type: "string" },
  "fail-above": { type: "string" },
  "what-if": { type: "string" },
  usage: { type: "string" },
  times: { type: "string" },
  hours: { type: "string" },
  bill: { type: "string", multiple: true },
  level: { type: "string", default: "expected" },
  today: { type: "string" },
  help: { type: "boolean", short: "h", default: false },
} as const;

const forms = ["json", "markdown", "html", "focus", "gauges"] as const;

/** What was asked on the command line. */
export interface CostOptions {
  readonly stack: string;
  readonly form: (typeof forms)[number] | "terminal";
  readonly out: string | null;
  readonly against: string | null;
  readonly failAboveUsd: number | null;
  readonly whatIf: string | null;
  readonly usage: {
    readonly file: string;
    readonly timesFile: string | null;
    readonly hours: number | null;
    readonly bills: Readonly<Record<string, number>>;
  } | null;
  readonly level: Level;
  readonly today: string;
}

/** Reads the command line; null: help was asked for. Throws `invalid_config`. */
export function readOptions(args: readonly string[], today: string): CostOptions | null {
  const { values, positionals } = parsed(() => parseArgs({ args: [...args], allowPositionals: true, options }));
  if (values.help) return null;
  const [stack, ...others] = positionals;
  if (stack === undefined || others.length > 0) throw wrong("Name one stack, such as azure-prod");
  const asked = forms.filter((form) => values[form]);
  if (asked.length > 1) throw wrong(`Choose one of --${asked.join(" and --")}`);
  const level = levels.find((each) => each === values.level);
  if (level === undefined) throw wrong(`--level: there are ${levels.join(", ")}`);
  const form = asked[0] ?? "terminal";
  const usage = usageOf(values);
  if (usage !== null && (values.against !== undefined || form === "focus")) {
    throw wrong("--usage goes with neither --against nor --focus");
  }
  if (usage === null && form === "gauges") throw wrong("--gauges needs --usage");
  return {
    stack,
    form,
    out: values.out ?? null,
    against: values.against ?? null,
    failAboveUsd: numberOf("fail-above", values["fail-above"]),
    whatIf: values["what-if"] ?? null,
    usage,
    level,
    today: dayOf(values.today ?? today),
  };
}

function usageOf(values: {
  readonly usage?: string | undefined;
  readonly times?: string | undefined;
  readonly hours?: string | undefined;
  readonly bill?: readonly string[] | undefined;
}): CostOptions["usage"] {
  if (values.usage === undefined) {
    if (values.times !== undefined || values.hours !== undefined || values.bill !== undefined) {
      throw wrong("--times, --hours and --bill need --usage");
    }
    return null;
  }
  const bills = (values.bill ?? []).map((text): [string, number] => {
    const [, name, usd] = /^([A-Za-z0-9-]+)=(\d+(?:\.\d{1,2})?)$/.exec(text) ?? [];
    if (name === undefined) throw wrong(`--bill ${text}: write POOL=USD, such as h100=1234.56`);
    return [name, Number(usd)];
  });
  return {
    file: values.usage,
    timesFile: values.times ?? null,
    hours: numberOf("hours", values.hours),
    bills: Object.fromEntries(bills),
  };
}

function numberOf(name: string, text: string | undefined): number | null {
  if (text === undefined) return null;
  if (!/^\d{1,12}(\.\d{1,6})?$/.test(text)) throw wrong(`--${name} ${text}: write a number, such as 720`);
  return Number(text);
}

function dayOf(text: string): string {
  if (/^\d{4}-\d{2}-\d{2}$/.test(text) && !Number.isNaN(Date.parse(text))) return text;
  throw wrong(`--today ${text}: write a day, such as 2026-11-21`);
}

function wrong(problem: string): PenstockError {
  return new PenstockError("invalid_config", `${problem}; see --help.`);
}
