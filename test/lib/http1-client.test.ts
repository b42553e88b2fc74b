import { once } from "node:events";
import { createServer as createHttpServer } from "node:http";
import { createServer, type AddressInfo, type Server, type Socket } from "node:net";
import { PassThrough, Readable } from "node:stream";
import { errors } from "undici";
import { describe, expect, onTestFinished, test } from "vitest";
import { Http1Client } from "../../runtime/lib/http1/client.ts";
import type { AnswerControl, UpstreamRequest } from "../../runtime/lib/http1/connection.ts";

interface Answer {
  readonly status: number;
  readonly body: string;
  readonly control: AnswerControl;
}

/** A client, and a server that hands each connection to `onConnection`. */
async function pair(onConnection: (socket: Socket, count: number) => void, { idleTimeoutMs = 10_000 } = {}) {
  const sockets = new Set<Socket>();
  let connections = 0;
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => undefined);
    connections += 1;
    onConnection(socket, connections);
  });
  const origin = await listening(server);
  const client = new Http1Client({ connectTimeoutMs: 5_000, idleTimeoutMs });
  onTestFinished(() => {
    client.destroy();
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return { client, origin, server, connections: () => connections, ask: asker(client, origin) };
}

async function listening(server: Server): Promise<string> {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo; // a TCP server that listens has one
  return `http://127.0.0.1:${port}`;
}

interface Asked extends Partial<UpstreamRequest> {
  readonly onStart?: (control: AnswerControl) => void;
  readonly onData?: (control: AnswerControl, chunk: Buffer) => void;
}

/** Sends a request; resolves to the whole answer, or rejects with its error. */
function asker(client: Http1Client, origin: string) {
  return ({ onStart, onData, ...request }: Asked = {}): Promise<Answer> => {
    const { promise, resolve, reject } = Promise.withResolvers<Answer>();
    const chunks: Buffer[] = [];
    let status = 0;
    let control: AnswerControl | undefined;
    const all = {
      path: "/",
      method: "POST",
      headers: {},
      body: Buffer.from("hi"),
      headersTimeout: 5_000,
      bodyTimeout: 5_000,
    };
    client.dispatch(
      origin,
      { ...all, ...request },
      {
        onRequestStart: (given) => {
          control = given;
          onStart?.(given);
        },
        onResponseStart: (_, code) => void (status = code),
        onResponseData: (given, chunk) => {
          chunks.push(Buffer.from(chunk));
          onData?.(given, chunk);
        },
        onResponseEnd: () => {
          if (control !== undefined) resolve({ status, body: Buffer.concat(chunks).toString("latin1"), control });
        },
        onResponseError: (_, error) => reject(error),
      },
    );
    return promise;
  };
}

/** Answers each request of a connection, once its body (of two bytes) is there, with the next of `answers`. */
function scripted(...answers: string[]): (socket: Socket) => void {
  return (socket) => {
    let came = "";
    socket.on("data", (bytes) => {
      came += bytes.toString("latin1");
      if (!came.endsWith("\r\n\r\nhi")) return;
      came = "";
      const answer = answers.shift();
      if (answer !== undefined) socket.write(answer, "latin1");
    });
  };
}

const hello = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";

describe("a connection", () => {
  test("serves one request after the other", async () => {
    const { ask, connections } = await pair(scripted(hello, hello, hello));
    for (let at = 0; at < 3; at += 1) expect(await ask()).toMatchObject({ status: 200, body: "hello" });
    expect(connections()).toBe(1);
  });

  test("serves one request at a time", async () => {
    const { ask, connections } = await pair(scripted(hello, hello, hello, hello));
    await Promise.all([ask(), ask()]);
    expect(connections()).toBe(2);
    await Promise.all([ask(), ask()]);
    expect(connections()).toBe(2);
  });

  test.each([
    ["says so", "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello"],
    ["speaks HTTP/1.0", "HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello"],
    ["sends more than its answer", `${hello}${hello}`],
    ["closes idle connections at once", "HTTP/1.1 200 OK\r\nkeep-alive: timeout=1\r\ncontent-length: 5\r\n\r\nhello"],
  ])("is not used again when the server %s", async (_, answer) => {
    const { ask, connections } = await pair(scripted(answer, hello));
    expect((await ask()).body).toBe("hello");
    expect((await ask()).body).toBe("hello");
    expect(connections()).toBe(2);
  });

  test("whose end ends an answer is not used again", async () => {
    const { ask, connections } = await pair((socket) => {
      socket.once("data", () => socket.end("HTTP/1.1 200 OK\r\n\r\nall of it"));
    });
    expect((await ask()).body).toBe("all of it");
    expect((await ask()).body).toBe("all of it");
    expect(connections()).toBe(2);
  });

  test("that the server has closed meanwhile is replaced", async () => {
    const closed: Promise<unknown>[] = [];
    const { ask, connections } = await pair((socket) => {
      closed.push(once(socket, "close"));
      scripted(hello)(socket);
      socket.once("data", () => setTimeout(() => socket.end(), 20));
    });
    for (let at = 1; at <= 3; at += 1) {
      expect((await ask()).body).toBe("hello");
      await closed.at(-1);
      expect(connections()).toBe(at);
    }
  });

  test("on which the server speaks unasked is closed", async () => {
    const { ask, connections } = await pair((socket, count) => {
      scripted(hello)(socket);
      if (count === 1) socket.once("data", () => setTimeout(() => socket.write("HTTP/1.1 200 OK\r\n\r\n"), 20));
      if (count === 1) socket.once("close", () => (closed = true));
    });
    let closed = false;
    expect((await ask()).body).toBe("hello");
    await expect.poll(() => closed).toBe(true);
    expect((await ask()).body).toBe("hello");
    expect(connections()).toBe(2);
  });

  test("is closed when nobody needs it", async () => {
    let closed = false;
    const { ask } = await pair(
      (socket) => {
        scripted(hello)(socket);
        socket.once("close", () => (closed = true));
      },
      { idleTimeoutMs: 50 },
    );
    await ask();
    await expect.poll(() => closed).toBe(true);
  });
});

describe("a request fails", () => {
  test.each([
    ["before its answer", (socket: Socket) => void socket.end()],
    ["within its head", (socket: Socket) => void socket.end("HTTP/1.1 200 OK\r\nconte")],
    ["within its body", (socket: Socket) => void socket.end("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello")],
    [
      "within its chunks",
      (socket: Socket) => void socket.end("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n"),
    ],
    ["by a reset", (socket: Socket) => socket.resetAndDestroy()],
  ])("when the server closes %s", async (_, close) => {
    const { ask } = await pair((socket) => socket.once("data", () => close(socket)));
    await expect(ask()).rejects.toThrow(/closed|ECONNRESET/);
  });

  test("when nobody listens", async () => {
    const { ask, server } = await pair(() => undefined);
    server.close();
    await once(server, "close");
    await expect(ask()).rejects.toThrow("ECONNREFUSED");
  });

  test("when the answer is not one, and its connection is closed", async () => {
    let closed = false;
    const { ask } = await pair((socket) => {
      scripted("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n")(socket);
      socket.once("close", () => (closed = true));
    });
    await expect(ask()).rejects.toThrow("both transfer-encoding and content-length");
    await expect.poll(() => closed).toBe(true);
  });

  test("when it cannot be written", async () => {
    const { ask } = await pair(() => undefined);
    await expect(ask({ headers: { a: "b\nc: d" } })).rejects.toThrow(TypeError);
  });

  test("when no answer comes in time", async () => {
    const { ask } = await pair(() => undefined);
    await expect(ask({ headersTimeout: 50 })).rejects.toBeInstanceOf(errors.HeadersTimeoutError);
  });

  test("when its body stops for too long, not when it only takes long", async () => {
    const { ask } = await pair((socket) => {
      socket.once("data", () => socket.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"));
      let left = 8;
      const timer = setInterval(() => {
        if (left === 0) clearInterval(timer);
        else socket.write("1\r\nx\r\n");
        left -= 1;
      }, 50);
    });
    let came = 0;
    const asked = ask({ bodyTimeout: 250, onData: () => (came += 1) });
    await expect(asked).rejects.toBeInstanceOf(errors.BodyTimeoutError);
    expect(came).toBe(8);
  });

  test("when the client is destroyed", async () => {
    const { ask, client } = await pair(() => undefined);
    const asked = ask();
    client.destroy();
    await expect(asked).rejects.toBeInstanceOf(errors.ClientDestroyedError);
  });
});

describe("who gets an answer", () => {
  test.each<[string, Asked]>([
    ["before it is sent", { onStart: (control) => control.abort(new Error("enough")) }],
    ["while it waits", { onStart: (control) => void setTimeout(() => control.abort(new Error("enough")), 30) }],
    ["within its body", { onData: (control) => control.abort(new Error("enough")) }],
  ])("may give it up %s", async (_, asked) => {
    const { ask } = await pair((socket) => {
      socket.once("data", () =>
        setTimeout(() => socket.write("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello"), 60),
      );
    });
    await expect(ask(asked)).rejects.toThrow("enough");
  });

  test("has no power over the next one", async () => {
    const { ask, connections } = await pair((socket) => {
      scripted(hello)(socket);
      socket.once("data", () => socket.once("data", () => setTimeout(() => socket.write(hello), 30)));
    });
    const { control } = await ask();
    const next = ask();
    control.pause();
    control.abort(new Error("late"));
    control.resume();
    expect((await next).body).toBe("hello");
    expect(connections()).toBe(1);
  });

  test("may let it wait: nothing is lost, nothing comes, and no time runs", async () => {
    const part = "x".repeat(99_000);
    const body = `${part.length.toString(16)}\r\n${part}\r\n`.repeat(50);
    const { ask } = await pair((socket) => {
      socket.once("data", () => socket.write(`HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n${body}0\r\n\r\n`));
    });
    let waits = 0;
    let isPaused = false;
    const answer = await ask({
      bodyTimeout: 100,
      onData(control) {
        expect(isPaused).toBe(false);
        waits += 1;
        if (waits > 3) return;
        isPaused = true;
        control.pause();
        setTimeout(() => {
          isPaused = false;
          control.resume();
        }, 250);
      },
    });
    expect(answer.body).toBe(part.repeat(50));
    expect(waits).toBeGreaterThan(3);
  });
});

describe("a body that streams", () => {
  /** A server that answers each upload with what it read of it. */
  async function echo() {
    const server = createHttpServer((incoming, outgoing) => {
      const { "content-length": length, "transfer-encoding": encoding } = incoming.headers;
      let bytes = 0;
      incoming.on("data", (chunk: Buffer) => (bytes += chunk.length));
      incoming.on("end", () => outgoing.end(`${length ?? encoding} ${bytes}`));
      incoming.on("error", () => undefined);
    });
    const origin = await listening(server);
    const client = new Http1Client({ connectTimeoutMs: 5_000, idleTimeoutMs: 5_000 });
    onTestFinished(() => {
      client.destroy();
      server.close();
    });
    return asker(client, origin);
  }
  const mebibyte = Buffer.alloc(2 ** 20, "x");
  const five = () => Readable.from([mebibyte, mebibyte, mebibyte, mebibyte, mebibyte]);

  test("is sent with its length, or in chunks", async () => {
    const ask = await echo();
    const headers = { "content-length": String(5 * mebibyte.length) };
    expect((await ask({ body: five(), headers })).body).toBe(`5242880 5242880`);
    expect((await ask({ body: five() })).body).toBe("chunked 5242880");
    expect((await ask({ body: Readable.from([]) })).body).toBe("chunked 0");
    expect((await ask({ body: null })).body).toBe("0 0");
  });

  test.each([
    ["shorter", 5 * mebibyte.length + 1],
    ["longer", 5 * mebibyte.length - 1],
  ])("fails when it is %s than it says", async (_, length) => {
    const ask = await echo();
    const asked = ask({ body: five(), headers: { "content-length": String(length) } });
    await expect(asked).rejects.toBeInstanceOf(errors.RequestContentLengthMismatchError);
  });

  test("fails as its source does", async () => {
    const ask = await echo();
    const body = new PassThrough();
    body.write("x");
    setTimeout(() => body.destroy(new Error("the source is gone")), 20);
    await expect(ask({ body })).rejects.toThrow("the source is gone");
    const closed = new PassThrough();
    setTimeout(() => closed.destroy(), 20);
    await expect(ask({ body: closed })).rejects.toThrow("closed before its end");
  });

  test("is read no faster than it is taken", async () => {
    let read = 0;
    const { ask } = await pair((socket) => {
      socket.once("data", () => {
        socket.pause();
        setTimeout(() => socket.resume().write(hello), 200);
      });
    });
    const endless = Readable.from(
      (function* () {
        for (;;) {
          read += 1;
          yield mebibyte;
        }
      })(),
    );
    expect((await ask({ body: endless })).body).toBe("hello");
    // What sockets and streams hold; a client that does not wait reads thousands.
    expect(read).toBeLessThan(100);
    expect(endless.destroyed).toBe(true);
  });

  test("whose answer comes early leaves a connection that is not used again", async () => {
    const { ask, connections } = await pair((socket) => {
      socket.once("data", () => socket.write("HTTP/1.1 413 -\r\ncontent-length: 0\r\n\r\n"));
    });
    const body = new PassThrough();
    body.write("x");
    expect((await ask({ body })).status).toBe(413);
    expect(body.destroyed).toBe(true);
    expect((await ask()).status).toBe(413);
    expect(connections()).toBe(2);
  });
});

test("answers are never mixed up, whatever connections and clients do", async () => {
  const server = createHttpServer((incoming, outgoing) => {
    const wish = Number(incoming.url?.slice(1)) % 7;
    incoming.resume().on("end", () => {
      if (wish === 0) {
        incoming.socket.destroy();
        return;
      }
      const said = `${incoming.url} `.repeat(wish === 1 ? 20_000 : 1);
      if (wish === 2) outgoing.setHeader("connection", "close");
      if (wish % 2 === 1) outgoing.write(said);
      else outgoing.setHeader("content-length", said.length);
      const end = (): void => void (wish % 2 === 1 ? outgoing.end() : outgoing.end(said));
      if (wish > 3) setTimeout(end, wish);
      else end();
    });
  });
  const origin = await listening(server);
  const client = new Http1Client({ connectTimeoutMs: 5_000, idleTimeoutMs: 5_000 });
  onTestFinished(() => {
    client.destroy();
    server.close();
  });
  const ask = asker(client, origin);
  const mixedUp: string[] = [];
  let [whole, failed, next] = [0, 0, 0];
  const visitor = async (): Promise<void> => {
    while (next < 1_500) {
      const path = `/${(next += 1)}`;
      const onStart = (control: AnswerControl): void => {
        if (next % 5 === 0) setTimeout(() => control.abort(new Error("left")), next % 4);
      };
      const onData = (control: AnswerControl): void => {
        if (next % 3 !== 0) return;
        control.pause();
        setImmediate(() => control.resume());
      };
      const answer = await ask({ path, onStart, onData }).catch(() => null);
      if (answer === null) failed += 1;
      else whole += 1;
      for (const said of answer?.body.trim().split(" ") ?? []) if (said !== path) mixedUp.push(`${path}: ${said}`);
    }
  };
  await Promise.all(Array.from({ length: 16 }, visitor));
  expect(mixedUp).toEqual([]);
  expect(whole).toBeGreaterThan(800);
  expect(failed).toBeGreaterThan(200);
});
