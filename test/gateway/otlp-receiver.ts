import { createServer, type IncomingHttpHeaders } from "node:http";
import type { AddressInfo } from "node:net";
import { buffer } from "node:stream/consumers";

/** A span as the collector got it. */
export interface ReceivedSpan {
  readonly traceId: string;
  readonly spanId: string;
  /** Empty for a root. */
  readonly parentId: string;
  readonly traceState: string;
  readonly name: string;
  readonly kind: "internal" | "server" | "client";
  readonly attributes: Readonly<Record<string, unknown>>;
  readonly events: readonly { readonly name: string; readonly attributes: Readonly<Record<string, unknown>> }[];
  /** 0 unset, 1 fine, 2 error. */
  readonly status: number;
  readonly resource: Readonly<Record<string, unknown>>;
}

/** A collector that takes spans by OTLP over HTTP, in protobuf. */
export interface OtlpReceiver extends AsyncDisposable {
  /** `http://host:port`. */
  readonly url: string;
  readonly spans: ReceivedSpan[];
  readonly requests: { readonly path: string; readonly headers: IncomingHttpHeaders }[];
  /** Everything that came, as text: to look for what must not be in it. */
  raw(): string;
}

export async function startOtlpReceiver(): Promise<OtlpReceiver> {
  const spans: ReceivedSpan[] = [];
  const requests: OtlpReceiver["requests"] = [];
  const bodies: Buffer[] = [];
  const server = createServer((incoming, outgoing) => {
    void buffer(incoming).then((body) => {
      requests.push({ path: incoming.url ?? "", headers: incoming.headers });
      bodies.push(body);
      spans.push(...spansOf(body));
      return outgoing.writeHead(200, { "content-type": "application/x-protobuf" }).end();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo; // a TCP server that listens has one
  return {
    url: `http://127.0.0.1:${port}`,
    spans,
    requests,
    raw: () => Buffer.concat(bodies).toString("latin1"),
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}

/** Numbers of fields: opentelemetry/proto/trace/v1/trace.proto and common/v1/common.proto. */
function spansOf(request: Buffer): ReceivedSpan[] {
  return messages(request, 1).flatMap((resourceSpans) => {
    const resource = attributesOf(messages(resourceSpans, 1)[0] ?? Buffer.alloc(0), 1);
    return messages(resourceSpans, 2).flatMap((scopeSpans) =>
      messages(scopeSpans, 2).map((span) => {
        const fields = fieldsOf(span);
        const text = (field: number, encoding: "hex" | "utf8"): string => {
          const value = fields.find(([number]) => number === field)?.[1];
          return Buffer.isBuffer(value) ? value.toString(encoding) : "";
        };
        return {
          traceId: text(1, "hex"),
          spanId: text(2, "hex"),
          traceState: text(3, "utf8"),
          parentId: text(4, "hex"),
          name: text(5, "utf8"),
          kind: ([null, "internal", "server", "client"] as const)[numberOf(fields, 6)] ?? "internal",
          attributes: attributesOf(span, 9),
          events: messages(span, 11).map((event) => ({
            name: messages(event, 2)[0]?.toString("utf8") ?? "",
            attributes: attributesOf(event, 3),
          })),
          status: numberOf(fieldsOf(messages(span, 15)[0] ?? Buffer.alloc(0)), 3),
          resource,
        };
      }),
    );
  });
}

type Field = readonly [number: number, value: Buffer | number];

/** The wire format: https://protobuf.dev/programming-guides/encoding. */
function fieldsOf(bytes: Buffer): Field[] {
  const fields: Field[] = [];
  let at = 0;
  const varint = (): number => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = bytes[at++] ?? 0;
      value += (byte % 128) * scale;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const tag = varint();
    const [number, wire] = [Math.floor(tag / 8), tag % 8];
    if (wire === 0) fields.push([number, varint()]);
    else {
      const length = wire === 2 ? varint() : wire === 1 ? 8 : 4;
      fields.push([number, bytes.subarray(at, at + length)]);
      at += length;
    }
  }
  return fields;
}

function messages(bytes: Buffer, field: number): Buffer[] {
  return fieldsOf(bytes).flatMap(([number, value]) => (number === field && Buffer.isBuffer(value) ? [value] : []));
}

function numberOf(fields: readonly Field[], field: number): number {
  const value = fields.find(([number]) => number === field)?.[1];
  return typeof value === "number" ? value : 0;
}

function attributesOf(bytes: Buffer, field: number): Record<string, unknown> {
  return Object.fromEntries(
    messages(bytes, field).map((pair) => [
      messages(pair, 1)[0]?.toString("utf8") ?? "",
      valueOf(messages(pair, 2)[0] ?? Buffer.alloc(0)),
    ]),
  );
}

function valueOf(bytes: Buffer): unknown {
  const [kind, value] = fieldsOf(bytes)[0] ?? [0, 0];
  if (kind === 1 && Buffer.isBuffer(value)) return value.toString("utf8");
  if (kind === 2) return value === 1;
  if (kind === 4 && Buffer.isBuffer(value)) return value.readDoubleLE();
  return value;
}
