import { PenstockError } from "../../runtime/contracts/errors.ts";
import type { CloudStack } from "./schema.ts";

/** Values of Pulumi's configuration, `penstock:<name>`, that are secrets. They are never in a plan. */
export const stackSecrets = {
  tlsCertificate: "certificate chain of the endpoint, PEM",
  tlsKey: "private key of that certificate, PEM",
} as const satisfies Record<string, string>;
export type SecretName = keyof typeof stackSecrets;

/** Secrets that a stack must have. Everything else is made by Pulumi: the agents' token, the first admin key, passwords. */
export function neededSecrets({ certificate }: Pick<CloudStack["gateway"], "certificate">): readonly SecretName[] {
  return certificate === "configured" ? ["tlsCertificate", "tlsKey"] : [];
}

/**
 * Checks that every secret of a stack is set, before any resource exists. Throws `invalid_config` that names all that are
 * missing, with the command that sets each; never a value.
 */
export function checkSecrets(
  stackName: string,
  gateway: Pick<CloudStack["gateway"], "certificate">,
  isSet: (name: SecretName) => boolean,
): void {
  const problems = neededSecrets(gateway)
    .filter((name) => !isSet(name))
    .map(
      (name) =>
        `  penstock:${name}: missing (${stackSecrets[name]}); set it with ` +
        `\`pulumi config set --secret penstock:${name} --stack ${stackName} < FILE.pem\``,
    );
  if (problems.length === 0) return;
  const otherwise = "or set `gateway.certificate` to `self-signed` (for trying out) or `in-cluster` (cert-manager)";
  throw new PenstockError(
    "invalid_config",
    `Secrets of the stack ${stackName}:\n${problems.join("\n")}\n  ${otherwise}`,
  );
}
