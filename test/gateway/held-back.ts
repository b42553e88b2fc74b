import { createServer, request, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { once } from "node:events";
import type { AddressInfo } from "node:net";

/** A way to an agent that keeps back what begins with `path` while a test wants it. */
export class HeldBack implements AsyncDisposable {
  isHolding = false;
  /** Such requests that came, and those that were passed on. */
  asked = 0;
  answered = 0;
  readonly #path: string;
  readonly #held: (() => void)[] = [];
  readonly #agentUrl: string;
  readonly #server: Server = createServer((incoming, outgoing) => this.#take(incoming, outgoing));

  constructor(agentUrl: string, path: string) {
    this.#agentUrl = agentUrl;
    this.#path = path;
  }

  async start(): Promise<string> {
    this.#server.listen(0, "127.0.0.1");
    await once(this.#server, "listening");
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`; // a TCP server that listens has one
  }

  release(): void {
    this.isHolding = false;
    for (const go of this.#held.splice(0)) go();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, "close");
  }

  #take(incoming: IncomingMessage, outgoing: ServerResponse): void {
    const counts = incoming.url?.startsWith(this.#path) === true;
    if (counts) this.asked += 1;
    const pass = (): void => {
      if (counts) this.answered += 1;
      const { method, headers, url } = incoming;
      const onward = request(this.#agentUrl + url, { method, headers }, (answer) => {
        outgoing.writeHead(answer.statusCode ?? 500, answer.headers);
        answer.pipe(outgoing);
      });
      onward.on("error", () => outgoing.destroy());
      incoming.pipe(onward);
    };
    if (counts && this.isHolding) this.#held.push(pass);
    else pass();
  }
}
