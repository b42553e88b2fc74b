import { mkdir, rename, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { Hono } from "hono";
import { pino } from "pino";
import { describe, expect, it } from "vitest";
import { serve, type HttpLimits, type NodeEnv } from "../../runtime/lib/serve.ts";
import type { TlsFiles } from "../../runtime/lib/tls.ts";
import { temporaryFolder } from "../support/folders.ts";
import { certificateAuthority, type TestCertificate } from "./certificates.ts";
import { rawConnection, rawTlsConnection, statusesIn } from "./raw-http.ts";

const get = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
const authority = certificateAuthority();

/** A mounted secret as Kubernetes lays it out: files -> `..data` -> a folder for each version. */
async function mountedSecret(directory: string, first: TestCertificate) {
  let version = 0;
  const put = async ({ cert, key }: TestCertificate): Promise<void> => {
    version += 1;
    await mkdir(join(directory, `..v${version}`));
    await writeFile(join(directory, `..v${version}`, "tls.crt"), cert);
    await writeFile(join(directory, `..v${version}`, "tls.key"), key);
    await symlink(`..v${version}`, join(directory, "..data-next"));
    await rename(join(directory, "..data-next"), join(directory, "..data"));
  };
  await put(first);
  const files = { certFile: join(directory, "tls.crt"), keyFile: join(directory, "tls.key") };
  await symlink("..data/tls.crt", files.certFile);
  await symlink("..data/tls.key", files.keyFile);
  return { files, put };
}

async function secureServer(files: TlsFiles, limits: Partial<HttpLimits> = {}) {
  const lines: string[] = [];
  const log = pino({ level: "info" }, { write: (line: string) => void lines.push(line) });
  const app = new Hono<NodeEnv>();
  app.get("/", (c) => c.text("ok"));
  const listening = await serve(app, { host: "127.0.0.1", port: 0 }, { limits, tls: { files, log, pollMs: 50 } });
  return { ...listening, lines, [Symbol.asyncDispose]: () => listening.close(0) };
}

async function subjectOf(port: number): Promise<string | undefined> {
  using client = await rawTlsConnection(port, { ca: authority.cert });
  const { CN } = client.socket.getPeerCertificate().subject;
  return Array.isArray(CN) ? CN[0] : CN;
}

describe("a certificate", () => {
  it("is replaced when its files are, and connections that are open go on", async () => {
    await using folder = await temporaryFolder();
    const secret = await mountedSecret(folder.path, authority.issue("first"));
    await using server = await secureServer(secret.files);
    expect(server.url).toBe(`https://127.0.0.1:${server.port}`);
    using open = await rawTlsConnection(server.port, { ca: authority.cert });
    open.send(get);
    await expect.poll(() => statusesIn(open.received)).toEqual([200]);
    await secret.put(authority.issue("second"));
    await expect.poll(() => subjectOf(server.port)).toBe("second");
    open.send(get);
    await expect.poll(() => statusesIn(open.received)).toEqual([200, 200]);
    expect(server.lines.join("")).toContain("a new certificate is in use");
  });

  it("that is broken leaves the old one in use and says so once; a good one follows", async () => {
    await using folder = await temporaryFolder();
    const first = authority.issue("first");
    const secret = await mountedSecret(folder.path, first);
    await using server = await secureServer(secret.files);
    const problems = () => server.lines.filter((line) => line.includes("the old one stays"));
    await secret.put({ cert: authority.issue("second").cert, key: first.key });
    await expect.poll(() => problems().length).toBe(1);
    expect(problems()[0]).toContain("the key belongs to another certificate");
    // Several looks at the files.
    await delay(300);
    expect(problems()).toHaveLength(1);
    await secret.put({ cert: "-----BEGIN CERTIFICATE-----\nnonsense", key: first.key });
    await expect.poll(() => problems().length).toBe(2);
    expect(await subjectOf(server.port)).toBe("first");
    await secret.put(authority.issue("third"));
    await expect.poll(() => subjectOf(server.port)).toBe("third");
    expect(problems()).toHaveLength(2);
  });

  it.each([
    [
      "a key of another certificate",
      { cert: authority.issue("a").cert, key: authority.issue("b").key },
      /another certificate/,
    ],
    ["no PEM", { cert: "hello", key: "hello" }, /tls.crt/],
  ])("with %s starts no server", async (_name, pair, message) => {
    await using folder = await temporaryFolder();
    const { files } = await mountedSecret(folder.path, pair);
    await expect(secureServer(files)).rejects.toThrow(message);
  });

  it("of client authorities that cannot be read starts no server", async () => {
    await using folder = await temporaryFolder();
    const { files } = await mountedSecret(folder.path, authority.issue("server"));
    const clientCaFile = join(folder.path, "clients.crt");
    await writeFile(clientCaFile, "-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n");
    await expect(secureServer({ ...files, clientCaFile })).rejects.toThrow(/clients.crt/);
  });

  it("that is not there starts no server", async () => {
    await using folder = await temporaryFolder();
    const files = { certFile: join(folder.path, "absent.crt"), keyFile: join(folder.path, "absent.key") };
    await expect(secureServer(files)).rejects.toThrow(/absent.crt cannot be read/);
  });
});

describe("a TLS server", () => {
  it("speaks 1.2 and 1.3 and nothing older", async () => {
    await using folder = await temporaryFolder();
    const { files } = await mountedSecret(folder.path, authority.issue("server"));
    await using server = await secureServer(files);
    const speak = (version: "TLSv1.1" | "TLSv1.2" | "TLSv1.3") =>
      rawTlsConnection(server.port, {
        ca: authority.cert,
        minVersion: version,
        maxVersion: version,
        // OpenSSL itself refuses 1.1 at its usual security level; the server is what is tried here.
        ciphers: "DEFAULT@SECLEVEL=0",
      }).then((client) => {
        using open = client;
        return open.socket.getProtocol();
      });
    expect(await speak("TLSv1.2")).toBe("TLSv1.2");
    expect(await speak("TLSv1.3")).toBe("TLSv1.3");
    await expect(speak("TLSv1.1")).rejects.toThrow(/protocol version|alert/i);
  });

  it("with a client authority serves its clients alone", async () => {
    await using folder = await temporaryFolder();
    const { files } = await mountedSecret(folder.path, authority.issue("server"));
    const clients = certificateAuthority("clients");
    const clientCaFile = join(folder.path, "clients.crt");
    await writeFile(clientCaFile, clients.cert);
    await using server = await secureServer({ ...files, clientCaFile });
    const ask = async (pair: Partial<TestCertificate>) => {
      using client = await rawTlsConnection(server.port, { ca: authority.cert, ...pair });
      client.send(get);
      return (await Promise.race([client.closed, answered(client)])).received;
    };
    const answered = async (client: { readonly received: string }) => {
      await expect.poll(() => client.received).toContain("ok");
      return client;
    };
    expect(statusesIn(await ask(clients.issue("ours")))).toEqual([200]);
    // TLS 1.3 tells a client that it is refused only after the handshake: the connection ends without an answer.
    expect(await ask({})).toBe("");
    expect(await ask(certificateAuthority("strangers").issue("theirs"))).toBe("");
  });

  it("closes clients that do not finish their handshake, and a stop does not wait for them", async () => {
    await using folder = await temporaryFolder();
    const { files } = await mountedSecret(folder.path, authority.issue("server"));
    const server = await secureServer(files, { headersTimeoutMs: 200 });
    using silent = await rawConnection(server.port);
    await silent.closed;
    await server.close(0);
    expect(silent.received).toBe("");
    const patient = await secureServer(files, { headersTimeoutMs: 60_000 });
    using waiting = await rawConnection(patient.port);
    await patient.close(50);
    expect((await waiting.closed).received).toBe("");
  });
});
