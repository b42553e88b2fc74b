import { readdir, readFile, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { PenstockError } from "../../../runtime/contracts/errors.ts";
import { readUsageFile } from "../../../runtime/gateway/metering/usage-file.ts";
import { allocated, type UsageReport } from "../../cost/allocation.ts";
import type { CostReport } from "../../cost/report.ts";
import { staleText } from "../../cost/stale.ts";
import { replicaSeconds, UsageSummary, type ReplicaSeconds } from "../../cost/usage.ts";
import type { CloudPlan } from "../../plan/plan.ts";
import type { CostOptions } from "./options.ts";

const maxMetricsBytes = 64 * 2 ** 20;

/** A usage report, and the time that its records are of. */
export interface JoinedUsage {
  readonly report: UsageReport;
  readonly period: string;
}

/**
 * Joins a gateway's usage export with a plan's prices. Lines that are no records are named with file and number. Throws
 * `invalid_config` for a file that is not there and for a bill of a pool that the plan does not have.
 */
export async function joinUsage(
  { plan, report }: { readonly plan: CloudPlan; readonly report: CostReport },
  asked: NonNullable<CostOptions["usage"]>,
  level: CostOptions["level"],
): Promise<JoinedUsage> {
  checkBills(report, asked.bills);
  const summary = new UsageSummary(report.assumptions);
  const gaps: string[] = [];
  for (const file of await filesOf(asked.file)) await readInto(summary, file, gaps);
  if (summary.repeated > 0) gaps.push(`${summary.repeated} records are there twice and count once`);
  const { period } = summary;
  const hours = asked.hours ?? summary.hours;
  if (hours === 0)
    gaps.push("no request is in the export, so there is no time to share out; say how long with --hours");
  const isListed = [...report.pools.map(({ name }) => name), "shared"].some((name) => asked.bills[name] === undefined);
  const stale = isListed ? staleText(report) : null;
  if (stale !== null) gaps.push(stale);
  const times = asked.timesFile === null ? summary.times() : await timesOf(asked.timesFile);
  const joined = allocated({ plan, report, usage: summary.rows() }, { hours, level, bills: asked.bills, times });
  return {
    report: { ...joined, gaps: [...gaps, ...joined.gaps] },
    period: period === null ? "no requests" : `${period.from} to ${period.to}`,
  };
}

/** The export and what was rotated out of it, the oldest first. */
async function filesOf(path: string): Promise<string[]> {
  const name = basename(path);
  const there = await readdir(dirname(path)).catch((): string[] => []);
  const rotated = there
    .flatMap((each) => (each.startsWith(`${name}.`) && /^\.\d{1,4}$/.test(each.slice(name.length)) ? [each] : []))
    .toSorted((a, b) => Number(b.slice(name.length + 1)) - Number(a.slice(name.length + 1)));
  const files = [...rotated, ...(there.includes(name) ? [name] : [])].map((each) => join(dirname(path), each));
  if (files.length > 0) return files;
  throw new PenstockError("invalid_config", `There is no usage export ${path}; name the gateway's \`usageFile\`.`);
}

async function readInto(summary: UsageSummary, file: string, gaps: string[]): Promise<void> {
  const broken: number[] = [];
  for await (const record of readUsageFile(file, (line) => broken.push(line))) summary.add(record);
  if (broken.length === 0) return;
  const few = broken.slice(0, 5).join(", ");
  const more = broken.length > 5 ? ` and ${broken.length - 5} more` : "";
  const lines = broken.length === 1 ? `line ${few} is` : `lines ${few}${more} are`;
  gaps.push(`${file}: ${lines} no usage record (torn by a crash, or of another program) and in no sum`);
}

async function timesOf(file: string): Promise<ReadonlyMap<string, ReplicaSeconds>> {
  const size = await stat(file).then(
    (found) => found.size,
    () => null,
  );
  if (size === null || size > maxMetricsBytes) {
    throw new PenstockError(
      "invalid_config",
      `Cannot read ${file}; save a gateway's metrics page there, of at most 64 MiB.`,
    );
  }
  const times = replicaSeconds(await readFile(file, "utf8"));
  if (times.size > 0) return times;
  const metric = "penstock_gateway_model_replica_seconds";
  throw new PenstockError("invalid_config", `${file} has no ${metric}; save a gateway's metrics page there.`);
}

function checkBills({ pools }: CostReport, bills: Readonly<Record<string, number>>): void {
  const names = [...pools.map(({ name }) => name), "shared"];
  const wrong = Object.keys(bills).find((name) => !names.includes(name));
  if (wrong === undefined) return;
  throw new PenstockError("invalid_config", `--bill ${wrong}: no such pool; there are ${names.join(", ")}.`);
}
