/**
 * The least that a proxy in Node can do: undici's `dispatch`, written to Node's own response. What the gateway's bench
 * compares with. `node test/bench/gateway-bare.ts <upstream url>` prints `{"url": ...}`.
 */
import { createServer, type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { buffer } from "node:stream/consumers";
import { Agent } from "undici";

const origin = process.argv[2] ?? "";
const agent = new Agent();

const server = createServer((incoming, outgoing) => void relay(incoming, outgoing));

async function relay(incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
  const { host: _, connection: __, ...headers } = incoming.headers;
  const body = await buffer(incoming);
  agent.dispatch(
    { origin, path: incoming.url ?? "/", method: "POST", headers, body },
    {
      onRequestStart: () => undefined,
      onResponseStart(_controller, status, received: IncomingHttpHeaders) {
        const { connection: _connection, "transfer-encoding": _encoding, "keep-alive": _alive, ...kept } = received;
        outgoing.writeHead(status, kept);
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

server.listen(0, "127.0.0.1", () => {
  const { port } = server.address() as AddressInfo; // a TCP server that listens has one
  process.stdout.write(`${JSON.stringify({ url: `http://127.0.0.1:${port}` })}\n`);
});
