import { CustomResource } from "@pulumi/kubernetes/apiextensions/customResource.js";
import type * as pulumi from "@pulumi/pulumi";

/** A plain type in which every value may also be an output. */
export type In<T> = pulumi.Input<
  T extends readonly (infer Item)[] ? In<Item>[] : T extends object ? { [Key in keyof T]: In<T[Key]> } : T
>;

/** What every published model of a custom resource has. */
interface Kind {
  readonly apiVersion: string;
  readonly kind: string;
  readonly spec?: unknown;
}

/** A custom resource whose body is held to the type of a published model, so that a misspelt field does not compile. */
export interface TypedBody<Model extends Kind> {
  readonly apiVersion: Model["apiVersion"];
  readonly kind: Model["kind"];
  readonly metadata: {
    readonly name: string;
    readonly namespace?: string;
    readonly labels?: Readonly<Record<string, string>>;
    readonly annotations?: Readonly<Record<string, string>>;
  };
  readonly spec: In<NonNullable<Model["spec"]>>;
}

/** A Kubernetes object of a kind that its own operator defines. */
export function typedResource<Model extends Kind>(
  name: string,
  body: TypedBody<Model>,
  options?: pulumi.CustomResourceOptions,
): CustomResource {
  return new CustomResource(name, body, options);
}
