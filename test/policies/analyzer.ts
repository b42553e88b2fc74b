import { spawn } from "node:child_process";
import { once } from "node:events";
import { createRequire } from "node:module";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { credentials, type ServiceError } from "@grpc/grpc-js";
import analyzerGrpc from "@pulumi/pulumi/proto/analyzer_grpc_pb.js";
import analyzer from "@pulumi/pulumi/proto/analyzer_pb.js";
import type * as emptyMessages from "google-protobuf/google/protobuf/empty_pb.js";
import type * as structMessages from "google-protobuf/google/protobuf/struct_pb.js";
import type { Resource } from "../support/pulumi/engine.ts";
import { repository } from "../support/repository.ts";

const require = createRequire(import.meta.url);
// The SDK's own copies: messages and channels of others are strangers to them.
const sdkRequire = createRequire(require.resolve("@pulumi/pulumi/package.json"));
const { Struct }: typeof structMessages = sdkRequire("google-protobuf/google/protobuf/struct_pb.js");
const { Empty }: typeof emptyMessages = sdkRequire("google-protobuf/google/protobuf/empty_pb.js");

const folder = join(repository, "policies");

/** A violation as Pulumi shows it. */
export interface Diagnostic {
  readonly policy: string;
  readonly level: "advisory" | "mandatory" | "other";
  readonly message: string;
  readonly urn: string;
}

/** What a stack is, as the CLI tells a pack: nothing at all where it does not say. */
export interface StackOfPack {
  readonly name?: string;
  /** By full key, such as `penstock:stack`. */
  readonly config?: Readonly<Record<string, string>>;
}

/** A pack that runs. */
export interface Pack extends AsyncDisposable {
  /** The level of each policy. */
  policies(): Promise<ReadonlyMap<string, string>>;
  /** What it says of each resource by itself, in order. */
  judgeEach(resources: readonly Resource[]): Promise<readonly Diagnostic[]>;
  /** What it says of all of them together. */
  judgeStack(resources: readonly Resource[]): Promise<readonly Diagnostic[]>;
}

/** Starts the pack of this repository as Pulumi's language host does, in a process of its own, and talks to it as the engine. */
export async function startPack({ name, config }: StackOfPack): Promise<Pack> {
  const child = spawn(process.execPath, [require.resolve("@pulumi/pulumi/cmd/run-policy-pack"), "127.0.0.1:1", "."], {
    cwd: folder,
    env: {
      PATH: process.env["PATH"],
      ...(name === undefined ? {} : { PULUMI_NODEJS_STACK: name, PULUMI_NODEJS_PROJECT: "penstock" }),
      ...(config === undefined ? {} : { PULUMI_CONFIG: JSON.stringify(config) }),
    },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const exited = once(child, "exit");
  let errors = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => (errors += text));
  const listening = Promise.withResolvers<string>();
  createInterface(child.stdout).on("line", (line) => /^\d+$/.test(line) && listening.resolve(line));
  void exited.then(() => listening.reject(new Error(`the pack ended: ${errors}`)));
  const client = new analyzerGrpc.AnalyzerClient(`127.0.0.1:${await listening.promise}`, credentials.createInsecure());
  return {
    async policies() {
      const info = await answered<InstanceType<typeof analyzer.AnalyzerInfo>>((reply) => {
        client.getAnalyzerInfo(new Empty(), reply);
      });
      return new Map(info.getPoliciesList().map((each) => [each.getName(), levelOf(each.getEnforcementlevel())]));
    },
    async judgeEach(resources) {
      const all: Diagnostic[] = [];
      for (const resource of resources) {
        const request = described(new analyzer.AnalyzeRequest(), resource);
        all.push(...diagnostics(await answered((reply) => client.analyze(request, reply))));
      }
      return all;
    },
    async judgeStack(resources) {
      const request = new analyzer.AnalyzeStackRequest();
      request.setResourcesList(resources.map((each) => stackResource(each)));
      return diagnostics(await answered((reply) => client.analyzeStack(request, reply)));
    },
    async [Symbol.asyncDispose]() {
      client.close();
      child.kill("SIGKILL");
      await exited;
    },
  };
}

type Described = InstanceType<typeof analyzer.AnalyzeRequest> | InstanceType<typeof analyzer.AnalyzerResource>;

function described<Message extends Described>(
  message: Message,
  { type, urn, name, inputs, protect }: Resource,
): Message {
  message.setType(type);
  message.setUrn(urn);
  message.setName(name);
  // The declared type wants its own kind of JSON object; it takes any.
  message.setProperties(Struct.fromJavaScript(inputs as Parameters<typeof Struct.fromJavaScript>[0]));
  const options = new analyzer.AnalyzerResourceOptions();
  options.setProtect(protect);
  message.setOptions(options);
  return message;
}

function stackResource(resource: Resource): InstanceType<typeof analyzer.AnalyzerResource> {
  const message = described(new analyzer.AnalyzerResource(), resource);
  message.setParent(resource.parent);
  message.setDependenciesList([...resource.dependencies]);
  return message;
}

function diagnostics(response: InstanceType<typeof analyzer.AnalyzeResponse>): Diagnostic[] {
  return response.getDiagnosticsList().map((each) => ({
    policy: each.getPolicyname(),
    level: levelOf(each.getEnforcementlevel()),
    message: each.getMessage(),
    urn: each.getUrn(),
  }));
}

type EnforcementLevel = ReturnType<InstanceType<typeof analyzer.AnalyzeDiagnostic>["getEnforcementlevel"]>;

function levelOf(level: EnforcementLevel): Diagnostic["level"] {
  if (level === analyzer.EnforcementLevel.ADVISORY) return "advisory";
  return level === analyzer.EnforcementLevel.MANDATORY ? "mandatory" : "other";
}

async function answered<Reply>(
  ask: (reply: (error: ServiceError | null, reply: Reply) => void) => void,
): Promise<Reply> {
  return await new Promise((resolve, reject) => {
    ask((error, reply) => (error === null ? resolve(reply) : reject(error)));
  });
}
