import { execFile } from "node:child_process";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import { temporaryFolder } from "../folders.ts";
import { freePort } from "./free-port.ts";
import { startServer } from "./process.ts";

/** A Redis server that keeps nothing on disk. */
export interface RedisServer extends AsyncDisposable {
  readonly url: string;
  readonly port: number;
  readonly pid: number;
}

/** Starts `redis-server`: on a free port, or on one that had another before. With `cluster`, one node with all slots. */
export async function redis({
  port,
  cluster = false,
}: { port?: number; cluster?: boolean } = {}): Promise<RedisServer> {
  await using scope = new AsyncDisposableStack();
  const folder = scope.use(await temporaryFolder());
  const at = port ?? (await freePort());
  const server = scope.use(
    await startServer({
      command: "redis-server",
      args: ["--port", String(at), "--bind", "127.0.0.1", "--dir", folder.path].concat(
        ["--save", "", "--appendonly", "no", "--daemonize", "no", "--logfile", ""],
        cluster ? ["--cluster-enabled", "yes", "--cluster-port", String(await freePort())] : [],
        cluster ? ["--cluster-announce-ip", "127.0.0.1"] : [],
      ),
      ready: /^(\d+):M .*Ready to accept connections/m,
    }),
  );
  if (cluster) await takeAllSlots(at);
  const running = scope.move();
  return {
    url: `redis://127.0.0.1:${at}`,
    port: at,
    pid: Number(server.match[1]),
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  };
}

async function takeAllSlots(port: number): Promise<void> {
  const cli = async (...words: string[]) =>
    (await promisify(execFile)("redis-cli", ["-p", String(port), ...words])).stdout;
  await cli("cluster", "addslotsrange", "0", "16383");
  while (!(await cli("cluster", "info")).includes("cluster_state:ok")) await delay(20);
}
