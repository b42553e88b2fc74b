import { execFile, execFileSync } from "node:child_process";
import { appendFile, cp, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";
import { cost } from "../../infra/commands/cost/command.ts";
import { readOptions, type CostOptions } from "../../infra/commands/cost/options.ts";
import { temporaryFolder } from "../support/folders.ts";
import { repository } from "../support/repository.ts";

const run = promisify(execFile);
const today = "2026-11-21";

/** The program itself. */
async function program(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const child = run(process.execPath, [join(repository, "infra/commands/cost/main.ts"), ...args]);
  return await child.then(
    ({ stdout, stderr }) => ({ code: 0, stdout, stderr }),
    ({ code, stdout, stderr }: { code: number; stdout: string; stderr: string }) => ({ code, stdout, stderr }),
  );
}

function optionsOf(...args: string[]): CostOptions {
  const options = readOptions(args, today);
  if (options === null) throw new Error("help was asked for");
  return options;
}

async function answer(...args: string[]): Promise<string> {
  return (await cost(optionsOf(...args))).text;
}

test("prints a report; an unknown stack is an error with those that there are", async () => {
  const [good, bad] = await Promise.all([program("aws-dev", "--today", today), program("nope")]);
  expect(good).toMatchObject({ code: 0, stderr: "" });
  expect(good.stdout).toContain("Total, a month");
  expect(bad.code).toBe(2);
  expect(bad.stderr).toMatch(/no stack `nope`; there are .*aws-dev/);
});

test("--out writes a file, and --fail-above ends with 3", async () => {
  await using folder = await temporaryFolder();
  const file = join(folder.path, "cost.html");
  const done = await program("aws-prod", "--html", "--out", file, "--fail-above", "100");
  expect(done.code).toBe(3);
  expect(done.stdout).toBe("");
  expect(done.stderr).toMatch(/can cost \d+\.\d\d USD, more than 100/);
  expect(await readFile(file, "utf8")).toMatch(/^<!doctype html>/);
});

test("a stack of one machine costs nothing to buy", async () => {
  expect(await answer("local")).toContain("nothing is bought for it");
});

test("--json is the report", async () => {
  expect(JSON.parse(await answer("azure-prod", "--json"))).toMatchObject({ version: 1, stack: "azure-prod" });
});

test.each([
  [[], "Name one stack"],
  [["aws-dev", "azure-dev"], "Name one stack"],
  [["aws-dev", "--json", "--html"], "Choose one of --json and --html"],
  [["aws-dev", "--wrong"], "Unknown option"],
  [["aws-dev", "--fail-above", "much"], "write a number"],
  [["aws-dev", "--level", "huge"], "there are minimum, expected, maximum"],
  [["aws-dev", "--hours", "5"], "need --usage"],
  [["aws-dev", "--gauges"], "--gauges needs --usage"],
  [["aws-dev", "--usage", "x", "--focus"], "neither --against nor --focus"],
  [["aws-dev", "--usage", "x", "--bill", "gpus"], "write POOL=USD"],
  [["aws-dev", "--today", "tomorrow"], "write a day"],
])("%j is refused", (args, problem) => {
  expect(() => readOptions(args, today)).toThrow(problem);
});

describe("--against", () => {
  /** A repository with a stack that changed from one commit to the next. */
  async function history(path: string): Promise<{ git: (...args: string[]) => string; file: string }> {
    const git = (...args: string[]): string =>
      execFileSync("git", ["-c", "user.name=t", "-c", "user.email=t@example.com", ...args], {
        cwd: path,
        encoding: "utf8",
      });
    const file = join(path, "stacks/Pulumi.team.yaml");
    git("init", "-q", "-b", "main");
    await mkdir(join(path, "stacks"));
    await writeFile(join(path, "README.md"), "nothing yet\n");
    git("add", ".");
    git("commit", "-qm", "empty");
    await cp(join(repository, "stacks/Pulumi.aws-prod.yaml"), file);
    git("add", ".");
    git("commit", "-qm", "stack");
    const text = await readFile(file, "utf8");
    await writeFile(file, text.replace("replicas: { min: 2, max: 4 }", "replicas: { min: 4, max: 4 }"));
    git("commit", "-qam", "more");
    return { git, file };
  }

  test("a git ref: the stack file of then, the working tree's now", async () => {
    await using folder = await temporaryFolder();
    const { file } = await history(folder.path);
    // Two more replicas of half a node of 55.04 USD an hour.
    const text = await answer(file, "--against", "main~1");
    expect(text).toContain("### Cost: team at main~1 -> team\n");
    expect(text).toContain("| pool | h100 | +40,179.20 | +24,107.52 | 0.00 | 80,358.40 |");
    expect(await answer(file, "--against", "main")).toContain("Nothing that costs changes.");
    const saved = await readFile(file, "utf8");
    await writeFile(file, saved.replace("min: 4, max: 4", "min: 3, max: 4"));
    expect(await answer(file, "--against", "main")).toContain("| fleet | large | -20,089.60 |");
  });

  test("two git refs, whatever the working tree is", async () => {
    await using folder = await temporaryFolder();
    const { file, git } = await history(folder.path);
    await writeFile(file, "broken: [");
    const text = await answer(file, "--against", "main~1..main");
    expect(text).toContain("### Cost: team at main~1 -> team at main\n");
    expect(text).toContain("| **total** |  | **+40,199.68** | **+24,119.81** | **0.00** |");
    const hash = git("rev-parse", "main").trim();
    expect(await answer(file, "--against", `main~1..${hash}`)).toContain("+40,199.68");
    const json = JSON.parse(await answer(file, "--against", "main~1..main", "--json"));
    expect(json).toMatchObject({ version: 1, riseMicroUsd: 24_119_808_000 });
    expect((await cost(optionsOf(file, "--against", "main~1..main", "--fail-above", "24119"))).failure).toContain(
      "24119.81",
    );
    expect((await cost(optionsOf(file, "--against", "main~1..main", "--fail-above", "24120"))).failure).toBeNull();
  });

  test("a ref from before the stack: everything is new", async () => {
    await using folder = await temporaryFolder();
    const { file } = await history(folder.path);
    const text = await answer(file, "--against", "main~2");
    expect(text).toContain("nothing (not in main~2) -> team");
    expect(text).toContain("| pool, new | h100 |");
  });

  test("a ref that git does not know, and what is no ref at all", async () => {
    await using folder = await temporaryFolder();
    const { file } = await history(folder.path);
    await expect(answer(file, "--against", "nowhere")).rejects.toThrow(/neither a stack \(.*aws-dev.*\) nor a git ref/);
    await expect(answer(file, "--against=--output=/tmp/x")).rejects.toThrow("neither a stack nor a git ref");
    await expect(answer(file, "--against", "main..main~2")).rejects.toThrow("no stack `team` in main~2");
  });

  test("another stack", async () => {
    const text = await answer("azure-prod", "--against", "aws-prod");
    expect(text).toContain("### Cost: aws-prod -> azure-prod");
  });

  test("--what-if compares with the stack as it is", async () => {
    const text = await answer("aws-prod", "--what-if", "replicas=large:4", "--markdown");
    expect(text).toContain("# Cost of aws-prod");
    expect(text).toContain("### Cost: aws-prod -> aws-prod with replicas=large:4");
    expect(text).toContain("| pool | h100 | +40,179.20 |");
  });
});

describe("--usage", () => {
  const record = {
    requestId: "r1",
    tenant: "support",
    credentialId: "key-1",
    model: "llama-3.3-70b",
    adapter: null,
    endpoint: "/v1/chat/completions",
    class: "interactive",
    promptTokens: 1000,
    cachedTokens: 0,
    completionTokens: 500,
    audioSeconds: 0,
    estimated: false,
    durationMs: 60_000,
    ttftMs: 100,
    outcome: "complete",
    status: 200,
    replica: "a",
    provider: null,
    costUsd: 0,
    coldStartSeconds: 0,
  };
  const line = (id: string, minute: number, change: object = {}): string =>
    `${JSON.stringify({ ...record, requestId: id, time: `2026-11-01T00:${String(minute).padStart(2, "0")}:00.000Z`, ...change })}\n`;

  test("reads rotated files too; a torn line and an unknown model are named", async () => {
    await using folder = await temporaryFolder();
    const file = join(folder.path, "usage.jsonl");
    await writeFile(`${file}.1`, line("r1", 1) + line("r2", 31, { tenant: "research" }));
    await writeFile(file, line("r2", 31, { tenant: "research" }) + line("r3", 60 - 1, { model: "old-model" }));
    await appendFile(file, '{"time":"2026-11-01T00:59:');
    const text = await answer("aws-prod", "--usage", file, "--level", "minimum");
    expect(text).toContain(`${file}: line 3 is no usage record (torn by a crash, or of another program)`);
    expect(text).toContain("! model old-model: 1 request with 1500 tokens, and the plan does not know it");
    expect(text).toContain("! 1 records are there twice and count once");
    expect(text).toContain("2026-11-01T00:00:00.000Z to 2026-11-01T00:59:00.000Z");
    // One node of 55.04 USD an hour for 59 minutes.
    expect(text).toMatch(/pool h100 +54\.12\n/);
    expect(text).toMatch(/pool single +unknown\n/);
    expect(text).toContain("State its bill with --bill single=USD");
    expect(text).toContain("! The catalogue is old: ");
  });

  test("stated bills are divided to the cent, in every form", async () => {
    await using folder = await temporaryFolder();
    const file = join(folder.path, "usage.jsonl");
    await writeFile(file, line("r1", 10) + line("r2", 20, { tenant: "research", completionTokens: 501 }));
    const metrics = join(folder.path, "metrics.txt");
    await writeFile(metrics, 'penstock_gateway_model_replica_seconds{model="llama-3.3-70b",phase="busy"} 600\n');
    const bills = ["h100=100.01", "single=0", "auto-embeddings=3.33", "shared=10"].flatMap((bill) => ["--bill", bill]);
    const args = ["aws-prod", "--usage", file, "--times", metrics, "--hours", "24", ...bills];
    const report: unknown = JSON.parse(await answer(...args, "--json"));
    expect(report).toMatchObject({ hours: 24, totalMicroUsd: 113_340_000, gaps: [] });
    expect(await answer(...args)).toMatch(/Total +113\.34\n/);
    expect(await answer(...args, "--html")).toContain("<td>research</td>");
    expect(await answer(...args, "--gauges")).toMatch(
      /llm_total_hourly_cost\{model_name="llama-3\.3-70b",.*"allocation"\} /,
    );
  });

  test("an export, a metrics page or a pool that is not there is an error", async () => {
    await using folder = await temporaryFolder();
    const file = join(folder.path, "usage.jsonl");
    await expect(answer("aws-prod", "--usage", file)).rejects.toThrow("There is no usage export");
    await writeFile(file, line("r1", 10));
    await expect(answer("aws-prod", "--usage", file, "--times", `${file}.x`)).rejects.toThrow("Cannot read");
    await expect(answer("aws-prod", "--usage", file, "--times", file)).rejects.toThrow("has no penstock_gateway_model");
    await expect(answer("aws-prod", "--usage", file, "--bill", "gpus=3")).rejects.toThrow(
      "--bill gpus: no such pool; there are auto-embeddings, h100, single, shared",
    );
  });

  test("an export without a request says so", async () => {
    await using folder = await temporaryFolder();
    const file = join(folder.path, "usage.jsonl");
    await writeFile(file, "");
    expect(await answer("aws-prod", "--usage", file)).toContain("no request is in the export");
  });
});
