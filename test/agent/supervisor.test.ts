import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { freePort, startEngine, type RunningEngine } from "../../runtime/agent/supervisor.ts";
import { createLog } from "../../runtime/lib/log.ts";
import { temporaryFolder } from "../support/folders.ts";
import { alive } from "../support/repository.ts";

const log = createLog("test", "silent");

/** An engine whose whole program is `script`, with `port` in scope. */
async function engine(
  script: string,
  options: { readyTimeoutMs?: number; signal?: AbortSignal } = {},
): Promise<RunningEngine> {
  const port = await freePort();
  return startEngine({
    launch: {
      command: process.execPath,
      argv: ["-e", `const port = ${port}; ${script}`],
      env: { FROM_SPEC: "yes" },
      readyPath: "/ready",
      healthPath: "/health",
    },
    port,
    env: { PATH: process.env["PATH"] ?? "" },
    readyTimeoutMs: options.readyTimeoutMs ?? 20_000,
    signal: options.signal ?? new AbortController().signal,
    log,
  });
}

const serving = `
  const ready = Date.now() + 100;
  require("http").createServer((q, s) => {
    if (q.url === "/env") return s.end(JSON.stringify(process.env));
    s.statusCode = Date.now() < ready ? 503 : 200;
    s.end();
  }).listen(port, "127.0.0.1");
`;

test("an engine is handed over when its probe answers 200, and stops when asked", async () => {
  const running = await engine(serving);
  expect((await fetch(`${running.origin}/ready`)).status).toBe(200);
  await running.stop(5_000);
  expect(alive(running.pid)).toBe(false);
  expect(await running.exited).toContain("signal SIGTERM");
});

test("an engine gets the environment that it is given, and not the agent's", async () => {
  process.env["A_SECRET_OF_THE_AGENT"] = "x";
  const running = await engine(serving);
  const env = await (await fetch(`${running.origin}/env`)).text();
  await running.stop(5_000);
  delete process.env["A_SECRET_OF_THE_AGENT"];
  expect(env).toContain('"FROM_SPEC":"yes"');
  expect(env).not.toContain("A_SECRET_OF_THE_AGENT");
});

test("an engine that ends before it is ready is reported with its last words", async () => {
  await expect(
    engine(`console.error("out of memory: 80 GB needed, 24 GB free"); process.exit(3);`),
  ).rejects.toMatchObject({
    code: "engine_start_failed",
    message: expect.stringContaining("out of memory: 80 GB needed, 24 GB free (exit code 3)"),
  });
});

test("an engine that never becomes ready is stopped at the time-out", async () => {
  await using folder = await temporaryFolder();
  const file = `${folder.path}/pid`;
  const script = `require("fs").writeFileSync(${JSON.stringify(file)}, String(process.pid)); setInterval(() => {}, 1000);`;
  await expect(engine(script, { readyTimeoutMs: 1_500 })).rejects.toMatchObject({
    code: "engine_start_failed",
    message: expect.stringContaining("not ready after 1.5 s"),
  });
  expect(alive(Number(readFileSync(file, "utf8")))).toBe(false);
});

test("an engine that ignores SIGTERM is killed at the deadline", async () => {
  const running = await engine(`process.on("SIGTERM", () => {}); ${serving}`);
  await running.stop(300);
  expect(await running.exited).toContain("signal SIGKILL");
});

test("a program that does not exist is an error, not a crash", async () => {
  const started = startEngine({
    launch: { command: "/nowhere/engine", argv: [], env: {}, readyPath: "/", healthPath: "/" },
    port: await freePort(),
    env: {},
    readyTimeoutMs: 5_000,
    signal: new AbortController().signal,
    log,
  });
  await expect(started).rejects.toMatchObject({ message: expect.stringContaining("could not be started") });
});

test("a stop of the agent ends a start under way", async () => {
  const stopping = new AbortController();
  const started = engine("setInterval(() => {}, 1000)", { signal: stopping.signal });
  stopping.abort(new Error("stopping"));
  await expect(started).rejects.toThrow("stopping");
});
