import { execFile } from "node:child_process";
import { accessSync, constants, readdirSync } from "node:fs";
import { chown, mkdir } from "node:fs/promises";
import { delimiter, join } from "node:path";
import { promisify } from "node:util";
import { Client } from "pg";
import { temporaryFolder } from "../folders.ts";
import { freePort } from "./free-port.ts";
import { startServer } from "./process.ts";
import { lacking } from "./tools.ts";

/** A PostgreSQL server with no data. */
export interface PostgresServer extends AsyncDisposable {
  /** Makes an empty database and answers its URL. */
  newDatabase(): Promise<string>;
}

/** As `lacking`, for the server: Debian keeps its programs out of PATH. */
export function lackingPostgres(): string | undefined {
  return programFolder() === undefined ? lacking("postgres") : undefined;
}

function programFolder(): string | undefined {
  const debian = "/usr/lib/postgresql";
  const folders = (process.env["PATH"] ?? "").split(delimiter);
  try {
    const versions = readdirSync(debian).toSorted((a, b) => Number(b) - Number(a));
    folders.push(...versions.map((version) => join(debian, version, "bin")));
  } catch {
    // Not Debian.
  }
  return folders.find((folder) => {
    try {
      accessSync(join(folder, "initdb"), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

const run = promisify(execFile);

/** Starts a server in a folder of its own. It refuses to run as root, who becomes `nobody` for it. */
export async function postgres(): Promise<PostgresServer> {
  const programs = programFolder();
  if (programs === undefined) throw new Error("PostgreSQL is not installed");
  await using scope = new AsyncDisposableStack();
  const folder = scope.use(await temporaryFolder());
  const data = join(folder.path, "data");
  await mkdir(data);
  const isRoot = process.getuid?.() === 0;
  if (isRoot) {
    await chown(folder.path, nobody, nobody);
    await chown(data, nobody, nobody);
  }
  const command = (program: string, args: readonly string[]) => {
    const path = join(programs, program);
    const asNobody = [`--reuid=${nobody}`, `--regid=${nobody}`, "--clear-groups", path];
    return isRoot ? { command: "setpriv", args: [...asNobody, ...args] } : { command: path, args: [...args] };
  };
  const initdb = command("initdb", ["-D", data, "-U", "penstock", "-A", "trust", "-E", "UTF8", "--no-sync"]);
  await run(initdb.command, initdb.args, { cwd: folder.path });
  const port = await freePort();
  const settings = [
    `port=${port}`,
    "listen_addresses=127.0.0.1",
    `unix_socket_directories=${folder.path}`,
    "fsync=off",
  ];
  scope.use(
    await startServer({
      ...command("postgres", ["-D", data, ...settings.flatMap((setting) => ["-c", setting])]),
      ready: /database system is ready to accept connections/,
    }),
  );
  const stop = command("pg_ctl", ["stop", "-D", data, "-m", "immediate"]);
  scope.defer(async () => void (await run(stop.command, stop.args, { cwd: folder.path })));
  const url = (database: string) => `postgres://penstock@127.0.0.1:${port}/${database}`;
  let databases = 0;
  const running = scope.move();
  return {
    async newDatabase() {
      databases += 1;
      const client = new Client(url("postgres"));
      await client.connect();
      await client.query(`CREATE DATABASE test_${databases}`);
      await client.end();
      return url(`test_${databases}`);
    },
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  };
}

/** Debian's user and group without rights. */
const nobody = 65_534;
