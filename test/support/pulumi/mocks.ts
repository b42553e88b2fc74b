import * as pulumi from "@pulumi/pulumi";
import { MockMonitor } from "@pulumi/pulumi/runtime/mocks.js";
import { isSecret, plainInputs, recordOf } from "../../../infra/commands/wire.ts";

/** What a program told the engine about one resource. Secret inputs are readable here; `secretInputs` names them. */
export interface Registered {
  readonly type: string;
  readonly name: string;
  /** False for components. */
  readonly custom: boolean;
  readonly inputs: Readonly<Record<string, unknown>>;
  /** Top-level inputs with a secret somewhere inside. */
  readonly secretInputs: readonly string[];
  readonly parent: string;
  readonly provider: string;
  /** URNs, of `dependsOn` and of every input's source. */
  readonly dependencies: readonly string[];
  readonly ignoreChanges: readonly string[];
  readonly protect: boolean;
  readonly retainOnDelete: boolean;
  readonly deleteBeforeReplace: boolean;
  readonly aliases: readonly string[];
}

/** What a provider would answer: outputs beside the inputs, and the id. */
export type Answer = Readonly<Record<string, unknown>> & { readonly id?: string };

export interface MockOptions<Result> {
  readonly program: () => Result | Promise<Result>;
  /** Outputs of a resource beside its inputs; `id` sets its id. */
  readonly answer?: (resource: Pick<Registered, "type" | "name" | "inputs">) => Answer | undefined;
  /** Results of provider functions, by token. */
  readonly call?: (token: string, inputs: Readonly<Record<string, unknown>>) => Readonly<Record<string, unknown>>;
  /** By full key, such as `penstock:stack`; values as Pulumi stores them. */
  readonly config?: Readonly<Record<string, string>>;
  readonly stack?: string;
  /** As on a first preview: no id and no output is known, but inputs. */
  readonly preview?: boolean;
  /** For programs that throw: outside Pulumi's stack, where they would leave unhandled rejections. */
  readonly bare?: boolean;
}

/** The parts of the engine's registration request that tests look at. */
interface Registration {
  getType(): string;
  getName(): string;
  getParent(): string;
  getDependenciesList(): string[];
  getIgnorechangesList(): string[];
  getProtect(): boolean;
  getRetainondelete(): boolean;
  getDeletebeforereplace(): boolean;
  getAliasesList(): { getUrn(): string; getSpec(): { getName(): string } | undefined }[];
}

/** Runs a program under Pulumi's mocks: what it registered, in order, and what it returned. Can be called again and again. */
export async function underMocks<Result>(
  options: MockOptions<Result>,
): Promise<{ readonly resources: readonly Registered[]; readonly result: Result }> {
  const project = "penstock";
  const stack = options.stack ?? "test";
  const preview = options.preview ?? false;
  const resources: Registered[] = [];
  const requests = new Map<string, Registration>();
  const mocks = mocksOf(options, { resources, requests });
  await pulumi.runtime.setMocks(mocks, project, stack, preview);
  pulumi.runtime.setMockOptions(new RecordingMonitor(mocks, requests), project, stack, preview);
  pulumi.runtime.setAllConfig({ ...options.config });
  const results: Result[] = [];
  const program = async (): Promise<void> => {
    results.push(await options.program());
  };
  await (options.bare === true ? program() : pulumi.runtime.runInPulumiStack(program));
  await pulumi.runtime.disconnect();
  const [result] = results;
  // The program ran to its end, so its result is there, whatever its type.
  return { resources, result: result as Result };
}

/** The value of an output that is known. */
export async function valueOf<Value>(output: pulumi.Output<Value>): Promise<Value> {
  return await new Promise<Value>((resolve) => {
    output.apply((value) => {
      resolve(value);
    });
  });
}

/** Mocks see inputs but no options, so the monitor keeps the whole request. */
class RecordingMonitor extends MockMonitor {
  readonly #requests: Map<string, Registration>;

  constructor(mocks: pulumi.runtime.Mocks, requests: Map<string, Registration>) {
    super(mocks);
    this.#requests = requests;
  }

  override async registerResource(
    request: Registration,
    callback: Parameters<MockMonitor["registerResource"]>[1],
  ): Promise<void> {
    this.#requests.set(`${request.getType()}::${request.getName()}`, request);
    await super.registerResource(request, callback);
  }
}

function mocksOf<Result>(
  { answer, call, preview }: MockOptions<Result>,
  { resources, requests }: { resources: Registered[]; requests: ReadonlyMap<string, Registration> },
): pulumi.runtime.Mocks {
  return {
    newResource(made) {
      const { type, name, custom = false, provider = "" } = made;
      const raw = recordOf(made.inputs);
      const registered = {
        ...describe(requests.get(`${type}::${name}`)),
        ...readable(raw),
        type,
        name,
        custom,
        provider,
      };
      resources.push(registered);
      if (preview === true) return { id: undefined, state: raw };
      const { id, ...state } = answer?.(registered) ?? {};
      // Inputs as they came, so that secrets stay secrets.
      return { id: custom ? (id ?? `${name}-id`) : undefined, state: { ...raw, ...state } };
    },
    call({ token, inputs }) {
      const readableInputs = readable(recordOf(inputs)).inputs;
      return call?.(token, readableInputs) ?? readableInputs;
    },
  };
}

function describe(
  request: Registration | undefined,
): Omit<Registered, "type" | "name" | "custom" | "provider" | "inputs" | "secretInputs"> {
  return {
    parent: request?.getParent() ?? "",
    dependencies: request?.getDependenciesList() ?? [],
    ignoreChanges: request?.getIgnorechangesList() ?? [],
    protect: request?.getProtect() ?? false,
    retainOnDelete: request?.getRetainondelete() ?? false,
    deleteBeforeReplace: request?.getDeletebeforereplace() ?? false,
    aliases: request?.getAliasesList().map((alias) => alias.getSpec()?.getName() ?? alias.getUrn()) ?? [],
  };
}

function readable(raw: Readonly<Record<string, unknown>>): Pick<Registered, "inputs" | "secretInputs"> {
  return {
    inputs: plainInputs(raw),
    secretInputs: Object.keys(raw).filter((key) => holdsSecret(raw[key])),
  };
}

function holdsSecret(value: unknown): boolean {
  return isSecret(value) || Object.values(recordOf(value)).some(holdsSecret);
}
