import { parseArgs } from "node:util";
import type { z } from "zod";
import { PenstockError } from "../../contracts/errors.ts";
import { tenant, tenantId, type Tenant } from "../../contracts/tenant.ts";
import { problemLines } from "../../contracts/validate.ts";
import type { KeyService } from "./key-service.ts";
import { keysOutcome, newKeyOutcome, tenantOutcome, tenantsOutcome, type Outcome } from "./outcomes.ts";
import { keyIdText, newKeyRequest, rotateRequest } from "./requests.ts";

export const helpText = `Manages the API keys and tenants of gateways that share a record store.

Usage: npm run keys -- COMMAND --store STORE [options]

  create --tenant ID --name TEXT   makes a key and prints it: it is shown this once
      --admin                      one that may use the admin API
      --expires-days N             one that ends by itself (never)
  list [--tenant ID]               keys, without their secrets
  revoke KEY                       ends a key, within a second on every gateway
  rotate KEY                       makes a key that follows KEY, and ends KEY
      --grace-hours N              ... only after N hours (0)
  tenants                          tenants and their limits
  tenant ID                        creates a tenant, or changes what is given
      --models LIST                models and model:adapter names, with commas; * for all (*)
      --priority N, --weight N     0 to 9 (5), and the share among equals (1)
      --requests-per-minute N, --tokens-per-minute N, --concurrent-requests N
      --budget-usd N, --budget-period day|month
      --allow LIST                 addresses and ranges that requests may come from; "" for any
  remove-tenant ID                 removes a tenant and all its keys

  --store STORE                    a SQLite file, or postgres://user:password@host/database
  --json                           prints JSON
  --help

KEY is the id of a key, with or without \`pk-\`. Environment: PENSTOCK_RECORD_STORE stands for --store; a URL with a
password belongs there, where other users of the machine do not see it.
`;

const flags = {
  store: { type: "string" },
  json: { type: "boolean" },
  help: { type: "boolean", short: "h" },
  tenant: { type: "string" },
  name: { type: "string" },
  admin: { type: "boolean" },
  "expires-days": { type: "string" },
  "grace-hours": { type: "string" },
  models: { type: "string" },
  priority: { type: "string" },
  weight: { type: "string" },
  "requests-per-minute": { type: "string" },
  "tokens-per-minute": { type: "string" },
  "concurrent-requests": { type: "string" },
  "budget-usd": { type: "string" },
  "budget-period": { type: "string" },
  allow: { type: "string" },
} as const;

type Flags = ReturnType<typeof readFlags>["values"];

/** What a command line asks for. `store` is absent when the environment has to say. */
export type KeyCommand =
  | { readonly kind: "help" }
  | { readonly kind: "act"; readonly act: Action; readonly store: string | undefined; readonly json: boolean };

/** Does it. Throws `not_found`, and what the store throws. */
type Action = (keys: KeyService) => Promise<Outcome>;

interface Command {
  /** What it takes besides `--store` and `--json`. */
  readonly options: readonly string[];
  /** Whether a name follows the command. */
  readonly isNamed: boolean;
  /** Checks everything now; the action is for later. */
  readonly read: (name: string, values: Flags) => Action;
}

const commands: Readonly<Record<string, Command>> = {
  create: {
    options: ["tenant", "name", "admin", "expires-days"],
    isNamed: false,
    read: (_, { tenant: tenantName, name, admin, "expires-days": days }) => {
      const key = check(newKeyRequest, { tenant: tenantName, name, admin, expiresInDays: number(days) });
      return (keys) => keys.createKey(key).then(newKeyOutcome);
    },
  },
  list: {
    options: ["tenant"],
    isNamed: false,
    read: (_, values) => (keys) => keys.listKeys(values.tenant).then(keysOutcome),
  },
  revoke: {
    options: [],
    isNamed: true,
    read: (name) => {
      const id = check(keyIdText, name);
      return (keys) => keys.revokeKey(id).then((json) => ({ json, text: `${json.prefix} is revoked.` }));
    },
  },
  rotate: {
    options: ["grace-hours"],
    isNamed: true,
    read: (name, values) => {
      const id = check(keyIdText, name);
      const { graceHours } = check(rotateRequest, { graceHours: number(values["grace-hours"]) });
      return (keys) => keys.rotateKey(id, graceHours).then(newKeyOutcome);
    },
  },
  tenants: { options: [], isNamed: false, read: () => (keys) => keys.listTenants().then(tenantsOutcome) },
  tenant: {
    options: [
      "models",
      "priority",
      "weight",
      "allow",
      "budget-usd",
      "budget-period",
      "requests-per-minute",
      "tokens-per-minute",
      "concurrent-requests",
    ],
    isNamed: true,
    read: (name, values) => {
      const id = check(tenantId, name);
      return async (keys) => {
        const known = (await keys.listTenants()).find((each) => each.id === id);
        return tenantOutcome(await keys.putTenant(check(tenant, changedTenant(id, values, known))));
      };
    },
  },
  "remove-tenant": {
    options: [],
    isNamed: true,
    read: (name) => {
      const id = check(tenantId, name);
      const outcome = { json: { removed: id }, text: `${id} and its keys are removed.` };
      return (keys) => keys.removeTenant(id).then(() => outcome);
    },
  },
};

/** Reads the command line. Throws `invalid_config` that names what is wrong. */
export function parseKeyCommand(argv: readonly string[]): KeyCommand {
  const { values, positionals } = readFlags(argv);
  if (values.help === true || argv.length === 0) return { kind: "help" };
  const [kind = "", name, ...rest] = positionals;
  const command = Object.hasOwn(commands, kind) ? commands[kind] : undefined;
  if (command === undefined) throw wrong(kind === "" ? "name a command" : `there is no command \`${kind}\``);
  if (command.isNamed !== (name !== undefined) || rest.length > 0) {
    throw wrong(command.isNamed ? `\`${kind}\` takes one name` : `\`${kind}\` takes options only`);
  }
  const taken = new Set([...command.options, "store", "json"]);
  const other = Object.keys(values).find((option) => !taken.has(option));
  if (other !== undefined) throw wrong(`\`${kind}\` does not take --${other}`);
  return { kind: "act", act: command.read(name ?? "", values), store: values.store, json: values.json === true };
}

/** A tenant with what the command line says laid over it. */
function changedTenant(id: string, values: Flags, known: Tenant | undefined): unknown {
  const budget = given({ usd: number(values["budget-usd"]), period: values["budget-period"] });
  const limits = given({
    requestsPerMinute: number(values["requests-per-minute"]),
    tokensPerMinute: number(values["tokens-per-minute"]),
    concurrentRequests: number(values["concurrent-requests"]),
    budget: Object.keys(budget).length === 0 ? undefined : { ...known?.limits.budget, ...budget },
  });
  const top = given({
    models: list(values.models),
    priority: number(values.priority),
    weight: number(values.weight),
    allowedAddresses: list(values.allow),
  });
  return { ...known, id, ...top, limits: { ...known?.limits, ...limits } };
}

function readFlags(argv: readonly string[]) {
  try {
    return parseArgs({ args: [...argv], options: flags, strict: true, allowPositionals: true });
  } catch (cause) {
    throw wrong(cause instanceof Error ? cause.message : String(cause));
  }
}

function check<Schema extends z.ZodType>(schema: Schema, value: unknown): z.output<Schema> {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  throw wrong(problemLines(result.error).join("; "));
}

function wrong(problem: string): PenstockError {
  return new PenstockError("invalid_config", `${problem}; see --help`);
}

/** What is no number stays text, and the schema says so. */
function number(text: string | undefined): string | number | undefined {
  return text === undefined || text.trim() === "" || Number.isNaN(Number(text)) ? text : Number(text);
}

function list(text: string | undefined): string[] | undefined {
  return text
    ?.split(",")
    .map((each) => each.trim())
    .filter((each) => each !== "");
}

function given(fields: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));
}
