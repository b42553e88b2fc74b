import { describe, expect, it } from "vitest";
import { helpText, parseKeyCommand } from "../../runtime/gateway/keys/command.ts";
import { KeyService } from "../../runtime/gateway/keys/key-service.ts";
import { memoryRecords } from "./identity-records.ts";

function terminal() {
  const records = memoryRecords();
  const service = new KeyService(records);
  return {
    records,
    run: async (line: string) => {
      const command = parseKeyCommand(line.split(" ").map((word) => word.replaceAll("_", " ")));
      if (command.kind === "help") throw new Error("only asked for help");
      return command.act(service);
    },
  };
}

describe("the command line of keys", () => {
  it.each([
    ["", /./],
    ["make", /no command `make`/],
    ["revoke", /takes one name/],
    ["revoke a b", /takes one name/],
    ["list all", /takes options only/],
    ["revoke pk-short", /8 characters after/],
    ["create --tenant acme", /name: /],
    ["create --name ci", /tenant: /],
    ["create --tenant ACME --name ci", /tenant: must be 1 to 63/],
    ["create --tenant acme --name ci --expires-days soon", /expiresInDays/],
    ["create --tenant acme --name ci --expires-days 0", /expiresInDays/],
    ["create --tenant acme --name ci --grace-hours 1", /does not take --grace-hours/],
    ["rotate abcdefgh --grace-hours -1", /graceHours|grace-hours/],
    ["list --unknown", /unknown/i],
    ["tenant ../etc", /must be 1 to 63/],
  ])("refuses %j", (line, message) => {
    expect(() => parseKeyCommand(line.split(" "))).toThrow(message);
    expect(() => parseKeyCommand(line.split(" "))).toThrow(/see --help/);
  });

  it("prints help when asked, and when nothing is asked", () => {
    expect(parseKeyCommand([])).toEqual({ kind: "help" });
    expect(parseKeyCommand(["create", "--help"])).toEqual({ kind: "help" });
    for (const command of ["create", "list", "revoke", "rotate", "tenants", "tenant", "remove-tenant"]) {
      expect(helpText).toContain(`\n  ${command}`);
    }
  });

  it("shows a key once and then only its prefix", async () => {
    const { run, records } = terminal();
    await run("tenant acme");
    const { text } = await run("create --tenant acme --name the_build --expires-days 90 --admin");
    const [key = ""] = text.split("\n");
    expect(key).toMatch(/^pk-[0-9A-Za-z]{8}-[0-9A-Za-z]{43}$/);
    const [record] = await records.keys();
    expect(record).toMatchObject({ name: "the build", isAdmin: true, tenant: "acme" });
    expect((record?.expiresMs ?? 0) - (record?.createdMs ?? 0)).toBe(90 * 86_400_000);
    for (const line of ["list", `revoke ${record?.id ?? ""}`, "list --tenant acme"]) {
      const { text: shown, json } = await run(line);
      expect(shown + JSON.stringify(json)).toContain(record?.prefix);
      expect(shown + JSON.stringify(json)).not.toContain(key.slice(12));
      expect(shown + JSON.stringify(json)).not.toContain(record?.hash);
    }
    expect((await run("list")).text).toMatch(/the build\s+admin\s+revoked/);
    expect((await run("list --tenant other")).text).toBe("none");
  });

  it("changes of a tenant what is given and leaves the rest", async () => {
    const { run } = terminal();
    await run("tenant acme --models a,b:x --priority 9 --requests-per-minute 60 --budget-usd 5 --allow 10.0.0.0/8,::1");
    const { json } = await run("tenant acme --weight 2.5 --tokens-per-minute 1000 --budget-period day");
    expect(json).toEqual({
      id: "acme",
      models: ["a", "b:x"],
      priority: 9,
      weight: 2.5,
      limits: { requestsPerMinute: 60, tokensPerMinute: 1_000, budget: { usd: 5, period: "day" } },
      allowedAddresses: ["10.0.0.0/8", "::1"],
    });
    await expect(run("tenant acme --priority 10")).rejects.toThrow(/priority/);
    await expect(run("tenant acme --budget-period week")).rejects.toThrow(/period/);
    await expect(run("tenant acme --allow 10.0.0.0/64")).rejects.toThrow(/no IP address or range/);
    expect((await run("tenant acme --allow ,")).json).toMatchObject({ allowedAddresses: [] });
  });

  it("says what does not exist", async () => {
    const { run } = terminal();
    await expect(run("create --tenant acme --name ci")).rejects.toThrow(/no tenant `acme`; create it first/);
    await expect(run("revoke pk-abcdefgh")).rejects.toThrow(/no key pk-abcdefgh/);
    await expect(run("rotate abcdefgh")).rejects.toThrow(/no key pk-abcdefgh/);
    await expect(run("remove-tenant acme")).rejects.toThrow(/no tenant `acme`/);
  });

  it("rotates with a grace time that a revocation cuts short", async () => {
    const { run, records } = terminal();
    await run("tenant acme");
    await run("create --tenant acme --name ci --expires-days 30");
    const [old] = await records.keys();
    await run(`rotate ${old?.prefix ?? ""} --grace-hours 24`);
    const [graced, next] = await records.keys();
    expect(graced?.revokedMs).toBeGreaterThan(Date.now() + 23 * 3_600_000);
    expect(next).toMatchObject({ name: "ci", tenant: "acme", revokedMs: null });
    expect((next?.expiresMs ?? 0) - (next?.createdMs ?? 0)).toBeGreaterThanOrEqual(30 * 86_400_000 - 1_000);
    await run(`revoke ${old?.id ?? ""}`);
    expect((await records.key(old?.id ?? ""))?.revokedMs).toBeLessThanOrEqual(Date.now());
  });
});
