/**
 * What an engine process may see of the agent's environment. A list of what passes, not of what does not: an engine runs
 * models from strangers, and the agent's environment holds cloud credentials under names that nobody can foresee.
 * OPAL_PREFIX, OMPI_* and PYTHONPATH are set by NVIDIA's images, which do not run without; NCCL_*, FI_* and UCX_* choose
 * the network between nodes.
 */
const passes =
  /^(PATH|HOME|USER|TMPDIR|TEMP|TMP|SYSTEMROOT|LANG|LC_\w+|LD_LIBRARY_PATH|DYLD_LIBRARY_PATH|CUDA_\w+|NVIDIA_\w+|VK_\w+|GGML_\w+|OMP_\w+|OMPI_\w+|OPAL_PREFIX|PYTHONPATH|NCCL_\w+|FI_\w+|UCX_\w+|NODE_COMPILE_CACHE)$/i;

/** Workload identity (AKS) and Pod Identity (EKS), for an engine that reads the blob store itself. No static keys. */
const identity =
  /^(AWS_(DEFAULT_)?REGION|AWS_ROLE_ARN|AWS_WEB_IDENTITY_TOKEN_FILE|AWS_CONTAINER_CREDENTIALS_FULL_URI|AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE|AWS_ENDPOINT_URL|AZURE_(CLIENT_ID|TENANT_ID|FEDERATED_TOKEN_FILE|AUTHORITY_HOST))$/;

/** The part of an environment that engines are started with. */
export function engineEnvOf(env: Environment): Record<string, string> {
  return pick(env, passes);
}

/** The part of an environment that only engines get which read the blob store themselves. */
export function streamEnvOf(env: Environment): Record<string, string> {
  return pick(env, identity);
}

/** Whether requests must go through a proxy. */
export function isProxied(env: Environment): boolean {
  return Object.entries(env).some(
    ([name, value]) => /^(https?|all)_proxy$/i.test(name) && value !== undefined && value !== "",
  );
}

type Environment = Readonly<Record<string, string | undefined>>;

function pick(env: Environment, names: RegExp): Record<string, string> {
  const kept: Record<string, string> = {};
  for (const [name, value] of Object.entries(env)) if (value !== undefined && names.test(name)) kept[name] = value;
  return kept;
}
