import { spawn } from "node:child_process";
import { once } from "node:events";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { credentials, type ServiceError } from "@grpc/grpc-js";
import providerGrpc from "@pulumi/pulumi/proto/provider_grpc_pb.js";
import messages from "@pulumi/pulumi/proto/provider_pb.js";
import type plugin from "@pulumi/pulumi/proto/plugin_pb.js";
import type * as emptyMessages from "google-protobuf/google/protobuf/empty_pb.js";
import type * as structMessages from "google-protobuf/google/protobuf/struct_pb.js";
import type { ProviderName } from "./provider.ts";

const require = createRequire(import.meta.url);
// The SDK's own copy of protobuf: messages of another one are strangers to it.
const sdkRequire = createRequire(require.resolve("@pulumi/pulumi/package.json"));
const { Struct }: typeof structMessages = sdkRequire("google-protobuf/google/protobuf/struct_pb.js");
const { Empty }: typeof emptyMessages = sdkRequire("google-protobuf/google/protobuf/empty_pb.js");

export type Properties = Readonly<Record<string, unknown>>;

/** A provider's process, spoken to as Pulumi's engine does. */
export interface ProviderClient extends AsyncDisposable {
  version(): Promise<string>;
  configure(): Promise<{ readonly acceptsSecrets: boolean }>;
  check(urn: string, news: Properties): Promise<Properties>;
  create(urn: string, inputs: Properties): Promise<{ readonly id: string; readonly state: Properties }>;
  /** `replaces`: inputs whose change needs a new resource. */
  diff(made: Made, news: Properties): Promise<{ readonly changes: boolean; readonly replaces: readonly string[] }>;
  update(made: Made, news: Properties): Promise<Properties>;
  delete(made: Made): Promise<void>;
  invoke(token: string, args: Properties): Promise<Properties>;
}

/** A resource as the engine's state has it. */
export interface Made {
  readonly urn: string;
  readonly id: string;
  readonly state: Properties;
}

/** Starts `pulumi-resource-<name>` from a PATH, and waits for the port that it tells. Throws when it ends instead. */
export async function startProvider(name: ProviderName, path: string): Promise<ProviderClient> {
  // No engine listens there; a provider tells it only what it logs.
  const child = spawn(`pulumi-resource-${name}`, ["127.0.0.1:1"], {
    env: { ...process.env, PATH: path },
    stdio: ["ignore", "pipe", "inherit"],
  });
  const exited = once(child, "close");
  const [port] = await Promise.race([
    once(createInterface({ input: child.stdout }), "line"),
    exited.then(() => Promise.reject(new Error(`pulumi-resource-${name} ended before it told its port`))),
  ]);
  const client = new providerGrpc.ResourceProviderClient(`127.0.0.1:${String(port)}`, credentials.createInsecure());
  return {
    async version() {
      const response = await answered<plugin.PluginInfo>((done) => client.getPluginInfo(new Empty(), done));
      return response.getVersion();
    },
    async configure() {
      const request = new messages.ConfigureRequest().setAcceptsecrets(true).setArgs(structOf({}));
      const response = await answered<messages.ConfigureResponse>((done) => client.configure(request, done));
      return { acceptsSecrets: response.getAcceptsecrets() };
    },
    async check(urn, news) {
      const request = new messages.CheckRequest().setUrn(urn).setOlds(structOf({})).setNews(structOf(news));
      const response = await answered<messages.CheckResponse>((done) => client.check(request, done));
      return propertiesOf(response.getInputs());
    },
    async create(urn, inputs) {
      const request = new messages.CreateRequest().setUrn(urn).setProperties(structOf(inputs));
      const response = await answered<messages.CreateResponse>((done) => client.create(request, done));
      return { id: response.getId(), state: propertiesOf(response.getProperties()) };
    },
    async diff({ urn, id, state }, news) {
      const request = new messages.DiffRequest().setUrn(urn).setId(id).setOlds(structOf(state)).setNews(structOf(news));
      const response = await answered<messages.DiffResponse>((done) => client.diff(request, done));
      return {
        changes: response.getChanges() === messages.DiffResponse.DiffChanges.DIFF_SOME,
        replaces: response.getReplacesList(),
      };
    },
    async update({ urn, id, state }, news) {
      const request = new messages.UpdateRequest()
        .setUrn(urn)
        .setId(id)
        .setOlds(structOf(state))
        .setNews(structOf(news));
      const response = await answered<messages.UpdateResponse>((done) => client.update(request, done));
      return propertiesOf(response.getProperties());
    },
    async delete({ urn, id, state }) {
      const request = new messages.DeleteRequest().setUrn(urn).setId(id).setProperties(structOf(state));
      await answered((done) => client.delete(request, done));
    },
    async invoke(token, args) {
      const request = new messages.InvokeRequest().setTok(token).setArgs(structOf(args));
      const response = await answered<messages.InvokeResponse>((done) => client.invoke(request, done));
      return propertiesOf(response.getReturn());
    },
    async [Symbol.asyncDispose]() {
      client.close();
      child.kill("SIGKILL");
      await exited;
    },
  };
}

type Done<Response> = (error: ServiceError | null, response: Response) => void;

async function answered<Response>(call: (done: Done<Response>) => void): Promise<Response> {
  const { promise, resolve, reject } = Promise.withResolvers<Response>();
  call((error, response) => (error === null ? resolve(response) : reject(error)));
  return await promise;
}

function structOf(value: Properties) {
  // The declared type wants its own kind of JSON object; it takes any.
  return Struct.fromJavaScript(value as Parameters<typeof Struct.fromJavaScript>[0]);
}

function propertiesOf(struct: structMessages.Struct | undefined): Properties {
  return struct?.toJavaScript() ?? {};
}
