/**
 * The least that a proxy in Node can do: undici's `dispatch`, written to Node's own response; and, without an upstream, the
 * least that a server can. What the gateway's bench compares with. `node test/bench/gateway-bare.ts [upstream url]` prints
 * `{"url": ...}`.
 */
import { createServer, type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { Agent } from "undici";
import { answer } from "./gateway-messages.ts";

const origin = process.argv[2];
const agent = new Agent({ keepAliveTimeout: 30_000 });

const server = createServer((incoming, outgoing) => {
  // From events: an iterator costs 5 µs a request, and `stream/consumers` 30.
  const chunks: Buffer[] = [];
  incoming.on("data", (chunk: Buffer) => chunks.push(chunk));
  incoming.once("end", () => {
    if (origin !== undefined) relay(origin, { incoming, outgoing, body: Buffer.concat(chunks) });
    else outgoing.writeHead(200, ["content-type", "application/json", "content-length", answer.length]).end(answer);
  });
});

interface Exchange {
  readonly incoming: IncomingMessage;
  readonly outgoing: ServerResponse;
  readonly body: Buffer;
}

function relay(upstream: string, { incoming, outgoing, body }: Exchange): void {
  agent.dispatch(
    {
      origin: upstream,
      path: incoming.url ?? "/",
      method: "POST",
      headers: without(incoming.headers, ["host", "connection"]),
      body,
    },
    {
      onRequestStart: () => undefined,
      onResponseStart(_controller, status, headers: IncomingHttpHeaders) {
        outgoing.writeHead(status, without(headers, ["connection", "keep-alive", "transfer-encoding"]));
      },
      onResponseData(controller, chunk) {
        if (outgoing.write(chunk)) return;
        controller.pause();
        outgoing.once("drain", () => controller.resume());
      },
      onResponseEnd: () => void outgoing.end(),
      onResponseError: () => void outgoing.destroy(),
    },
  );
}

/** Headers as a list of names and values, which both sides take as it is. */
function without(headers: IncomingHttpHeaders, names: readonly string[]): string[] {
  const kept: string[] = [];
  for (const name in headers) if (!names.includes(name)) kept.push(name, String(headers[name]));
  return kept;
}

server.listen(0, "127.0.0.1", () => {
  const { port } = server.address() as AddressInfo; // a TCP server that listens has one
  process.stdout.write(`${JSON.stringify({ url: `http://127.0.0.1:${port}` })}\n`);
});
