/**
 * What an engine process may see of the agent's environment. A list of what passes, not of what does not: an engine runs
 * models from strangers, and the agent's environment holds cloud credentials under names that nobody can foresee.
 */
const passes =
  /^(PATH|HOME|USER|TMPDIR|TEMP|TMP|SYSTEMROOT|LANG|LC_\w+|LD_LIBRARY_PATH|DYLD_LIBRARY_PATH|CUDA_\w+|NVIDIA_\w+|VK_\w+|GGML_\w+|OMP_\w+|NODE_COMPILE_CACHE)$/i;

/** The part of an environment that engines are started with. */
export function engineEnvOf(env: Readonly<Record<string, string | undefined>>): Record<string, string> {
  const kept: Record<string, string> = {};
  for (const [name, value] of Object.entries(env)) if (value !== undefined && passes.test(name)) kept[name] = value;
  return kept;
}
