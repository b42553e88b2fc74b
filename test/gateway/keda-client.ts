import { Client, credentials, type ClientReadableStream, type ServiceError } from "@grpc/grpc-js";

/**
 * KEDA's side of its external scaler, written from the field numbers of KEDA's own .proto alone, so that a slip in ours
 * shows.
 */
export class KedaClient implements Disposable {
  readonly #client: Client;

  constructor(address: string) {
    this.#client = new Client(address, credentials.createInsecure());
  }

  async isActive(metadata: Readonly<Record<string, string>>): Promise<boolean> {
    return isActiveOf(await this.#call("IsActive", scaledObjectRef(metadata)));
  }

  /** `GetMetricSpecResponse { repeated MetricSpec metricSpecs = 1 }`, `MetricSpec { metricName = 1, targetSize = 2, targetSizeFloat = 3 }`. */
  async metricSpec(metadata: Readonly<Record<string, string>>): Promise<Metric> {
    return metricOf(await this.#call("GetMetricSpec", scaledObjectRef(metadata)));
  }

  /** `GetMetricsRequest { scaledObjectRef = 1, metricName = 2 }`; the answer is like that of `metricSpec`. */
  async metrics(metadata: Readonly<Record<string, string>>, name: string): Promise<Metric> {
    const request = Buffer.concat([bytesField(1, scaledObjectRef(metadata)), bytesField(2, Buffer.from(name))]);
    return metricOf(await this.#call("GetMetrics", request));
  }

  /** Each line of the stream goes to `onActive`; the answer ends it. */
  watch(metadata: Readonly<Record<string, string>>, onActive: (active: boolean) => void): () => void {
    const stream: ClientReadableStream<Buffer> = this.#client.makeServerStreamRequest(
      "/externalscaler.ExternalScaler/StreamIsActive",
      (bytes: Buffer) => bytes,
      (bytes: Buffer) => bytes,
      scaledObjectRef(metadata),
    );
    stream.on("data", (bytes: Buffer) => onActive(isActiveOf(bytes)));
    stream.on("error", () => undefined);
    return () => stream.cancel();
  }

  [Symbol.dispose](): void {
    this.#client.close();
  }

  async #call(method: string, request: Buffer): Promise<Buffer> {
    const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
    this.#client.makeUnaryRequest(
      `/externalscaler.ExternalScaler/${method}`,
      (bytes: Buffer) => bytes,
      (bytes: Buffer) => bytes,
      request,
      (error: ServiceError | null, answer?: Buffer) =>
        error === null && answer !== undefined ? resolve(answer) : reject(error ?? new Error("no answer")),
    );
    return await promise;
  }
}

/** A metric as KEDA reads it: the name, the whole number of old versions, and the float. */
export interface Metric {
  readonly name: string;
  readonly whole: number;
  readonly float: number;
}

/** `ScaledObjectRef { name = 1, namespace = 2, map<string, string> scalerMetadata = 3 }`. */
function scaledObjectRef(metadata: Readonly<Record<string, string>>): Buffer {
  const entries = Object.entries(metadata).map(([key, value]) =>
    bytesField(3, Buffer.concat([bytesField(1, Buffer.from(key)), bytesField(2, Buffer.from(value))])),
  );
  return Buffer.concat([bytesField(1, Buffer.from("chat")), bytesField(2, Buffer.from("penstock")), ...entries]);
}

/** A field of wire type 2. Lengths stay below 128 here, so they are one byte. */
function bytesField(field: number, bytes: Buffer): Buffer {
  if (bytes.length > 127) throw new Error("too long for a length of one byte");
  return Buffer.concat([Buffer.from([(field << 3) | 2, bytes.length]), bytes]);
}

/** `IsActiveResponse { bool result = 1 }`; false is left out. */
function isActiveOf(bytes: Buffer): boolean {
  return bytes.length === 2 && bytes[0] === 0x08 && bytes[1] === 1;
}

/** One metric inside field 1: string = 1, int64 = 2, double = 3. */
function metricOf(bytes: Buffer): Metric {
  if (bytes[0] !== 0x0a) throw new Error("the answer does not begin with field 1");
  let name = "";
  let whole = 0;
  let float = 0;
  let at = 2;
  while (at < bytes.length) {
    const tag = bytes.readUInt8(at);
    const value = bytes.readUInt8(at + 1);
    if (tag === 0x0a) {
      name = bytes.toString("utf8", at + 2, at + 2 + value);
      at += 2 + value;
    } else if (tag === 0x10) {
      whole = value;
      at += 2;
    } else if (tag === 0x19) {
      float = bytes.readDoubleLE(at + 1);
      at += 9;
    } else throw new Error(`unknown tag ${tag}`);
  }
  return { name, whole, float };
}
