import { spawnSync } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { ApiKeys } from "../../runtime/gateway/identity/api-keys.ts";
import { Identity } from "../../runtime/gateway/identity/identity.ts";
import { openRecordStore } from "../../runtime/gateway/stores/index.ts";
import { createLog } from "../../runtime/lib/log.ts";
import { temporaryFolder } from "../support/folders.ts";
import { repository } from "../support/repository.ts";

/** The program, as `npm run keys` starts it. */
function keys(words: readonly string[], env: NodeJS.ProcessEnv = {}) {
  const main = join(repository, "runtime/gateway/keys/main.ts");
  const options = { encoding: "utf8", env: { PATH: process.env["PATH"], ...env } } as const;
  const { status, stdout, stderr } = spawnSync(process.execPath, [main, ...words], options);
  return { status, stdout, stderr };
}

describe("npm run keys", () => {
  it("makes keys that a running gateway takes, and revokes them within a second", async () => {
    await using folder = await temporaryFolder();
    const file = join(folder.path, "records.db");
    const env = { PENSTOCK_RECORD_STORE: file };
    expect(keys(["tenant", "acme", "--models", "a,b", "--weight", "3"], env)).toMatchObject({ status: 0, stderr: "" });
    const { stdout } = keys(["create", "--tenant", "acme", "--name", "the build", "--json"], env);
    const { key, id } = JSON.parse(stdout);

    await using store = await openRecordStore({ kind: "sqlite", file }, () => undefined);
    const log = createLog("test", "silent");
    const identity = new Identity({ authenticators: [new ApiKeys(store, log)], allowedAddresses: null });
    const authenticate = () => identity.authenticate({ authorization: `Bearer ${key}` }, "127.0.0.1");
    expect(await authenticate()).toMatchObject({
      tenant: { id: "acme", models: ["a", "b"], weight: 3 },
      credentialId: id,
    });

    const listed = keys(["list", "--tenant", "acme", "--json"], env).stdout;
    expect(JSON.parse(listed)).toMatchObject([{ id, state: "active", name: "the build", used: expect.any(String) }]);
    expect(listed).not.toContain(key.slice(12));

    expect(keys(["revoke", `pk-${id}`, "--store", file]).stdout).toBe(`pk-${id} is revoked.\n`);
    const revokedAt = performance.now();
    await expect.poll(() => authenticate().catch((error: unknown) => error), { interval: 20 }).toBeInstanceOf(Error);
    expect(performance.now() - revokedAt).toBeLessThan(3_000);
  });

  it("rotates a key: both work until the grace ends, and a revocation ends the grace", async () => {
    await using folder = await temporaryFolder();
    const env = { PENSTOCK_RECORD_STORE: join(folder.path, "records.db") };
    const json = (...words: string[]) => JSON.parse(keys([...words, "--json"], env).stdout);
    const states = (): string[] =>
      json("list")
        .map(({ state }: { state: string }) => state)
        .toSorted();
    json("tenant", "acme");
    const { id } = json("create", "--tenant", "acme", "--name", "ci", "--expires-days", "30");
    const next = json("rotate", id, "--grace-hours", "1");
    expect(next).toMatchObject({ tenant: "acme", name: "ci", state: "active", expires: expect.any(String) });
    expect(states()).toEqual(["active", "active"]);
    expect(json("revoke", id)).toMatchObject({ state: "revoked" });
    expect(states()).toEqual(["active", "revoked"]);
    expect(json("remove-tenant", "acme")).toEqual({ removed: "acme" });
    expect(json("list")).toEqual([]);
  });

  it("says what is wrong, and ends with 2 for what was typed and 1 for what was found", async () => {
    await using folder = await temporaryFolder();
    const file = join(folder.path, "records.db");
    expect(keys([])).toMatchObject({ status: 0, stdout: expect.stringContaining("Usage: npm run keys") });
    expect(keys(["list"])).toMatchObject({ status: 2, stderr: expect.stringContaining("PENSTOCK_RECORD_STORE") });
    expect(keys(["lost", "--store", file])).toMatchObject({ status: 2, stderr: expect.stringContaining("no command") });
    expect(keys(["revoke", "abcdefgh", "--store", file])).toEqual({
      status: 1,
      stdout: "",
      stderr: "keys: There is no key pk-abcdefgh.\n",
    });
    await writeFile(join(folder.path, "text"), "this is no database".repeat(100));
    for (const store of [join(folder.path, "text"), join(folder.path, "absent", "records.db")]) {
      const { status, stderr } = keys(["list", "--store", store]);
      expect(status).toBe(2);
      expect(stderr).toMatch(/^keys: The record store cannot be opened: .+\n$/);
    }
    const { status, stderr } = keys(["list"], { PENSTOCK_RECORD_STORE: "postgres://me:hush-hush@127.0.0.1:1/records" });
    expect(status).toBe(2);
    expect(stderr).not.toContain("hush");
  });
});
