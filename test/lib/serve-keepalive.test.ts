import { once } from "node:events";
import { readFile, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";
import { Hono } from "hono";
import { expect, it } from "vitest";
import { createLog } from "../../runtime/lib/log.ts";
import { serve, type NodeEnv, type ServeOptions } from "../../runtime/lib/serve.ts";
import { temporaryFolder } from "../support/folders.ts";
import { certificateAuthority } from "./certificates.ts";

/** A row of Linux's list of IPv4 connections: both ends, state, queues, the timer that runs and when it ends (10 ms). */
const row = /^\s*\d+: [0-9A-F]{8}:([0-9A-F]{4}) [0-9A-F]{8}:([0-9A-F]{4}) 01 \S+ ([0-9A-F]{2}):([0-9A-F]{8}) /;
const keepAliveTimer = "02";

/** Seconds until the kernel asks whether the other end is there; null when it will not. */
async function secondsToKeepAlive(localPort: number, remotePort: number): Promise<number | null> {
  for (const line of (await readFile("/proc/net/tcp", "utf8")).split("\n")) {
    const [, local = "", remote = "", timer, left = ""] = row.exec(line) ?? [];
    if (Number.parseInt(local, 16) !== localPort || Number.parseInt(remote, 16) !== remotePort) continue;
    return timer === keepAliveTimer ? Number.parseInt(left, 16) / 100 : null;
  }
  throw new Error(`no connection from ${remotePort} to ${localPort}`);
}

async function accepted(options: ServeOptions): Promise<number | null> {
  const listening = await serve(new Hono<NodeEnv>(), { host: "127.0.0.1", port: 0 }, options);
  const socket = connect(listening.port, "127.0.0.1");
  try {
    await once(socket, "connect");
    // The server has to take it first.
    await expect.poll(() => secondsToKeepAlive(listening.port, socket.localPort ?? 0)).not.toBeNull();
    return await secondsToKeepAlive(listening.port, socket.localPort ?? 0);
  } finally {
    socket.destroy();
    await listening.close(0);
  }
}

it.skipIf(process.platform !== "linux")(
  "an accepted connection is kept known by TCP, over HTTP and HTTPS",
  async () => {
    await using folder = await temporaryFolder();
    const authority = certificateAuthority();
    const { cert, key } = authority.issue("localhost");
    const files = { certFile: join(folder.path, "tls.crt"), keyFile: join(folder.path, "tls.key") };
    await writeFile(files.certFile, cert);
    await writeFile(files.keyFile, key);
    for (const options of [{}, { tls: { files, log: createLog("test", "silent") } }]) {
      const seconds = await accepted(options);
      expect(seconds).toBeGreaterThan(30);
      expect(seconds).toBeLessThanOrEqual(60);
    }
  },
);
