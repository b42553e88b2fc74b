import * as ec2 from "@pulumi/aws/ec2/index.js";
import type * as pulumi from "@pulumi/pulumi";
import { policyOf } from "./policies.ts";
import { named, type Context } from "./scope.ts";
import { listener } from "./security-groups.ts";

/** What nodes and controllers ask AWS for, and has an address inside the network with `endpoints: full`. */
const services = ["autoscaling", "ec2", "ecr.api", "ecr.dkr", "eks", "eks-auth", "sqs", "ssm", "sts"];

interface Place {
  readonly vpc: ec2.Vpc;
  /** Of the private subnets. */
  readonly tables: readonly ec2.RouteTable[];
  readonly subnets: readonly ec2.Subnet[];
}

/** The free way to S3, and with `endpoints: full` ways to every other service in use. */
export function makeEndpoints(place: Place, context: Context): readonly pulumi.Resource[] {
  const { network, observability } = context.scope.plan;
  if (network.endpoints === "minimal") return [toS3(place, context)];
  const all = observability.mode === "managed" ? [...services, "aps-workspaces"] : services;
  return [toS3(place, context), ...toServices(all, place, context)];
}

function toS3({ vpc: { id }, tables }: Place, context: Context): ec2.VpcEndpoint {
  const { scope, child } = context;
  const { region } = scope.plan;
  return new ec2.VpcEndpoint(
    "s3",
    {
      vpcId: id,
      vpcEndpointType: "Gateway",
      serviceName: `com.amazonaws.${region}.s3`,
      routeTableIds: tables.map((table) => table.id),
      policy: s3Policy(context),
      tags: named(scope, "s3"),
    },
    child,
  );
}

/**
 * All of the network's traffic to S3 in the region goes this way, so nobody inside can write to a bucket of somebody else.
 * Registries that keep the layers of images in S3 can be read: ECR's own, and those of registry.k8s.io and quay.io.
 */
function s3Policy({ scope: { plan, accountId } }: Context): pulumi.Output<string> {
  const bucket = `arn:aws:s3:::${plan.cache.bucket}`;
  const registries = [`prod-${plan.region}-starport-layer-bucket`, "prod-registry-k8s-io-*", "quayio-production-s3"];
  return policyOf([
    {
      Sid: "Models",
      Principal: "*",
      Action: "s3:*",
      Resource: [bucket, `${bucket}/*`],
      Condition: { StringEquals: { "aws:PrincipalAccount": accountId } },
    },
    {
      Sid: "Images",
      Principal: "*",
      Action: "s3:GetObject",
      Resource: registries.map((name) => `arn:aws:s3:::${name}/*`),
    },
  ]);
}

function toServices(names: readonly string[], place: Place, context: Context): readonly pulumi.Resource[] {
  const { scope, child } = context;
  const { network, region } = scope.plan;
  const group = listener(
    "endpoints",
    {
      vpcId: place.vpc.id,
      description: "Addresses of AWS services inside the network",
      port: 443,
      from: { cidrIpv4: network.cidr },
    },
    context,
  );
  const endpoints = names.map(
    (name) =>
      new ec2.VpcEndpoint(
        name,
        {
          vpcId: place.vpc.id,
          vpcEndpointType: "Interface",
          serviceName: `com.amazonaws.${region}.${name}`,
          subnetIds: place.subnets.map(({ id }) => id),
          securityGroupIds: [group.id],
          privateDnsEnabled: true,
          tags: named(scope, name),
        },
        child,
      ),
  );
  return [...group.ready, ...endpoints];
}
