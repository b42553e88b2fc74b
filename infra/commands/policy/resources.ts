import * as pulumi from "@pulumi/pulumi";
import { MockMonitor } from "@pulumi/pulumi/runtime/mocks.js";
import type { PlannedResource } from "../../../policies/rule.ts";
import { plainProperties } from "../../../policies/values.ts";
import program from "../../index.ts";
import { configKey } from "../../stack/load.ts";
import type { CloudStack } from "../../stack/schema.ts";
import { neededSecrets } from "../../stack/secrets.ts";
import { plainInputs } from "../wire.ts";

/** The parts of a registration that rules look at. */
interface Registration {
  getType(): string;
  getName(): string;
  getProtect(): boolean;
  getDependenciesList(): string[];
}

const project = "penstock";

/**
 * What the program would make of a stack, without Pulumi's engine or a cloud: a preview against Pulumi's own mocks, in
 * which ids and ARNs have names, so that documents made of them can be judged, and everything else that only a cloud knows
 * is unknown. Sets Pulumi's runtime of this process: it is for commands and tests. Throws what the program throws.
 */
export async function plannedResources(stack: CloudStack, stackName: string): Promise<readonly PlannedResource[]> {
  const properties = new Map<string, Readonly<Record<string, unknown>>>();
  const mocks: pulumi.runtime.Mocks = {
    newResource({ type, name, custom = false, inputs }) {
      properties.set(keyOf(type, name), plainProperties(plainInputs(inputs)));
      return { id: custom ? `<id of ${name}>` : undefined, state: { arn: `<arn of ${name}>`, ...inputs } };
    },
    call: () => ({}),
  };
  const monitor = new Recorder(mocks);
  await pulumi.runtime.setMocks(mocks, project, stackName, true);
  pulumi.runtime.setMockOptions(monitor, project, stackName, true);
  pulumi.runtime.setAllConfig(configOf(stack));
  await program();
  await pulumi.runtime.disconnect();
  return monitor.seen.map(({ type, name, ...seen }) => ({
    type,
    name,
    ...seen,
    properties: properties.get(keyOf(type, name)) ?? {},
  }));
}

/** Mocks see inputs and nothing else, so the monitor keeps what else a resource was registered with. */
class Recorder extends MockMonitor {
  readonly seen: Omit<PlannedResource, "properties">[] = [];

  override async registerResource(
    request: Registration,
    callback: Parameters<MockMonitor["registerResource"]>[1],
  ): Promise<void> {
    await super.registerResource(request, (error, response) => {
      if (error === null) {
        this.seen.push({
          urn: response.getUrn(),
          type: request.getType(),
          name: request.getName(),
          protect: request.getProtect(),
          dependencies: request.getDependenciesList(),
        });
      }
      callback(error, response);
    });
  }
}

/** Secrets are there: what they are nobody here needs to know. */
function configOf(stack: CloudStack): Record<string, string> {
  const secrets = neededSecrets(stack.gateway).map((name) => [`${project}:${name}`, "<secret>"]);
  return { [configKey]: JSON.stringify(stack), ...Object.fromEntries(secrets) };
}

function keyOf(type: string, name: string): string {
  return `${type}::${name}`;
}
