/**
 * Engines for the gateway's bench. `node test/bench/gateway-engine.ts <kind>` prints `{"url": ...}`.
 *
 *   delay   answers JSON after 200 to 600 ms and says in it how long it took, in ms
 *   stream  writes each stream an event every 10 ms
 *   idle    writes each stream one event, and leaves it open
 */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { streamEvent } from "./gateway-messages.ts";
import { heartbeat } from "./gateway-heartbeat.ts";

/** Between two events of a stream. */
const eventEveryMs = 10;

const kinds: Record<string, (outgoing: ServerResponse) => void> = { delay, stream, idle };
const answer = kinds[process.argv[2] ?? ""];
if (answer === undefined) throw new Error("name a kind: delay, stream or idle");

/** Streams by the millisecond in which they are due, so that not all are written at once. */
const due = Array.from({ length: eventEveryMs }, () => new Set<ServerResponse>());
let opened = 0;

const server = createServer((incoming: IncomingMessage, outgoing: ServerResponse) => {
  incoming.resume();
  incoming.once("end", () => {
    if (incoming.url === "/heartbeat") outgoing.end(heartbeat(urlOf()));
    else answer(outgoing);
  });
});
server.listen(0, "127.0.0.1", 8_192, () => process.stdout.write(`${JSON.stringify({ url: urlOf() })}\n`));

let ticks = 0;
const started = performance.now();
setInterval(() => {
  for (const now = performance.now() - started; ticks < now; ticks += 1) {
    for (const outgoing of due[ticks % eventEveryMs] ?? [])
      if (!outgoing.writableNeedDrain) outgoing.write(streamEvent);
  }
}, 1);

function urlOf(): string {
  const { port } = server.address() as AddressInfo; // a TCP server that listens has one
  return `http://127.0.0.1:${port}`;
}

function delay(outgoing: ServerResponse): void {
  const begun = performance.now();
  setTimeout(
    () => {
      outgoing.writeHead(200, { "content-type": "application/json" });
      outgoing.end(JSON.stringify({ tookMs: performance.now() - begun, usage: { prompt_tokens: 55_000 } }));
    },
    200 + Math.random() * 400,
  );
}

function stream(outgoing: ServerResponse): void {
  const group = due[(opened += 1) % eventEveryMs];
  idle(outgoing);
  group?.add(outgoing);
  outgoing.once("close", () => group?.delete(outgoing));
}

function idle(outgoing: ServerResponse): void {
  outgoing.writeHead(200, { "content-type": "text/event-stream" });
  outgoing.write(streamEvent);
}
