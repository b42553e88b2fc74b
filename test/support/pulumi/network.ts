import { BlockList } from "node:net";
import type { Rendering } from "../../../infra/commands/manifests/render.ts";
import { at, list, ofKind } from "./manifests.ts";

/** A pod somewhere in the cluster. */
export interface PodEnd {
  readonly namespace: string;
  readonly labels: Readonly<Record<string, string>>;
  /** Labels of its namespace beside its name. */
  readonly namespaceLabels?: Readonly<Record<string, string>>;
}

/** A pod, or an address outside of the cluster. */
export type End = PodEnd | { readonly address: string };

/** What a packet is sent to. */
export interface Target {
  readonly to: End;
  readonly port: number;
  readonly protocol?: "TCP" | "UDP";
}

/**
 * Whether network policies let a connection through, as Kubernetes defines them: a pod that any policy of a direction
 * selects hears, or says, only what one of those allows. Only as much of it as our policies use.
 */
export function mayReach(rendering: Rendering, from: End, { to, port, protocol = "TCP" }: Target): boolean {
  const policies = ofKind(rendering, "NetworkPolicy");
  const passes = (direction: "Ingress" | "Egress", self: End, other: End): boolean => {
    if ("address" in self) return true;
    const chosen = policies.filter(
      ({ metadata, spec }) =>
        metadata.namespace === self.namespace &&
        list(spec, "policyTypes").includes(direction) &&
        selects(at(spec, "podSelector"), self.labels),
    );
    if (chosen.length === 0) return true;
    const [key, peers] = direction === "Ingress" ? (["ingress", "from"] as const) : (["egress", "to"] as const);
    return chosen.some(({ spec, metadata }) =>
      list(spec, key).some(
        (rule) =>
          (at(rule, "ports") === undefined ||
            list(rule, "ports").some((each) => at(each, "port") === port && at(each, "protocol") === protocol)) &&
          (at(rule, peers) === undefined ||
            list(rule, peers).some((peer) => isPeer(peer, other, metadata.namespace ?? ""))),
      ),
    );
  };
  return passes("Egress", from, to) && passes("Ingress", to, from);
}

function isPeer(peer: unknown, other: End, namespace: string): boolean {
  const block = at(peer, "ipBlock");
  if ("address" in other) {
    const excepted = list(block, "except").some((cidr) => contains(String(cidr), other.address));
    return block !== undefined && contains(String(at(block, "cidr")), other.address) && !excepted;
  }
  if (block !== undefined) return false;
  const ofNamespace = at(peer, "namespaceSelector");
  const ofPods = at(peer, "podSelector");
  const namespaceFits =
    ofNamespace === undefined
      ? other.namespace === namespace
      : selects(ofNamespace, { "kubernetes.io/metadata.name": other.namespace, ...other.namespaceLabels });
  return namespaceFits && (ofPods === undefined || selects(ofPods, other.labels));
}

function selects(selector: unknown, labels: Readonly<Record<string, string>>): boolean {
  return Object.entries(Object(at(selector, "matchLabels"))).every(([key, value]) => labels[key] === value);
}

function contains(cidr: string, address: string): boolean {
  const [base = "", bits] = cidr.split("/");
  const blocks = new BlockList();
  blocks.addSubnet(base, Number(bits), "ipv4");
  return blocks.check(address);
}
