import { connect, type Socket } from "node:net";
import { connect as connectTls, type ConnectionOptions, type TLSSocket } from "node:tls";

/** A TCP connection that sends exactly what it is told. */
export interface RawConnection<Kind extends Socket = Socket> extends Disposable {
  readonly socket: Kind;
  send(text: string | Buffer): void;
  /** All that came so far. */
  readonly received: string;
  /** All that came until the other side closed; `isReset` when it did so without saying goodbye. */
  readonly closed: Promise<{ readonly received: string; readonly isReset: boolean }>;
}

export async function rawConnection(port: number): Promise<RawConnection> {
  const socket = connect({ port, host: "127.0.0.1" });
  return watched(socket, "connect");
}

export async function rawTlsConnection(port: number, options: ConnectionOptions): Promise<RawConnection<TLSSocket>> {
  const socket = connectTls({ port, host: "127.0.0.1", servername: "localhost", ...options });
  return watched(socket, "secureConnect");
}

async function watched<Kind extends Socket>(socket: Kind, ready: string): Promise<RawConnection<Kind>> {
  const state = { received: "", isReset: false };
  socket.on("data", (chunk) => (state.received += chunk.toString("latin1")));
  const { promise: closed, resolve } = Promise.withResolvers<{ received: string; isReset: boolean }>();
  await new Promise<void>((opened, failed) => socket.once(ready, () => opened()).once("error", failed));
  // What is sent to a connection that the server gave up fails; that is what these tests look at.
  socket.on("error", () => (state.isReset = true));
  socket.on("close", () => resolve(state));
  return {
    socket,
    send: (text) => void socket.write(text),
    get received() {
      return state.received;
    },
    closed,
    [Symbol.dispose]: () => socket.destroy(),
  };
}

/** The status lines in what a server sent, in order. */
export function statusesIn(received: string): number[] {
  return [...received.matchAll(/HTTP\/1\.1 (\d{3}) /g)].map(([, status]) => Number(status));
}
