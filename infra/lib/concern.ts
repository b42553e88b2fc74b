import * as pulumi from "@pulumi/pulumi";

/** What children of a concern are made with. */
export interface Child {
  readonly parent: pulumi.ComponentResource;
}

class Concern extends pulumi.ComponentResource {
  finish(): void {
    this.registerOutputs({});
  }
}

/**
 * One concern of a deployment, such as its network: a component with a stable type and name, and what `build` makes as its
 * children. Answers what `build` answers.
 */
export function concern<Made>(cloud: string, name: string, build: (child: Child) => Made): Made {
  const component = new Concern(`penstock:${cloud}:${name}`, name);
  const made = build({ parent: component });
  component.finish();
  return made;
}
