import type { PlannedPool } from "../plan/plan.ts";

const boundary = "penstock";

/**
 * What a node does first: it makes one disk of all its local ones, at /mnt/k8s-disks/0, with images and pods' scratch space
 * on it. In base64, as EC2 takes it; EKS adds the rest, since the part is one of nodeadm's. Nothing where there are none.
 */
export function nodeConfig({ node }: PlannedPool): { readonly userData?: string } {
  if (node.nvmeGiB === 0) return {};
  const spec = { instance: { localStorage: { strategy: "RAID0" } } };
  const config = { apiVersion: "node.eks.aws/v1alpha1", kind: "NodeConfig", spec };
  const lines = [
    "MIME-Version: 1.0",
    `Content-Type: multipart/mixed; boundary="${boundary}"`,
    "",
    `--${boundary}`,
    "Content-Type: application/node.eks.aws",
    "",
    // JSON is YAML.
    JSON.stringify(config, null, 2),
    "",
    `--${boundary}--`,
    "",
  ];
  return { userData: Buffer.from(lines.join("\n")).toString("base64") };
}
