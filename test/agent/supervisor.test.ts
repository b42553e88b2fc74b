import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { watchHealth } from "../../runtime/agent/supervisor/health.ts";
import { EngineOutput } from "../../runtime/agent/supervisor/output.ts";
import { freePorts } from "../../runtime/agent/supervisor/ports.ts";
import { startEngine, type RunningEngine } from "../../runtime/agent/supervisor/start.ts";
import { EngineVersions, parseVersion } from "../../runtime/agent/supervisor/version.ts";
import type { EngineLaunch } from "../../runtime/engines/engine.ts";
import { createLog } from "../../runtime/lib/log.ts";
import { temporaryFolder, type TemporaryFolder } from "../support/folders.ts";
import { alive } from "../support/repository.ts";

const log = createLog("test", "silent");

interface Asked {
  readonly launch?: Partial<EngineLaunch>;
  readonly readyTimeoutMs?: number;
  readonly signal?: AbortSignal;
}

/** An engine whose whole program is `script`, with `port` in scope. */
async function engine(folder: TemporaryFolder, script: string, asked: Asked = {}): Promise<RunningEngine> {
  const ports = await freePorts();
  return startEngine({
    launch: {
      prelude: [],
      command: [process.execPath, "-e", `const port = ${ports.api}; ${script}`],
      env: { FROM_SPEC: "yes" },
      files: {},
      ready: { method: "GET", path: "/ready" },
      health: { method: "GET", path: "/health" },
      afterReady: [],
      lifeline: "wrapper",
      ...asked.launch,
    },
    ports,
    workDirectory: join(folder.path, "work"),
    env: { PATH: process.env["PATH"] ?? "" },
    readyTimeoutMs: asked.readyTimeoutMs ?? 20_000,
    signal: asked.signal ?? new AbortController().signal,
    log,
  });
}

const serving = `
  const ready = Date.now() + 100;
  let hung = false;
  require("http").createServer((q, s) => {
    if (q.url === "/env") return s.end(JSON.stringify(process.env));
    if (q.url === "/pid") return s.end(String(process.pid));
    if (q.url === "/hang") hung = true;
    if (hung) return;
    s.statusCode = q.url === "/refuse" ? 400 : Date.now() < ready ? 503 : 200;
    s.end(q.url === "/refuse" ? '{"error":{"message":"no such adapter"}}' : "");
  }).listen(port, "127.0.0.1");
`;

const lifelines = ["stdin", "wrapper"] as const;

test.each(lifelines)(
  "an engine (%s) is handed over when its probe answers 200, and stops when asked",
  async (lifeline) => {
    await using folder = await temporaryFolder();
    const running = await engine(folder, serving, { launch: { lifeline, files: { "repo/1/model.json": "{}" } } });
    expect((await fetch(`${running.origin}/ready`)).status).toBe(200);
    expect(readFileSync(join(folder.path, "work/repo/1/model.json"), "utf8")).toBe("{}");
    const pid = Number(await (await fetch(`${running.origin}/pid`)).text());
    await running.stop(5_000);
    expect([alive(running.pid), alive(pid)]).toEqual([false, false]);
    expect(await running.exited).toContain("signal SIGTERM");
    await expect.poll(() => existsSync(join(folder.path, "work"))).toBe(false);
  },
);

test("an engine gets the environment that it is given, and not the agent's", async () => {
  await using folder = await temporaryFolder();
  process.env["A_SECRET_OF_THE_AGENT"] = "x";
  const running = await engine(folder, serving);
  const env = await (await fetch(`${running.origin}/env`)).text();
  await running.stop(5_000);
  delete process.env["A_SECRET_OF_THE_AGENT"];
  expect(env).toContain('"FROM_SPEC":"yes"');
  expect(env).not.toContain("A_SECRET_OF_THE_AGENT");
});

test.each(lifelines)("an engine (%s) that ends before it is ready is reported with its reason", async (lifeline) => {
  await using folder = await temporaryFolder();
  const script = `
    console.error("INFO loading weights");
    console.error("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB");
    console.error("INFO 12:00 shutting down");
    process.exit(3);`;
  await expect(engine(folder, script, { launch: { lifeline } })).rejects.toMatchObject({
    code: "engine_start_failed",
    message: expect.stringContaining("CUDA out of memory. Tried to allocate 2.00 GiB (exit code 3)"),
  });
});

test("an engine that never becomes ready is stopped at the time-out", async () => {
  await using folder = await temporaryFolder();
  const file = `${folder.path}/pid`;
  const script = `require("fs").writeFileSync(${JSON.stringify(file)}, String(process.pid)); setInterval(() => {}, 1000);`;
  await expect(engine(folder, script, { readyTimeoutMs: 1_500 })).rejects.toMatchObject({
    code: "engine_start_failed",
    message: expect.stringContaining("not ready after 1.5 s"),
  });
  expect(alive(Number(readFileSync(file, "utf8")))).toBe(false);
});

test.each(lifelines)("an engine (%s) that ignores SIGTERM is killed at the deadline", async (lifeline) => {
  await using folder = await temporaryFolder();
  const running = await engine(folder, `process.on("SIGTERM", () => {}); ${serving}`, { launch: { lifeline } });
  const pid = Number(await (await fetch(`${running.origin}/pid`)).text());
  await running.stop(300);
  expect(await running.exited).toContain("signal SIGKILL");
  await expect.poll(() => alive(pid)).toBe(false);
});

test("an engine does not outlive the shell that stands in front of it", async () => {
  await using folder = await temporaryFolder();
  const running = await engine(folder, serving);
  const pid = Number(await (await fetch(`${running.origin}/pid`)).text());
  expect(pid).not.toBe(running.pid);
  process.kill(running.pid, "SIGKILL");
  expect(await running.exited).toContain("signal SIGKILL");
  await expect.poll(() => alive(pid)).toBe(false);
});

test("workers that an engine leaves behind end with it", async () => {
  await using folder = await temporaryFolder();
  const script = `
    const worker = require("child_process").spawn("sleep", ["1000"], { stdio: "ignore" });
    require("fs").writeFileSync(${JSON.stringify(join(folder.path, "worker"))}, String(worker.pid));
    ${serving}`;
  const running = await engine(folder, script);
  const engineProcess = Number(await (await fetch(`${running.origin}/pid`)).text());
  process.kill(engineProcess, "SIGKILL");
  expect(await running.exited).toContain("signal SIGKILL");
  const worker = Number(readFileSync(join(folder.path, "worker"), "utf8"));
  await expect.poll(() => alive(worker)).toBe(false);
});

test("a program that does not exist is an error, not a crash", async () => {
  await using folder = await temporaryFolder();
  for (const lifeline of lifelines) {
    const started = engine(folder, "", { launch: { command: ["/nowhere/engine"], lifeline } });
    await expect(started).rejects.toMatchObject({ code: "engine_start_failed" });
    await expect(started).rejects.toThrow(/could not be started|not found/);
  }
});

test("a stop of the agent ends a start under way", async () => {
  await using folder = await temporaryFolder();
  const stopping = new AbortController();
  const started = engine(folder, "setInterval(() => {}, 1000)", { signal: stopping.signal });
  stopping.abort(new Error("stopping"));
  await expect(started).rejects.toThrow("stopping");
});

test("steps before the engine run in order, and one that fails ends the start", async () => {
  await using folder = await temporaryFolder();
  const mark = join(folder.path, "mark");
  const step = (text: string) => ["/bin/sh", "-c", `printf ${text} >> ${mark}`] as const;
  const running = await engine(folder, serving, { launch: { prelude: [step("a"), step("b")] } });
  await running.stop(5_000);
  expect(readFileSync(mark, "utf8")).toBe("ab");
  const failing = engine(folder, serving, {
    launch: { prelude: [["/bin/sh", "-c", "echo 'error: no route to the leader' >&2; exit 7"]] },
  });
  await expect(failing).rejects.toThrow("no route to the leader (exit code 7)");
});

test("calls after readiness must succeed, and say what the engine answered", async () => {
  await using folder = await temporaryFolder();
  const refused = engine(folder, serving, { launch: { afterReady: [{ method: "POST", path: "/refuse", body: {} }] } });
  await expect(refused).rejects.toThrow("POST /refuse: the engine answered HTTP 400: no such adapter");
});

test("an engine that hangs without dying is killed, and says why", async () => {
  await using folder = await temporaryFolder();
  const running = await engine(folder, serving);
  const watching = watchHealth(running, { intervalMs: 50, timeoutMs: 200, failures: 2 });
  await fetch(`${running.origin}/hang`, { signal: AbortSignal.timeout(200) }).catch(() => undefined);
  await watching;
  expect(await running.exited).toMatch(/\/health failed 2 times in a row \(signal SIG(KILL|TERM)\)/);
});

test("the output is a ring: a flood keeps the last lines, and the reason is the most telling one", () => {
  const output = new EngineOutput();
  output.add("torch.OutOfMemoryError: CUDA out of memory");
  for (let line = 0; line < 150; line += 1) output.add(`INFO step ${line}`);
  expect(output.reason()).toContain("out of memory");
  for (let line = 0; line < 1_000; line += 1) output.add("x".repeat(5_000));
  expect(output.tail(1_000).map((line) => line.length)).toEqual(Array.from({ length: 200 }, () => 2_000));
  expect(output.tail(2)).toHaveLength(2);
});

test.each([
  ["0.11.0\n", [0, 11, 0]],
  ["INFO 11-21 13:00:00.123 [importing.py]\n0.20.1.dev3+gabc\n", [0, 20, 1]],
  ["version: 0.4.0-dev (build 1, commit 80fb11a)\nbuilt with GNU 12.2.0 for Linux x86_64\n", [0, 4, 0]],
  ["version: 6543 (abc1234)\nbuilt with cc (Ubuntu 13.3.0-6ubuntu2) 13.3.0 for x86_64\n", [0, 0, 6543]],
  ["[TensorRT-LLM] TensorRT LLM version: 1.3.0\nUsage: trtllm-serve 9.9.9", [1, 3, 0]],
  ["llama-server v0.5.0\n", [0, 5, 0]],
  ["version: 5430 (abc1234)\n", [0, 0, 5430]],
  ["nothing of the kind", undefined],
])("the version in %j", (text, version) => {
  expect(parseVersion(text)).toEqual(version);
});

test("a version is read once; a program that is missing or too old is named", async () => {
  await using folder = await temporaryFolder();
  const script = (version: string) => ["/bin/sh", "-c", `echo x >> ${folder.path}/count; echo ${version}`] as const;
  const versions = new EngineVersions({ PATH: process.env["PATH"] ?? "" });
  expect(await versions.of("vllm", script("99.1.2"))).toEqual([99, 1, 2]);
  expect(await versions.of("vllm", script("99.1.2"))).toEqual([99, 1, 2]);
  expect(readFileSync(join(folder.path, "count"), "utf8")).toBe("x\n");
  const others = new EngineVersions({});
  await expect(others.of("vllm", script("0.0.1"))).rejects.toThrow("too old");
  await expect(others.of("vllm", ["/nowhere/vllm"])).rejects.toThrow("not installed");
  expect(await others.of("embedded", ["/nowhere"])).toBeNull();
});
