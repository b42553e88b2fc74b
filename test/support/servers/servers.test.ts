import { spawn } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:http";
import { connect } from "node:net";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { expect, it } from "vitest";
import { temporaryFolder } from "../folders.ts";
import { alive, repository } from "../repository.ts";
import { exclusively } from "./exclusively.ts";
import { startServer } from "./process.ts";
import { proxy } from "./proxy.ts";

const script = (code: string) => ({ command: process.execPath, args: ["--input-type=module", "-e", code] });

it("startServer gives the address, and leaves no process", async () => {
  let pid = 0;
  {
    await using server = await startServer({
      ...script("setInterval(() => undefined, 1000); console.log(`pid ${process.pid} is ready`)"),
      ready: /pid (\d+) is ready/,
    });
    pid = Number(server.match[1]);
    expect(alive(pid)).toBe(true);
  }
  expect(alive(pid)).toBe(false);
});

it.each([
  ["ends", script("console.error('the port is taken'); process.exit(3)"), /ended with 3: the port is taken/],
  ["is not there", { command: "no-such-server", args: [] }, /no-such-server cannot be run/],
])("startServer shows what a server that %s said", async (_, server, words) => {
  await expect(startServer({ ...server, ready: /never/ })).rejects.toThrow(words);
});

it("exclusively waits for another process, and outlives it", async () => {
  await using folder = await temporaryFolder();
  const lock = join(folder.path, "lock");
  const module = pathToFileURL(join(repository, "test/support/servers/exclusively.ts")).href;
  const hold = `import { exclusively } from "${module}";
    await exclusively(${JSON.stringify(lock)}, () => new Promise(() => {
      setInterval(() => undefined, 1000);
      console.log("held");
    }));`;
  const { command, args } = script(hold);
  const other = spawn(command, args, { stdio: ["ignore", "pipe", "inherit"] });
  await once(other.stdout, "data");
  let entered = false;
  const mine = exclusively(lock, async () => void (entered = true));
  // Long enough for a lock that does not hold to show.
  await new Promise((resolve) => setTimeout(resolve, 500));
  expect(entered).toBe(false);
  await expect(exclusively(lock, async () => undefined, AbortSignal.timeout(1))).rejects.toThrow(/abort/);
  other.kill("SIGKILL");
  await mine;
  expect(entered).toBe(true);
});

it("proxy counts what a server sends, and cuts", async () => {
  const server = createServer((_, answer) => void answer.end(Buffer.alloc(100_000))).listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  const port = typeof address === "object" ? address?.port : undefined;
  await using way = await proxy(`http://127.0.0.1:${port}`);
  expect((await (await fetch(way.url)).arrayBuffer()).byteLength).toBe(100_000);
  expect(way.bytesReceived).toBeGreaterThan(100_000);
  way.cutAfter(10);
  await expect(fetch(way.url).then((answer) => answer.arrayBuffer())).rejects.toThrow();
  const refused = connect(Number(new URL(way.url).port), "127.0.0.1");
  await once(refused, "close");
  way.heal();
  expect((await (await fetch(way.url)).arrayBuffer()).byteLength).toBe(100_000);
  server.closeAllConnections();
  server.close();
});
