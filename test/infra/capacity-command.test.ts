import { execFile } from "node:child_process";
import { access, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { z } from "zod";
import { generated } from "../../infra/capacity/trace/generator.ts";
import { TraceParser } from "../../infra/capacity/trace/parse.ts";
import { sloOf } from "../../infra/commands/capacity/arguments.ts";
import { temporaryFolder } from "../support/folders.ts";
import { repository } from "../support/repository.ts";

interface Run {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** The command as `npm run capacity` starts it. */
function capacity(...args: string[]): Promise<Run> {
  return new Promise((resolve) => {
    execFile(
      process.execPath,
      ["infra/commands/capacity/main.ts", ...args],
      { cwd: repository, maxBuffer: 1 << 24 },
      (error, stdout, stderr) => {
        resolve({ code: typeof error?.code === "number" ? error.code : 0, stdout, stderr });
      },
    );
  });
}

/** What these tests read of the JSON. */
const report = z.object({
  stack: z.string(),
  requests: z.number(),
  resolution: z.string(),
  fleets: z.array(z.object({ name: z.string(), requests: z.number(), served: z.number(), tooLong: z.number() })),
  gaps: z.array(z.string()),
  suggestions: z.array(z.object({ fleet: z.string(), best: z.object({}).nullable() })).optional(),
});

interface Tokens {
  readonly input?: number;
  readonly output?: number;
  readonly model?: string;
}

/** A line of a trace in the form of its own. */
const own = (at: number, { input = 900, output = 100, model }: Tokens = {}): string =>
  JSON.stringify({ at_seconds: at, input_tokens: input, output_tokens: output, model });

async function withTrace(text: string, ...args: string[]): Promise<Run> {
  await using folder = await temporaryFolder();
  const file = join(folder.path, "trace");
  await writeFile(file, text);
  return await capacity("azure-prod", "--trace", file, ...args);
}

describe("npm run capacity", () => {
  test("prints latency, replicas, nodes, cost, gaps and a verdict; figures of the same trace are the same", async () => {
    const args = ["azure-prod", "--trace", "generator:conversation?rate=2&hours=1&seed=9"];
    const [one, other] = await Promise.all([capacity(...args), capacity(...args)]);
    expect(one?.code).toBe(0);
    expect(one?.stdout).toBe(other?.stdout);
    for (const part of [
      "TTFT p50",
      "replica-hours",
      "peak nodes",
      "USD",
      "longer than its context",
      "derived from memory speed",
      "Assumptions",
      "The SLO is",
    ]) {
      expect(one?.stdout).toContain(part);
    }
    expect(one?.stderr).toContain("requests in 1.0 h");
  });

  test("--optimise prints the lines of the stack to change", async () => {
    const { code, stdout } = await capacity(
      "azure-prod",
      "--trace=generator:conversation?rate=9&hours=12&diurnal=0.9",
      "--models=llama-3.1-8b",
      "--optimise",
      "--resolution=bins",
      "--without-spot",
    );
    expect(code).toBe(0);
    expect(stdout).toMatch(/- name: small\n +replicas: \{ min: \d+, max: \d+ \}\n +scaling: \{ targetRequests: \d+ \}/);
  });

  test("--json; requests for models go to their fleets, adapters and aliases too", async () => {
    const lines = [
      own(0, { model: "llama-3.1-8b" }),
      own(1, { model: "llama-3.1-8b:support" }),
      own(2, { model: "default" }),
      own(3, { output: 1, model: "bge-m3" }),
      own(4, { model: "nobody/has-this" }),
      own(5, { input: 40_000, model: "llama-3.3-70b" }),
    ];
    const { code, stdout } = await withTrace(`${lines.join("\n")}\n`, "--json", "--optimise");
    expect(code).toBe(0);
    const { fleets, gaps, requests, suggestions, resolution } = report.parse(JSON.parse(stdout));
    expect({ requests, resolution }).toEqual({ requests: 6, resolution: "requests" });
    const served = Object.fromEntries(
      fleets.map((fleet) => [fleet.name, [fleet.requests, fleet.served, fleet.tooLong]]),
    );
    expect(served).toMatchObject({ small: [2, 2, 0], large: [2, 1, 1], embeddings: [1, 1, 0], vision: [0, 0, 0] });
    expect(gaps.join("\n")).toContain("1 requests for nobody/has-this, which azure-prod has not");
    expect(suggestions?.map(({ fleet }) => fleet).toSorted()).toEqual(["embeddings", "large", "small"]);
  });

  test("a last line that was cut is left out and named; one that is whole counts", async () => {
    const torn = await withTrace(`${own(0)}\n${own(1)}\n{"at_seconds": 2, "inp`, "--json");
    const parsedTorn = report.parse(JSON.parse(torn.stdout));
    expect(parsedTorn.requests).toBe(2);
    expect(parsedTorn.gaps[0]).toContain("last line of the trace is torn");
    const whole = report.parse(JSON.parse((await withTrace(`${own(0)}\n${own(1)}`, "--json")).stdout));
    expect(whole.requests).toBe(2);
    expect(whole.gaps.join("\n")).not.toContain("torn");
  });

  test.each([
    [
      "not sorted",
      `${own(5)}\n${own(3.2)}\n`,
      "line 2: its time (-1.800 s) is before that of the line above (0.000 s); sort",
    ],
    ["not sorted at its end", `${own(5)}\n${own(3)}`, "sort the trace by time"],
    ["with a negative count", `${own(0, { input: -4 })}\n`, "input_tokens"],
    ["with a negative time", `${own(-1)}\n`, "at_seconds"],
    ["with a huge count", `${own(0, { input: 1e12 })}\n`, "input_tokens"],
    ["in milliseconds", `${own(0)}\n${own(1.7e12)}\n`, "more than ten years after the first"],
    ["of no known form", '{"hello": 1}\n', "of no form that Penstock reads"],
    ["of bytes", "\u0000\u0001\u0002\n", "line 1: it is no JSON"],
    ["with a field too many", '{"at_seconds": 0, "input_tokens": 1, "output_tokens": 1, "tokens": 1}\n', "tokens"],
    ["that is empty", "\n\n", "has no request in it"],
    ["with a line without end", "x".repeat(3 << 20), "line of more than 1 MiB"],
    ["with an Azure line torn in the middle", "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:1\n\n", "line 2"],
  ])("a trace %s: says what and where, and nothing on stdout", async (_, text, message) => {
    const { code, stdout, stderr } = await withTrace(text);
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    expect(stderr).toContain(message);
    expect(stderr).not.toContain("    at ");
  });

  test.each([
    [["azure-prod"], "--trace"],
    [["nope", "--trace", "generator:chat"], "There is no stack"],
    [["local", "--trace", "generator:chat"], "one machine"],
    [["azure-prod", "--trace", "/nonexistent/file"], "There is no file"],
    [["azure-prod", "--trace", "/"], "folder"],
    [["azure-prod", "--trace", "generator:tv"], "conversation, chat, code"],
    [["azure-prod", "--trace", "generator:chat?rate=-1"], "rate"],
    [["azure-prod", "--trace", "generator:chat?speed=2"], "speed"],
    [["azure-prod", "--trace", "generator:chat?days=99999"], "ten years"],
    [["azure-prod", "--trace", "generator:chat", "--slo", "ttft=2"], "ttft=2s,tpot=100ms,share=0.95"],
    [["azure-prod", "--trace", "generator:chat", "--models", "gpt-9"], "has no model gpt-9"],
    [["azure-prod", "--trace", "generator:chat", "--bounds", "small=4..2"], "--bounds"],
    [["azure-prod", "--trace", "generator:chat", "--bounds", "other=1..2"], "has no fleet other"],
    [["azure-prod", "--trace", "generator:chat", "--cached", "2"], "--cached"],
    [["azure-prod", "--trace", "generator:chat?rate=9000&days=300", "--resolution", "requests"], "--resolution bins"],
  ])("%j: says what is wrong", async (args, message) => {
    const { code, stdout, stderr } = await capacity(...args);
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    expect(stderr).toContain(message);
  });

  test("--help", async () => {
    const { code, stdout } = await capacity("--help");
    expect(code).toBe(0);
    expect(stdout).toContain("Usage: npm run capacity");
  });
});

describe("traces", () => {
  test("Mooncake's and Azure's forms, from their first request on", () => {
    const mooncake = new TraceParser("trace");
    mooncake.read('{"timestamp": 3000, "input_length": 10, "output_length": 5, "hash_ids": [0]}');
    expect(mooncake.read('{"timestamp": 4500, "input_length": 20, "output_length": 0, "hash_ids": []}')).toEqual({
      atSeconds: 1.5,
      inputTokens: 20,
      outputTokens: 1,
      model: null,
    });
    const azure = new TraceParser("trace");
    expect(azure.read("TIMESTAMP,ContextTokens,GeneratedTokens")).toBeNull();
    azure.read("2023-11-16 23:59:59.9799600,4808,10");
    const next = azure.read("2023-11-17 00:00:00.4799600,3180,8\r");
    expect(next).toMatchObject({ inputTokens: 3180, outputTokens: 8 });
    expect(next?.atSeconds).toBeCloseTo(0.5, 6);
  });

  test("the public traces, where they are there", async (context) => {
    for (const [name, requests, gap] of [
      ["mooncake_conversation_10min.jsonl", 1_750, "longer than its context"],
      ["azure2023_code.csv", 8_819, ""],
    ] as const) {
      const file = join(repository, "../shared/traces", name);
      await access(file).catch(() => context.skip(`${name} is not there`));
      const run = report.parse(JSON.parse((await capacity("azure-prod", "--trace", file, "--json")).stdout));
      expect(run.requests).toBe(requests);
      expect(run.gaps.join("\n")).toContain(gap);
    }
  });

  test("generators have the means that they were fitted to, and the rate that was asked for", () => {
    for (const [kind, input, output] of [
      ["conversation", 12_035, 343],
      ["chat", 1_155, 211],
      ["code", 2_048, 28],
    ] as const) {
      const { columns, requests } = generated(`generator:${kind}?rate=5&hours=20`, { binsOnly: false });
      if (columns === null) throw new Error("few enough for single requests");
      expect(requests / (5 * 72_000)).toBeGreaterThan(0.9);
      expect(requests / (5 * 72_000)).toBeLessThan(1.1);
      const mean = (of: (index: number) => number): number =>
        Array.from({ length: columns.size }, (_, index) => of(index)).reduce((sum, value) => sum + value, 0) /
        columns.size;
      expect(mean((index) => columns.input(index)) / input, `${kind} input`).toBeGreaterThan(0.8);
      expect(mean((index) => columns.input(index)) / input, `${kind} input`).toBeLessThan(1.3);
      expect(mean((index) => columns.output(index)) / output, `${kind} output`).toBeGreaterThan(0.85);
      expect(mean((index) => columns.output(index)) / output, `${kind} output`).toBeLessThan(1.15);
    }
  });

  test("rates by the bin add up to what single requests do", () => {
    for (const spec of [
      "generator:chat?rate=9&days=3&diurnal=0.7&weekend=0.5",
      "generator:code?rate=9&days=7&weekend=0.2",
    ]) {
      const single = generated(spec, { binsOnly: false });
      const binned = generated(spec, { binsOnly: true });
      expect(binned.columns).toBeNull();
      expect(binned.requests / single.requests).toBeGreaterThan(0.97);
      expect(binned.requests / single.requests).toBeLessThan(1.03);
    }
  });

  test("an SLO in words", () => {
    expect(sloOf("")).toEqual({ ttftSeconds: 2, tpotSeconds: 0.1, share: 0.95 });
    expect(sloOf("ttft=450ms, tpot=40ms,share=0.99")).toEqual({ ttftSeconds: 0.45, tpotSeconds: 0.04, share: 0.99 });
  });
});
