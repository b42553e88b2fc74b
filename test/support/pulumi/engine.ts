import { spawn } from "node:child_process";
import { once } from "node:events";
import { createRequire } from "node:module";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import {
  Server,
  ServerCredentials,
  status,
  type sendUnaryData,
  type ServerUnaryCall,
  type UntypedServiceImplementation,
} from "@grpc/grpc-js";
import engineGrpc from "@pulumi/pulumi/proto/engine_grpc_pb.js";
import engine from "@pulumi/pulumi/proto/engine_pb.js";
import resourceGrpc from "@pulumi/pulumi/proto/resource_grpc_pb.js";
import resource from "@pulumi/pulumi/proto/resource_pb.js";
import type * as emptyMessages from "google-protobuf/google/protobuf/empty_pb.js";
import type * as structMessages from "google-protobuf/google/protobuf/struct_pb.js";
import { repository } from "../repository.ts";

const require = createRequire(import.meta.url);
// The SDK's own copy of protobuf: messages of another one are strangers to it.
const sdkRequire = createRequire(require.resolve("@pulumi/pulumi/package.json"));
const { Struct }: typeof structMessages = sdkRequire("google-protobuf/google/protobuf/struct_pb.js");
const { Empty }: typeof emptyMessages = sdkRequire("google-protobuf/google/protobuf/empty_pb.js");

/** How the wire marks a value that is not known before the update. */
export const unknownValue = "04da6b54-80e4-46f7-96ec-b56ff0331ba9";

/** A resource as the program told the engine of it. */
export interface Resource {
  readonly urn: string;
  readonly type: string;
  readonly name: string;
  readonly custom: boolean;
  readonly parent: string;
  readonly provider: string;
  readonly inputs: Readonly<Record<string, unknown>>;
  readonly dependencies: readonly string[];
  readonly protect: boolean;
  readonly ignoreChanges: readonly string[];
}

/** What a program is run with. */
export interface ProgramRun {
  readonly stack: string;
  /** By full key, such as `penstock:stack`. */
  readonly config: Readonly<Record<string, string>>;
  readonly secretKeys: readonly string[];
  /** A preview: nothing gets an id, and what only a deployment knows is unknown. */
  readonly preview?: boolean;
  /** What a resource has after it was made, beside its inputs. */
  readonly outputs?: (made: Resource) => Readonly<Record<string, unknown>>;
  readonly invoke?: (token: string, args: unknown) => Readonly<Record<string, unknown>>;
}

/** What a program did. */
export interface Ran {
  readonly exitCode: number | null;
  readonly resources: readonly Resource[];
  /** The stack's outputs; undefined when it had none. Secrets are marked. */
  readonly outputs: Readonly<Record<string, unknown>> | undefined;
  /** What the engine was told to show, and what the process wrote. */
  readonly messages: string;
  readonly wallMs: number;
}

/**
 * Runs the program of this repository as Pulumi's language host does, against a stand-in for Pulumi's engine: the SDK's own
 * `cmd/run` in a process of its own, over gRPC. There is no state, no diff and no provider behind it.
 */
export async function runProgram(run: ProgramRun): Promise<Ran> {
  const seen = new Seen(run);
  const server = new Server({ "grpc.max_receive_message_length": 400 * 2 ** 20 });
  server.addService(resourceGrpc.ResourceMonitorService, seen.monitor());
  server.addService(engineGrpc.EngineService, seen.engine());
  const address = `127.0.0.1:${await bound(server)}`;
  const started = performance.now();
  const child = spawn(
    process.execPath,
    [require.resolve("@pulumi/pulumi/cmd/run")].concat(
      ["--monitor", address, "--engine", address, "--project", "penstock", "--stack", run.stack],
      ["--root-directory", repository, "--pwd", join(repository, "infra"), "--parallel", "16"],
      run.preview === true ? ["--dry-run"] : [],
      ["index.ts"],
    ),
    {
      env: {
        ...process.env,
        PULUMI_CONFIG: JSON.stringify(run.config),
        PULUMI_CONFIG_SECRET_KEYS: JSON.stringify(run.secretKeys),
      },
      stdio: ["ignore", "pipe", "pipe"],
    },
  );
  const [written, failed] = [text(child.stdout), text(child.stderr)];
  await once(child, "close");
  const wallMs = performance.now() - started;
  server.forceShutdown();
  return {
    exitCode: child.exitCode,
    resources: seen.resources,
    outputs: seen.outputs,
    messages: [...seen.messages, await written, await failed].join("\n"),
    wallMs,
  };
}

/** The two services that a program talks to, and what it said. */
class Seen {
  readonly resources: Resource[] = [];
  readonly messages: string[] = [];
  outputs: Readonly<Record<string, unknown>> | undefined;
  #root = "";
  readonly #run: ProgramRun;

  constructor(run: ProgramRun) {
    this.#run = run;
  }

  monitor(): UntypedServiceImplementation {
    const features = Object.entries(resource.ResourceMonitorFeature)
      // Without these the inputs come as plain, readable values.
      .filter(([name]) => !name.includes("OUTPUT_VALUES"))
      .flatMap(([, feature]) => (typeof feature === "number" ? [feature] : []));
    return {
      supportsFeature: answer(() => {
        const reply = new resource.SupportsFeatureResponse();
        reply.setHassupport(true);
        return reply;
      }),
      getDeploymentInfo: answer(() => {
        const reply = new resource.DeploymentInfo();
        reply.setSupportedfeaturesList(features);
        return reply;
      }),
      registerResource: answer((request: InstanceType<typeof resource.RegisterResourceRequest>) =>
        this.#register(request),
      ),
      registerResourceOutputs: answer((request: InstanceType<typeof resource.RegisterResourceOutputsRequest>) => {
        if (request.getUrn() === this.#root) this.outputs = request.getOutputs()?.toJavaScript() ?? {};
        return new Empty();
      }),
      invoke: answer((request: InstanceType<typeof resource.ResourceInvokeRequest>) => {
        const reply = new resource.ResourceInvokeResponse();
        const args = request.getArgs()?.toJavaScript() ?? {};
        reply.setReturn(structOf(this.#run.invoke?.(request.getTok(), args) ?? {}));
        return reply;
      }),
      registerPackage: answer(() => {
        const reply = new resource.RegisterPackageResponse();
        reply.setRef("package");
        return reply;
      }),
      readResource: refused("readResource"),
      existsResource: refused("existsResource"),
      call: refused("call"),
      registerStackTransform: answer(() => new Empty()),
      registerStackInvokeTransform: answer(() => new Empty()),
      registerResourceHook: answer(() => new Empty()),
      registerErrorHook: answer(() => new Empty()),
      signalAndWaitForShutdown: answer(() => new Empty()),
    };
  }

  engine(): UntypedServiceImplementation {
    return {
      log: answer((request: InstanceType<typeof engine.LogRequest>) => {
        // That is for people who debug Pulumi.
        if (request.getSeverity() !== engine.LogSeverity.DEBUG) this.messages.push(request.getMessage());
        return new Empty();
      }),
      getRootResource: answer(() => {
        const reply = new engine.GetRootResourceResponse();
        reply.setUrn(this.#root);
        return reply;
      }),
      setRootResource: answer((request: InstanceType<typeof engine.SetRootResourceRequest>) => {
        this.#root = request.getUrn();
        return new engine.SetRootResourceResponse();
      }),
      startDebugging: answer(() => new Empty()),
      requirePulumiVersion: answer(() => new engine.RequirePulumiVersionResponse()),
    };
  }

  #register(request: InstanceType<typeof resource.RegisterResourceRequest>) {
    const { stack, preview = false, outputs } = this.#run;
    const [type, name, parent] = [request.getType(), request.getName(), request.getParent()];
    const parentType = parent.split("::")[2] ?? "";
    const path = parentType === "" || parentType === "pulumi:pulumi:Stack" ? type : `${parentType}$${type}`;
    const made: Resource = {
      urn: `urn:pulumi:${stack}::penstock::${path}::${name}`,
      type,
      name,
      custom: request.getCustom(),
      parent,
      provider: request.getProvider(),
      inputs: request.getObject()?.toJavaScript() ?? {},
      dependencies: request.getDependenciesList(),
      protect: request.getProtect() ?? false,
      ignoreChanges: request.getIgnorechangesList(),
    };
    if (type === "pulumi:pulumi:Stack") this.#root = made.urn;
    this.resources.push(made);
    const reply = new resource.RegisterResourceResponse();
    reply.setUrn(made.urn);
    if (made.custom && !preview) reply.setId(`${name}-id`);
    reply.setObject(structOf({ ...made.inputs, ...(preview ? {} : outputs?.(made)) }));
    return reply;
  }
}

function structOf(value: Readonly<Record<string, unknown>>) {
  // The declared type wants its own kind of JSON object; it takes any.
  return Struct.fromJavaScript(value as Parameters<typeof Struct.fromJavaScript>[0]);
}

function answer<Request, Reply>(reply: (request: Request) => Reply) {
  return ({ request }: ServerUnaryCall<Request, Reply>, callback: sendUnaryData<Reply>): void => {
    try {
      callback(null, reply(request));
    } catch (error) {
      callback({ code: status.UNKNOWN, details: String(error) });
    }
  };
}

function refused(method: string) {
  return (_call: unknown, callback: sendUnaryData<never>): void =>
    callback({ code: status.UNIMPLEMENTED, details: `the stand-in engine has no ${method}` });
}

async function bound(server: Server): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, port) =>
    error === null ? resolve(port) : reject(error),
  );
  return await promise;
}
