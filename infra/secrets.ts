import type * as pulumi from "@pulumi/pulumi";
import * as tls from "@pulumi/tls";
import type { OperatorSecrets } from "./kubernetes/secrets.ts";
import type { CloudPlan } from "./plan/plan.ts";
import { checkSecrets } from "./stack/secrets.ts";

const yearHours = 8_760;

/**
 * What an operator gave, checked at once; the answer makes what is to be made, and is for when nothing can be refused any
 * more. Throws `invalid_config` for what is missing.
 */
export function operatorSecrets(config: pulumi.Config, plan: CloudPlan): () => OperatorSecrets {
  const { config: gateway } = plan.gateway;
  checkSecrets(plan.stack, gateway, (name) => config.getSecret(name) !== undefined);
  const given = {
    configured: () => ({ certificate: config.requireSecret("tlsCertificate"), key: config.requireSecret("tlsKey") }),
    "self-signed": () => selfSigned(gateway.hostname),
    "in-cluster": () => null,
  } satisfies Record<typeof gateway.certificate, () => OperatorSecrets["tls"]>;
  return () => ({ tls: given[gateway.certificate]() });
}

/** A certificate that only those trust who are told to: for trying out. */
function selfSigned(hostname: string): NonNullable<OperatorSecrets["tls"]> {
  const key = new tls.PrivateKey("endpoint", { algorithm: "ECDSA", ecdsaCurve: "P256" });
  const certificate = new tls.SelfSignedCert("endpoint", {
    privateKeyPem: key.privateKeyPem,
    subject: { commonName: hostname },
    dnsNames: [hostname],
    allowedUses: ["digital_signature", "server_auth"],
    validityPeriodHours: yearHours,
    earlyRenewalHours: 720,
  });
  return { certificate: certificate.certPem, key: key.privateKeyPem };
}
