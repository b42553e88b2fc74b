import { PenstockError } from "../../../runtime/contracts/errors.ts";
import { defaultAssumptions } from "../../cost/assumptions.ts";
import { costReport } from "../../cost/cost-report.ts";
import { costDifference, differenceText, type CostDifference } from "../../cost/difference.ts";
import { documentOf } from "../../cost/document.ts";
import { focusRows } from "../../cost/focus.ts";
import { gaugesText } from "../../cost/gauges.ts";
import { htmlPage, pageOf } from "../../cost/html.ts";
import { markdownText } from "../../cost/markdown.ts";
import type { CostReport } from "../../cost/report.ts";
import type { CostDocument } from "../../cost/table.ts";
import { terminalText } from "../../cost/terminal.ts";
import { usageDocument } from "../../cost/usage-document.ts";
import { parseWhatIf } from "../../cost/what-if.ts";
import { stackFile, stackNames, type StackFile } from "../stack-files.ts";
import type { CostOptions } from "./options.ts";
import { planOfStack, readStack, readStackAt, type NamedStack } from "./read-stack.ts";
import { joinUsage, type JoinedUsage } from "./usage.ts";

/** What a run of the command prints, and whether `--fail-above` says no. */
export interface CostAnswer {
  readonly text: string;
  /** Why the run fails; null: it does not. */
  readonly failure: string | null;
}

/** Runs the command but for writing. Throws `invalid_config` for what cannot be read or planned. */
export async function cost(options: CostOptions): Promise<CostAnswer> {
  const whatIf = options.whatIf === null ? null : parseWhatIf(options.whatIf);
  const plain = defaultAssumptions(options.today);
  const compared = await stacksOf(options);
  if (compared === null) {
    const text = `${options.stack} is one machine: \`npm start\` serves it, and nothing is bought for it.\n`;
    return { text, failure: null };
  }
  const { before, after: named } = compared;
  const plan = planOfStack({ ...named, stack: whatIf?.stack(named.stack) ?? named.stack });
  const report = costReport(plan, whatIf?.assumptions(plain) ?? plain);
  const name = whatIf === null ? named.title : `${named.title} with ${whatIf.text}`;
  if (options.usage !== null) {
    const joined = await joinUsage({ plan, report }, options.usage, options.level);
    return { text: usageText(joined, report, options), failure: null };
  }
  if (before !== null) {
    const old = before.stack === null ? null : costReport(planOfStack({ ...before, stack: before.stack }), plain);
    const difference = costDifference({ name: before.title, report: old }, { name, report });
    const text = options.form === "json" ? json(difference) : differenceText(difference);
    return { text, failure: riseFailure(difference, options.failAboveUsd) };
  }
  const failure = costFailure(report, options.failAboveUsd);
  const text = reportText(report, options);
  const isProse = options.form === "terminal" || options.form === "markdown";
  if (whatIf === null || !isProse) return { text, failure };
  const base = { name: named.title, report: costReport(planOfStack(named), plain) };
  return { text: `${text}\n${differenceText(costDifference(base, { name, report }))}`, failure };
}

/** A stack and what to call it in a difference. */
type Titled<Stack> = { readonly name: string; readonly title: string; readonly stack: Stack };

interface Compared {
  /** Null: nothing is compared. Its stack is null where it was not there yet. */
  readonly before: Titled<NamedStack["stack"] | null> | null;
  readonly after: Titled<NamedStack["stack"]>;
}

/**
 * The stack that is asked about, and what it is compared with: another stack, a git ref, or two refs as `A..B`. Null: the
 * stack is one machine.
 */
async function stacksOf({ stack, against }: CostOptions): Promise<Compared | null> {
  const file = await stackFile(stack);
  const [from, to] = against?.split("..") ?? [];
  if (from !== undefined && to !== undefined) {
    const after = await stackAt(to, file);
    if (after.stack === null) throw new PenstockError("invalid_config", `There is no stack \`${file.name}\` in ${to}.`);
    return { before: await stackAt(from, file), after: { ...after, stack: after.stack } };
  }
  const found = await readStack(file);
  if (found === null) return null;
  const after = { ...found, title: found.name };
  if (from === undefined) return { before: null, after };
  const isStack = (await stackNames()).includes(from);
  if (!isStack) return { before: await stackAt(from, file), after };
  const other = await readStack(await stackFile(from));
  return { before: { name: from, title: from, stack: other?.stack ?? null }, after };
}

async function stackAt(ref: string, file: StackFile): Promise<Titled<NamedStack["stack"] | null>> {
  const found = await readStackAt(ref, file);
  const title = found === null ? `nothing (not in ${ref})` : `${file.name} at ${ref}`;
  return { name: file.name, title, stack: found?.stack ?? null };
}

function reportText(report: CostReport, { form, level }: CostOptions): string {
  if (form === "html") return htmlPage(report);
  if (form === "focus") return focusRows(report, level);
  return form === "json" ? json(report) : proseOf(documentOf(report), form);
}

function usageText({ report, period }: JoinedUsage, { assumptions }: CostReport, { form }: CostOptions): string {
  if (form === "json") return json(report);
  if (form === "gauges") return gaugesText(report, assumptions.promptTokenWeight);
  const document = usageDocument(report, period);
  return form === "html" ? pageOf(document) : proseOf(document, form);
}

function proseOf(document: CostDocument, form: CostOptions["form"]): string {
  return form === "markdown" ? markdownText(document) : terminalText(document);
}

function json(value: CostReport | CostDifference | JoinedUsage["report"]): string {
  return `${JSON.stringify(value, null, 2)}\n`;
}

function riseFailure({ riseMicroUsd }: CostDifference, limitUsd: number | null): string | null {
  if (limitUsd === null || riseMicroUsd <= limitUsd * 1_000_000) return null;
  return `The expected month can rise by ${(riseMicroUsd / 1_000_000).toFixed(2)} USD, more than ${limitUsd}.`;
}

function costFailure({ total: { expected } }: CostReport, limitUsd: number | null): string | null {
  if (limitUsd === null || expected.highMicroUsd <= limitUsd * 1_000_000) return null;
  return `The expected month can cost ${(expected.highMicroUsd / 1_000_000).toFixed(2)} USD, more than ${limitUsd}.`;
}
