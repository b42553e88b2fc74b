import type { Server } from "node:http";
import { isIP, type Socket } from "node:net";

/** How a listener behind a TCP load balancer learns who its clients are. */
export interface ProxyProtocol {
  /** Whether a peer is a load balancer of ours. Connections of others are closed: they could claim any address. */
  readonly trusts: (address: string) => boolean;
  /** For the header to come, which is the first thing that a load balancer sends. */
  readonly timeoutMs: number;
}

/** What the first bytes of a connection say. `address` is absent when the load balancer speaks for itself. */
export type ProxyHeader =
  | { readonly kind: "incomplete" }
  | { readonly kind: "invalid" }
  | { readonly kind: "complete"; readonly length: number; readonly address: string | undefined };

/** The header's form: https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt, sections 2.1 and 2.2. */
const signature = Buffer.from("\r\n\r\n\0\r\nQUIT\n", "latin1");
const maxTextBytes = 107;
const maxBinaryBytes = 4_096;
const textForm = /^PROXY (?:TCP[46] (\S+) \S+ \d{1,5} \d{1,5}|UNKNOWN(?: .*)?)$/;

const addresses = new WeakMap<Socket, string>();

/** Where a connection comes from: as its PROXY header says, or the other end of the socket. */
export function peerAddress(socket: Socket): string | undefined {
  return addresses.get(socket) ?? socket.remoteAddress;
}

/** Makes `server`, which must have its listeners, read a PROXY header (version 1 or 2) before anything else. */
export function expectProxyHeaders(server: Server, { trusts, timeoutMs }: ProxyProtocol): void {
  const accept = server.listeners("connection");
  server.removeAllListeners("connection");
  /** By the other end: a TLS socket does not name the socket that it was made of. */
  const known = new Map<string, string>();
  server.on("connection", (socket: Socket) => {
    const end = otherEnd(socket);
    socket.once("close", () => known.delete(end));
    if (!trusts(socket.remoteAddress ?? "")) {
      socket.destroy();
      return;
    }
    readHeader(socket, timeoutMs, (address) => {
      if (address !== undefined) known.set(end, address);
      remember(socket, address);
      for (const listener of accept) Reflect.apply(listener, server, [socket]);
    });
  });
  server.on("secureConnection", (socket: Socket) => remember(socket, known.get(otherEnd(socket))));
}

/** Reads a header at the start of `bytes`. */
export function parseProxyHeader(bytes: Buffer): ProxyHeader {
  const start = Math.min(bytes.length, signature.length);
  if (bytes.subarray(0, start).equals(signature.subarray(0, start))) return parseBinary(bytes);
  const end = bytes.subarray(0, maxTextBytes).indexOf("\r\n");
  if (end === -1) {
    const isPrefix = "PROXY ".startsWith(bytes.toString("latin1", 0, 6));
    return { kind: isPrefix && bytes.length < maxTextBytes ? "incomplete" : "invalid" };
  }
  const match = textForm.exec(bytes.toString("latin1", 0, end));
  if (match === null || (match[1] !== undefined && isIP(match[1]) === 0)) return { kind: "invalid" };
  return { kind: "complete", length: end + 2, address: match[1] };
}

function parseBinary(bytes: Buffer): ProxyHeader {
  const headBytes = 16;
  if (bytes.length < headBytes) return { kind: "incomplete" };
  const [command, family] = [bytes.readUInt8(12), bytes.readUInt8(13)];
  const length = headBytes + bytes.readUInt16BE(14);
  if ((command !== 0x20 && command !== 0x21) || length > maxBinaryBytes) return { kind: "invalid" };
  if (bytes.length < length) return { kind: "incomplete" };
  const body = bytes.subarray(headBytes, length);
  const isLocal = command === 0x20;
  if (isLocal || family === 0) return { kind: "complete", length, address: undefined };
  if (family === 0x11 && body.length >= 12) return { kind: "complete", length, address: body.subarray(0, 4).join(".") };
  if (family === 0x21 && body.length >= 36)
    return { kind: "complete", length, address: ipv6Text(body.subarray(0, 16)) };
  return { kind: "invalid" };
}

function ipv6Text(bytes: Buffer): string {
  return Array.from({ length: 8 }, (_, group) => bytes.readUInt16BE(group * 2).toString(16)).join(":");
}

function readHeader(socket: Socket, timeoutMs: number, done: (address: string | undefined) => void): void {
  let bytes = Buffer.alloc(0);
  const timer = setTimeout(() => socket.destroy(), timeoutMs);
  const drop = (): void => void socket.destroy();
  const stop = (): void => {
    clearTimeout(timer);
    socket.off("readable", read).off("error", drop).off("close", stop).off("end", drop);
  };
  const read = (): void => {
    for (let chunk: unknown = socket.read(); chunk !== null; chunk = socket.read()) {
      // A socket without encoding reads buffers.
      bytes = Buffer.concat([bytes, chunk as Buffer]);
    }
    const header = parseProxyHeader(bytes);
    if (header.kind === "incomplete") return;
    stop();
    if (header.kind === "invalid") return drop();
    socket.unshift(bytes.subarray(header.length));
    done(header.address);
  };
  socket.on("readable", read).on("error", drop).on("close", stop).on("end", drop);
}

function remember(socket: Socket, address: string | undefined): void {
  if (address !== undefined) addresses.set(socket, address);
}

function otherEnd({ remoteAddress, remotePort }: Socket): string {
  return `${remoteAddress ?? ""} ${remotePort ?? 0}`;
}
