import { expect, test } from "vitest";
import { temporaryFolder } from "../support/folders.ts";
import { stackFile, startPenstock, type RunningStart } from "../support/penstock.ts";
import { alive, demoModel } from "../support/repository.ts";

/** One token that always wins: only `max_tokens` or leaving ends such a stream. */
const endless = { max_tokens: 450, logit_bias: { "300": 100 } } as const;
const hello = [{ role: "user", content: "Tell me a story." }] as const;

/** A stream that has begun and would go on until the context is full. */
async function openStream(penstock: RunningStart, model = "penstock-demo"): Promise<Response> {
  const response = await fetch(`${penstock.url}/v1/chat/completions`, {
    method: "POST",
    headers: { authorization: `Bearer ${penstock.key}`, "content-type": "application/json" },
    body: JSON.stringify({ model, messages: hello, stream: true, ...endless }),
  });
  expect(response.status).toBe(200);
  return response;
}

test("a model is REMOTE until the first request, which is held while it loads", async () => {
  await using folder = await temporaryFolder();
  await using penstock = await startPenstock({ args: ["--stack", await stackFile(folder.path, {})] });
  expect(await penstock.client.models.retrieve("demo")).toMatchObject({ penstock: { tier: "REMOTE" } });
  const answer = await penstock.client.chat.completions.create({ model: "demo", messages: [...hello], max_tokens: 5 });
  expect(answer.usage?.completion_tokens).toBeGreaterThan(0);
  expect(await penstock.client.models.retrieve("demo")).toMatchObject({
    penstock: { tier: "GPU_RESIDENT", state: "READY" },
  });
});

test("an engine killed in a stream ends it with an SSE error, and the next request succeeds", async () => {
  await using penstock = await startPenstock();
  await expect.poll(async () => (await penstock.pids()).engine).toBeGreaterThan(0);
  const { engine } = await penstock.pids();
  const response = await openStream(penstock);
  process.kill(engine, "SIGKILL");
  const body = await response.text();
  expect(body).toMatch(/event: error\ndata: \{"error":\{.*"code":"engine_died"/);
  expect(body).not.toContain("[DONE]");
  const next = await penstock.client.chat.completions.create({
    model: "penstock-demo",
    messages: [...hello],
    max_tokens: 5,
  });
  expect(next.usage?.completion_tokens).toBeGreaterThan(0);
});

test("Ctrl-C lets a stream end and leaves no process behind", async () => {
  await using penstock = await startPenstock();
  await expect.poll(async () => (await penstock.pids()).engine).toBeGreaterThan(0);
  const { main, engine } = await penstock.pids();
  const response = await openStream(penstock);
  penstock.interrupt();
  expect(await response.text()).toContain("data: [DONE]");
  await penstock.exited;
  expect({ main: alive(main), engine: alive(engine) }).toEqual({ main: false, engine: false });
});

test("a second Ctrl-C exits at once, and the engine goes with it", async () => {
  await using penstock = await startPenstock();
  await expect.poll(async () => (await penstock.pids()).engine).toBeGreaterThan(0);
  const { main, engine } = await penstock.pids();
  // A client that stops reading holds the drain open, so only the second interrupt can end it.
  const response = await openStream(penstock);
  const held = await holdOpen(penstock);
  penstock.interrupt();
  await expect.poll(() => refuses(penstock.url)).toBe(true);
  await new Promise((resolve) => setTimeout(resolve, 400)); // longer than what counts as one Ctrl-C
  penstock.interrupt();
  await penstock.exited;
  await expect.poll(() => alive(main) || alive(engine)).toBe(false);
  held.destroy();
  await response.text().catch(() => "cut");
});

test("an engine does not outlive its agent, even when that is killed", async () => {
  await using penstock = await startPenstock();
  await expect.poll(async () => (await penstock.pids()).engine).toBeGreaterThan(0);
  const { main, engine } = await penstock.pids();
  process.kill(main, "SIGKILL");
  await penstock.exited;
  await expect.poll(() => alive(engine)).toBe(false);
});

test("a SIGTERM to npm alone stops everything behind it", async () => {
  await using penstock = await startPenstock();
  await expect.poll(async () => (await penstock.pids()).engine).toBeGreaterThan(0);
  const { main, engine } = await penstock.pids();
  process.kill(penstock.npm, "SIGTERM");
  await expect.poll(() => alive(main) || alive(engine)).toBe(false);
});

test("--model serves another file under its own name", async () => {
  await using folder = await temporaryFolder();
  const { copyFile } = await import("node:fs/promises");
  await copyFile(demoModel, `${folder.path}/Other-Model.Q8_0.gguf`);
  await using penstock = await startPenstock({ args: ["--model", `${folder.path}/Other-Model.Q8_0.gguf`] });
  expect(penstock.banner).toContain("Penstock serves Other-Model.Q8_0");
  const answer = await penstock.client.chat.completions.create({
    model: "Other-Model.Q8_0",
    messages: [...hello],
    max_tokens: 3,
  });
  expect(answer.model).toBe("Other-Model.Q8_0");
});

/** A request that never ends: its body is promised and not sent. */
async function holdOpen(penstock: RunningStart) {
  const { connect } = await import("node:net");
  const { hostname, port } = new URL(penstock.url);
  const socket = connect(Number(port), hostname);
  socket.on("error", () => undefined);
  socket.write(
    `POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${penstock.key}\r\ncontent-length: 99\r\n\r\n{`,
  );
  await expect.poll(() => socket.bytesWritten).toBeGreaterThan(0);
  return socket;
}

async function refuses(url: string): Promise<boolean> {
  return fetch(`${url}/health`).then(
    () => false,
    () => true,
  );
}
