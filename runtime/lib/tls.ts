import { createPrivateKey, X509Certificate } from "node:crypto";
import { readFile } from "node:fs/promises";
import type { Server } from "node:https";
import { createSecureContext, type SecureContextOptions } from "node:tls";
import { PenstockError } from "../contracts/errors.ts";
import type { Logger } from "./log.ts";

/** PEM files of a TLS server. They may be replaced while it runs. */
export interface TlsFiles {
  /** The certificate, followed by those between it and the root. */
  readonly certFile: string;
  readonly keyFile: string;
  /** Roots of client certificates. With it, a client without a certificate of theirs gets no connection. */
  readonly clientCaFile?: string | undefined;
}

/** What the files hold: a certificate that is in date or not, and the key that belongs to it. */
export interface TlsContext extends SecureContextOptions {
  readonly cert: Buffer;
  readonly key: Buffer;
  readonly ca?: Buffer;
}

/** How often the files are read again. Far below the hours for which an old certificate is left to overlap. */
const defaultPollMs = 5_000;

export interface FollowOptions {
  /** What the server uses now. */
  readonly current: TlsContext;
  readonly log: Logger;
  readonly pollMs?: number | undefined;
}

/** Reads the files and checks that they belong together. Throws `invalid_config` that says which does not. */
export async function readTls(files: TlsFiles): Promise<TlsContext> {
  const [cert, key] = await Promise.all([readPem(files.certFile), readPem(files.keyFile)]);
  const ca = files.clientCaFile === undefined ? {} : { ca: await readPem(files.clientCaFile) };
  const context: TlsContext = { cert, key, ...ca, minVersion: "TLSv1.2" };
  const problem = problemOf(context);
  if (problem === undefined) return context;
  const names = Object.values(files).filter((name) => name !== undefined);
  throw new PenstockError("invalid_config", `TLS: ${names.join(", ")}: ${problem.reason}`, {
    cause: problem.cause,
  });
}

/**
 * Gives `server` the certificate anew whenever the files change; open connections keep theirs. Files that do not belong
 * together, as in the middle of a change, are logged once and the last good ones stay.
 *
 * The contents are compared instead of waiting for events of the file system: Kubernetes changes a secret by renaming a
 * symbolic link two folders up, other tools replace files in place, and network disks have no events.
 */
export function followTls(server: Server, files: TlsFiles, options: FollowOptions): Disposable {
  let current = options.current;
  let lastProblem: string | undefined;
  let isReading = false;
  const follow = async (): Promise<void> => {
    try {
      const latest = await readTls(files);
      lastProblem = undefined;
      if (isSame(latest, current)) return;
      server.setSecureContext(latest);
      current = latest;
      const { validTo } = new X509Certificate(latest.cert);
      options.log.info({ certFile: files.certFile, validTo }, "a new certificate is in use");
    } catch (error) {
      const problem = error instanceof Error ? error.message : String(error);
      if (problem !== lastProblem) options.log.error({ problem }, "the new certificate is not used; the old one stays");
      lastProblem = problem;
    }
  };
  const timer = setInterval(() => {
    if (isReading) return;
    isReading = true;
    void follow().finally(() => (isReading = false));
  }, options.pollMs ?? defaultPollMs).unref();
  return { [Symbol.dispose]: () => clearInterval(timer) };
}

async function readPem(file: string): Promise<Buffer> {
  try {
    return await readFile(file);
  } catch (cause) {
    throw new PenstockError("invalid_config", `TLS: ${file} cannot be read.`, { cause });
  }
}

function problemOf(context: TlsContext): { readonly reason: string; readonly cause?: unknown } | undefined {
  try {
    if (!new X509Certificate(context.cert).checkPrivateKey(createPrivateKey(context.key))) {
      return { reason: "the key belongs to another certificate." };
    }
    createSecureContext(context);
    // OpenSSL passes over roots that it cannot read, and then lets nobody in.
    if (context.ca !== undefined) void new X509Certificate(context.ca);
    return undefined;
  } catch (cause) {
    // OpenSSL's words name the fault, never the content.
    return { reason: `${cause instanceof Error ? cause.message : "not PEM"}.`, cause };
  }
}

function isSame(a: TlsContext, b: TlsContext): boolean {
  return (
    a.cert.equals(b.cert) && a.key.equals(b.key) && (a.ca === b.ca || (a.ca?.equals(b.ca ?? Buffer.of()) ?? false))
  );
}
