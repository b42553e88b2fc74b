import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { text } from "node:stream/consumers";

/** One request, as a test sees it afterwards. */
export interface SeenRequest {
  readonly method: string;
  readonly path: string;
  readonly headers: IncomingMessage["headers"];
  readonly body: string;
  /** What was answered; 0 for nothing. */
  readonly status: number;
}

/** An event in Azure's list. */
export interface AzureEvent {
  readonly EventId: string;
  readonly EventType: string;
  readonly ResourceType: string;
  readonly Resources: readonly string[];
  readonly EventStatus: string;
  readonly NotBefore: string;
  readonly Description: string;
  readonly EventSource: string;
  readonly DurationInSeconds: number;
}

interface Answer {
  readonly status: number;
  readonly body?: string;
}

/** Headers that only an intermediary or a leak would send: both clouds refuse what was forwarded. */
const unwanted = ["x-forwarded-for", "authorization", "cookie", "proxy-authorization"];

/** An instance metadata service on a real socket, as strict about tokens and headers as the real ones. */
abstract class InstanceMetadata implements AsyncDisposable {
  readonly requests: SeenRequest[] = [];
  /** Answers instead of the service, for paths that begin with the key. */
  readonly overrides = new Map<string, Answer | "hang">();
  #server: Server | null = null;
  #port = 0;

  /** Listens, on the same port as before when it was down. */
  async up(): Promise<this> {
    this.#server = createServer((incoming, outgoing) => void this.#handle(incoming, outgoing));
    this.#server.listen(this.#port, "127.0.0.1");
    await once(this.#server, "listening");
    this.#port = (this.#server.address() as AddressInfo).port; // a TCP server that listens has one
    return this;
  }

  /** Breaks its connections and refuses new ones. */
  async down(): Promise<void> {
    const server = this.#server;
    if (server === null) return;
    this.#server = null;
    server.close();
    server.closeAllConnections();
    await once(server, "close");
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  /** Requests to paths that begin with `path`. */
  to(path: string, method = "GET"): SeenRequest[] {
    return this.requests.filter((seen) => seen.path.startsWith(path) && seen.method === method);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.down();
  }

  protected abstract answer(url: URL, request: Omit<SeenRequest, "status">): Answer;

  async #handle(incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
    const path = incoming.url ?? "/";
    const seen = { method: incoming.method ?? "", path, headers: incoming.headers, body: await text(incoming) };
    const override = [...this.overrides].find(([prefix]) => path.startsWith(prefix))?.[1];
    if (override === "hang") {
      this.requests.push({ ...seen, status: 0 });
      return;
    }
    const refused = unwanted.some((name) => incoming.headers[name] !== undefined);
    const { status, body } = override ?? (refused ? { status: 403 } : this.answer(new URL(path, this.url), seen));
    this.requests.push({ ...seen, status });
    outgoing.writeHead(status).end(body);
  }
}

/** EC2's: IMDSv2 only, as with `HttpTokens=required`. */
export class AwsMetadata extends InstanceMetadata {
  /** What there is to read; other paths answer 404, as do notices that there are none of. */
  readonly documents = new Map<string, string>();
  readonly #tokens = new Set<string>();

  /** Ends the life of every token. */
  expireTokens(): void {
    this.#tokens.clear();
  }

  protected override answer({ pathname }: URL, { method, headers }: Omit<SeenRequest, "status">): Answer {
    if (pathname === "/latest/api/token") {
      if (method !== "PUT") return { status: 405 };
      const seconds = Number(headers["x-aws-ec2-metadata-token-ttl-seconds"]);
      if (!(Number.isInteger(seconds) && seconds >= 1 && seconds <= 21_600)) return { status: 400 };
      const token = randomBytes(42).toString("base64");
      this.#tokens.add(token);
      return { status: 200, body: token };
    }
    if (method !== "GET") return { status: 405 };
    if (!this.#tokens.has(String(headers["x-aws-ec2-metadata-token"]))) return { status: 401 };
    const body = this.documents.get(pathname);
    return body === undefined ? { status: 404, body: "<h1>404 - Not Found</h1>" } : { status: 200, body };
  }
}

/** Azure's: the `Metadata` header and an API version on every request. */
export class AzureMetadata extends InstanceMetadata {
  name = "aks-gpu-35419134-vmss_1";
  events: AzureEvent[] = [];

  protected override answer({ pathname, searchParams }: URL, request: Omit<SeenRequest, "status">): Answer {
    const wrong = (error: string): Answer => ({ status: 400, body: JSON.stringify({ error }) });
    if (request.headers["metadata"] !== "true") return wrong("Bad request. Required metadata header not specified");
    if (!/^\d{4}-\d{2}-\d{2}$/.test(searchParams.get("api-version") ?? "")) return wrong("Bad request: api-version");
    if (pathname === "/metadata/instance/compute") {
      const body = { name: this.name, vmScaleSetName: "aks-gpu-35419134-vmss", vmId: "02aab8a4", location: "westus3" };
      return { status: 200, body: JSON.stringify(body) };
    }
    if (pathname !== "/metadata/scheduledevents") return { status: 404 };
    if (request.method === "POST") return this.#start(request.body) ? { status: 200 } : wrong("StartRequests");
    return { status: 200, body: JSON.stringify({ DocumentIncarnation: 1, Events: this.events }) };
  }

  /** Starts the events of a well-formed request. */
  #start(body: string): boolean {
    const ids = /^\{"StartRequests":\[(\{"EventId":"[\w-]+"\},?)+\]\}$/.test(body) ? body.match(/[\w-]{8,}/g) : null;
    const started = this.events.filter(({ EventId }) => ids?.includes(EventId) === true);
    this.events = this.events.map((event) =>
      started.includes(event) ? { ...event, EventStatus: "Started", NotBefore: "" } : event,
    );
    return started.length > 0;
  }
}
