import { once } from "node:events";
import { connect, createServer, type AddressInfo, type Socket } from "node:net";

/** A way to a server that counts what comes back, and that a test can cut. It passes bytes on, so TLS goes through. */
export interface Proxy extends AsyncDisposable {
  /** Where the server is reached through the proxy: its URL with the proxy's port. */
  readonly url: string;
  /** Bytes that the server sent, headers too. */
  readonly bytesReceived: number;
  /** Once the server has sent so many bytes more, every connection breaks, and so does each new one. */
  cutAfter(bytes: number): void;
  /** Connections hold again. */
  heal(): void;
}

/** Puts a proxy in front of the server at `target`, a URL with a port. */
export async function proxy(target: string): Promise<Proxy> {
  const to = new URL(target);
  const sockets = new Set<Socket>();
  let bytesReceived = 0;
  let limit = Infinity;
  const breakAll = () => {
    for (const socket of sockets) socket.destroy();
  };
  const server = createServer((near) => {
    if (bytesReceived >= limit) {
      near.destroy();
      return;
    }
    const far = connect(Number(to.port), to.hostname);
    for (const [socket, other] of [
      [near, far],
      [far, near],
    ] as const) {
      sockets.add(socket);
      socket.on("error", () => undefined);
      socket.on("close", () => {
        sockets.delete(socket);
        other.destroy();
      });
    }
    near.pipe(far);
    far.on("data", (chunk: Buffer) => {
      bytesReceived += chunk.length;
      if (bytesReceived >= limit) breakAll();
    });
    far.pipe(near);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo; // a TCP server that listens has one
  return {
    url: `${to.protocol}//127.0.0.1:${port}`,
    get bytesReceived() {
      return bytesReceived;
    },
    cutAfter: (bytes) => void (limit = bytesReceived + bytes),
    heal: () => void (limit = Infinity),
    async [Symbol.asyncDispose]() {
      breakAll();
      server.close();
      await once(server, "close");
    },
  };
}
