import { once } from "node:events";
import { request, type ClientRequest, type IncomingMessage } from "node:http";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { expect, test } from "vitest";
import { z } from "zod";
import { startFakeAgent } from "../fakes/agent.ts";
import { temporaryFolder } from "../support/folders.ts";
import { startProgram } from "../support/program.ts";
import { skipped } from "../support/servers/tools.ts";

const key = "the-key-of-the-crowd";

/** Sockets that a process may have: two for each stream in the gateway, and two in this process, which is both ends. */
const openFiles = z
  .object({ userLimits: z.object({ open_files: z.object({ hard: z.union([z.number(), z.string()]) }) }) })
  .parse(process.report.getReport()).userLimits.open_files.hard;
const room = openFiles === "unlimited" ? 10_000 : Math.floor((Number(openFiles) - 1_000) / 2);
const crowd = Math.min(10_000, room);

/** A gateway as an operator runs it, before an engine whose streams begin at once and end when the test says so. */
async function gatewayWithStreams() {
  const stack = new AsyncDisposableStack();
  const folder = stack.use(await temporaryFolder());
  const { promise: released, resolve: release } = Promise.withResolvers<void>();
  const agent = stack.use(
    await startFakeAgent({
      async onInfer(_, outgoing) {
        outgoing.writeHead(200, { "content-type": "text/event-stream" }).write('data: {"n":1}\n\n');
        await released;
        outgoing.end('data: {"n":2}\n\ndata: [DONE]\n\n');
      },
    }),
  );
  const path = join(folder.path, "gateway.yaml");
  const config = {
    port: 0,
    fleets: [{ name: "f", agents: { kind: "static", urls: [agent.url] } }],
    models: [{ id: "m", source: "file:///m.gguf", fleet: "f", engine: { kind: "embedded" } }],
    stores: { directory: join(folder.path, "stores") },
  };
  await writeFile(path, JSON.stringify(config));
  const gateway = stack.use(
    await startProgram("gateway", {
      args: ["--config", path],
      env: { PENSTOCK_AGENT_TOKEN: agent.token, PENSTOCK_API_KEY: key },
    }),
  );
  return { gateway, release, [Symbol.asyncDispose]: () => stack.disposeAsync() };
}

function ask(url: string): ClientRequest {
  const headers = { authorization: `Bearer ${key}`, "content-type": "application/json" };
  const asked = request(`${url}/v1/chat/completions`, { method: "POST", agent: false, headers });
  asked.end(JSON.stringify({ model: "m", stream: true, messages: [{ role: "user", content: "hi" }] }));
  return asked;
}

/** Opens so many streams, a few at a time as a listener's backlog takes them, and waits until each has its headers. */
async function openStreams(url: string, count: number): Promise<IncomingMessage[]> {
  const streams: IncomingMessage[] = [];
  while (streams.length < count) {
    const batch = Array.from({ length: Math.min(200, count - streams.length) }, () => once(ask(url), "response"));
    for (const [response] of await Promise.all(batch)) streams.push(response as IncomingMessage); // what `response` tells
  }
  return streams;
}

/** Reads all streams to their ends. Those that were cut, or were no streams, are missing what a whole one has. */
async function endsOf(streams: readonly IncomingMessage[]): Promise<ReadonlySet<string>> {
  return new Set(await Promise.all(streams.map((each) => text(each).catch((error: unknown) => String(error)))));
}

const whole = new Set(['data: {"n":1}\n\ndata: {"n":2}\n\ndata: [DONE]\n\n']);

test("SIGTERM with 500 open streams cuts none of them, and takes nothing new", async () => {
  await using under = await gatewayWithStreams();
  const streams = await openStreams(under.gateway.url, 500);
  under.gateway.kill("SIGTERM");
  await expect.poll(() => under.gateway.output()).toContain("draining");
  const late = await once(ask(under.gateway.url), "response").then(
    ([response]) => (response as IncomingMessage).statusCode,
    (error: NodeJS.ErrnoException) => error.code,
  );
  expect([503, "ECONNREFUSED", "ECONNRESET"]).toContain(late);
  under.release();
  expect(await endsOf(streams)).toEqual(whole);
  expect(await under.gateway.exited).toBe(0);
});

// Fewer would say nothing of a crowd.
const reason =
  crowd < 9_000 ? skipped(`only ${openFiles} open files`, "raise the limit with ulimit -Hn 21000") : undefined;

test.skipIf(reason !== undefined)(`${crowd} streams at once all end whole`, { timeout: 180_000 }, async () => {
  await using under = await gatewayWithStreams();
  const streams = await openStreams(under.gateway.url, crowd);
  expect(new Set(streams.map(({ statusCode }) => statusCode))).toEqual(new Set([200]));
  under.release();
  expect(await endsOf(streams)).toEqual(whole);
});
