import { z } from "zod";
import { libraryHook } from "../../runtime/contracts/hooks.ts";
import { modelId } from "../../runtime/contracts/model.ts";
import { tenant } from "../../runtime/contracts/tenant.ts";
import { fleet } from "./fleet.ts";
import { hold, poolName, stackModel } from "./local.ts";
import { modelShape } from "./shape.ts";

const usd = z.number().min(0);
const email = z.email();
const cidr = z.string().regex(/^(\d{1,3}\.){3}\d{1,3}\/\d{1,2}$/, "must be an IPv4 range such as 10.40.0.0/16");

/** How nodes of a pool are bought. */
export const capacityTypes = ["reserved", "spot", "on-demand", "block"] as const;
export type CapacityType = (typeof capacityTypes)[number];

const reservation = z
  .strictObject({
    id: z
      .string()
      .min(1)
      .describe("Azure: resource id of a capacity reservation group. AWS: cr-… of a reservation or capacity block."),
    nodes: z.int().min(1).describe("Nodes that it holds."),
    discountPercent: z.number().min(0).max(100).default(0).describe("Off the list price, as your contract says."),
    until: z.iso.date().optional().describe("Last day of it, such as 2027-03-31."),
  })
  .describe("Capacity that was bought. Penstock uses it and never buys it.");

const pool = z
  .strictObject({
    name: poolName.describe(
      "Its identity: a pool with another name is another pool, unless `formerNames` has the old one.",
    ),
    formerNames: z
      .array(poolName)
      .default([])
      .describe("Names that this pool had before: a renamed pool is kept instead of replaced."),
    sizes: z
      .array(z.string().min(1))
      .min(1)
      .describe("Node sizes in the order to try, such as Standard_ND96isr_H100_v5 or p5.48xlarge."),
    capacity: z
      .array(z.enum(capacityTypes))
      .min(1)
      .default(["on-demand"])
      .describe("How nodes are bought, in the order to try."),
    zones: z.array(z.string().min(1)).optional().describe("Zones in the order to try; default: those of the stack."),
    minNodes: z.int().min(0).default(0),
    maxNodes: z.int().min(1).describe("The hard cap of what this pool can cost."),
    warmSpares: z
      .int()
      .min(0)
      .default(0)
      .describe("Nodes kept free for the next replica, by placeholder pods. Each costs a node."),
    osDiskGiB: z.int().min(64).max(4096).default(256),
    reservation: reservation.optional(),
  })
  .describe("Nodes of one kind: what fleets are placed on.");

const model = stackModel
  .extend({
    shape: z
      .union([z.string().min(1), modelShape])
      .optional()
      .describe(
        "Name in the catalogue of shapes, or the shape itself (`npm run model -- shape <dir | hf://…>` prints it); default: by the source.",
      ),
    pinned: z.boolean().default(false).describe("Never evicted for another model, and its files stay on disk."),
    price: z
      .strictObject({
        perMillionPromptTokens: usd.optional(),
        perMillionCachedTokens: usd.optional(),
        perMillionCompletionTokens: usd.optional(),
      })
      .optional()
      .describe("What tenants are charged, in USD."),
  })
  .describe("A model: an id that clients name, and where its weights come from.");

const gateway = z
  .strictObject({
    hostname: z
      .string()
      .regex(/^[a-z0-9.-]+$/)
      .describe("DNS name of the endpoint."),
    replicas: z.strictObject({ min: z.int().min(1), max: z.int().min(1) }).default({ min: 2, max: 6 }),
    internal: z.boolean().default(false).describe("A load balancer inside the network only."),
    certificate: z
      .enum(["configured", "self-signed", "in-cluster"])
      .default("configured")
      .describe(
        "`configured`: penstock:tlsCertificate and penstock:tlsKey; `self-signed`: made for trying out; `in-cluster`: " +
          "somebody else, such as cert-manager, makes the secret `tlsSecret`.",
      ),
    tlsSecret: z
      .string()
      .min(1)
      .default("penstock-tls")
      .describe("Kubernetes secret (type kubernetes.io/tls) with the certificate of the host name."),
    allowedAddresses: z.array(cidr).default([]).describe("Ranges that may use the endpoint; empty for any."),
    issuers: z
      .array(
        z.strictObject({
          issuer: z.url(),
          audience: z.string().min(1),
          tenantClaim: z.string().min(1),
          tenantPrefix: z.string().default(""),
        }),
      )
      .default([])
      .describe("OpenID Connect issuers whose tokens are accepted beside API keys."),
    aliases: z
      .record(modelId, z.array(z.strictObject({ model: modelId, weight: z.number().positive() })).min(1))
      .default({}),
    tenants: z
      .array(tenant)
      .min(1)
      .prefault([{ id: "default" }])
      .describe("Who may use the endpoint, and how much."),
    routing: z.string().optional().describe("Routing policy; default: predicted_cost."),
    maxBodyMiB: z.number().positive().default(16),
    drainSeconds: z.int().min(30).max(3600).default(300),
    hold: hold.prefault({}),
    hooks: z
      .array(libraryHook)
      .max(32)
      .optional()
      .describe("Plug-ins of Penstock's library that see requests and answers, in this order."),
    responseCache: z
      .strictObject({ models: z.array(modelId).min(1), seconds: z.number().positive().max(86_400).default(3_600) })
      .optional()
      .describe("Models whose answers are given again to the same tenant for the same request that samples nothing."),
  })
  .describe("The OpenAI endpoint.");

const store = z.enum(["managed", "in-cluster"]);

const common = {
  version: z.literal(1).describe("Version of this schema."),
  prefix: z
    .string()
    .regex(/^[a-z][a-z0-9-]{1,18}[a-z0-9]$/, "must be 3 to 20 lower-case letters, digits and `-`")
    .describe("First part of the name of everything that is made."),
  displayName: z.string().max(100).optional().describe("For people; changing it replaces nothing."),
  environment: z.enum(["dev", "prod"]).describe("Decides defaults and how strict the policies are."),
  region: z.string().min(1),
  zones: z.array(z.string().min(1)).min(1).max(4).optional(),
  tags: z
    .record(z.string().regex(/^[A-Za-z][A-Za-z0-9-]{0,63}$/), z.string().max(200))
    .default({})
    .describe("On everything that can carry them."),
  network: z
    .strictObject({
      cidr: cidr.default("10.40.0.0/16"),
      privateCluster: z.boolean().default(true).describe("The Kubernetes API has no public address."),
      apiAllowedAddresses: z.array(cidr).default([]).describe("Ranges that may reach a public Kubernetes API."),
      endpoints: z
        .enum(["minimal", "full"])
        .default("minimal")
        .describe("Private endpoints: what the cache needs, or for every service used."),
    })
    .prefault({}),
  cluster: z
    .strictObject({
      kubernetesVersion: z
        .string()
        .regex(/^1\.\d{2}$/)
        .optional(),
      systemSize: z.string().min(1).optional().describe("Size of the nodes that run the gateway and add-ons."),
      systemNodes: z.strictObject({ min: z.int().min(1), max: z.int().min(1) }).optional(),
      admins: z
        .array(z.string().min(1))
        .default([])
        .describe("Azure: object ids of Entra groups. AWS: ARNs of IAM roles."),
      registry: z
        .string()
        .min(1)
        .optional()
        .describe(
          "Azure: resource id of a private container registry that nodes may pull from. AWS needs none for ECR.",
        ),
    })
    .prefault({}),
  images: z
    .strictObject({
      registry: z
        .string()
        .min(1)
        .default("ghcr.io/penstock")
        .describe("Where the images of the gateway and the agents are."),
      version: z.string().min(1).optional().describe("Tag of the images; default: that of this release."),
    })
    .prefault({}),
  pools: z.array(pool).default([]),
  models: z.array(model).min(1),
  fleets: z.array(fleet).min(1),
  gateway,
  redis: z
    .strictObject({
      mode: store,
      memoryGiB: z.number().positive().default(1),
      highAvailability: z.boolean().optional(),
    })
    .optional(),
  postgres: z
    .strictObject({ mode: store, storageGiB: z.int().min(20).default(64), highAvailability: z.boolean().optional() })
    .optional(),
  observability: z
    .strictObject({
      mode: store.optional(),
      retentionDays: z.int().min(1).max(730).default(30),
      alertEmails: z.array(email).default([]),
      tracesEndpoint: z.url().optional().describe("OTLP/HTTP endpoint of a collector."),
    })
    .prefault({}),
  budget: z
    .strictObject({
      monthlyUsd: z.number().positive(),
      hourlyUsd: z
        .number()
        .positive()
        .optional()
        .describe("A plan whose maximum costs more in an hour is refused by policy."),
      maxGpus: z.int().min(1).optional(),
      alertEmails: z.array(email).min(1),
    })
    .describe("Alerts at 50, 80 and 100 % of the month. The hard caps are the pools' maxima."),
};

/** A stack on Azure. */
export const azureStack = z
  .strictObject({
    ...common,
    cloud: z.literal("azure"),
    cache: z
      .strictObject({
        account: z
          .string()
          .regex(/^[a-z0-9]{3,24}$/, "must be 3 to 24 lower-case letters and digits")
          .describe("Storage account; the name is global."),
        container: z
          .string()
          .regex(/^[a-z0-9-]{3,63}$/)
          .default("models"),
        redundancy: z.enum(["LRS", "ZRS"]).optional(),
        premium: z.boolean().default(false).describe("Premium block blobs: lower latency, higher price."),
        directory: z.string().min(1).default("/mnt/penstock").describe("Folder on each node's local NVMe."),
      })
      .describe("Blob storage with the models, and each node's folder for them."),
  })
  .describe("AKS on Azure.");

/** A stack on AWS. */
export const awsStack = z
  .strictObject({
    ...common,
    cloud: z.literal("aws"),
    cache: z
      .strictObject({
        bucket: z
          .string()
          .regex(/^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/)
          .describe("S3 bucket; the name is global."),
        directory: z
          .string()
          .min(1)
          .default("/mnt/k8s-disks/0/penstock")
          .describe("Folder on each node's instance store."),
      })
      .describe("S3 with the models, and each node's folder for them."),
  })
  .describe("EKS on AWS.");
