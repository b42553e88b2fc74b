import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { stringify } from "yaml";
import { fileNameOf, folderOf, type ChartRelease, type Manifest, type Rendering } from "./render.ts";

/** An object as YAML, its keys sorted, the same for the same object. Quoted for YAML 1.1, which Kubernetes' tools read. */
export function yamlOf(value: unknown): string {
  return stringify(value, { lineWidth: 0, sortMapEntries: true, aliasDuplicateObjects: false, schema: "yaml-1.1" });
}

/** How to install a chart by hand: the command, and its values. */
export function releaseText({ name, namespace, chart, version, repository, values }: ChartRelease): string {
  const from = repository === null ? chart : `${chart} --repo ${repository}`;
  const command = `helm upgrade --install ${name} ${from} --version ${version} --namespace ${namespace} --values ${name}.yaml`;
  return `# ${command}\n${yamlOf(values)}`;
}

/** Writes one file an object in a folder a namespace, charts' values in `helm`, dashboards in `dashboards`, and an index. */
export async function writeRendering(stack: string, rendering: Rendering, directory: string): Promise<void> {
  const files = new Map<string, string>();
  for (const manifest of rendering.manifests) {
    files.set(join(folderOf(manifest), `${fileNameOf(manifest)}.yaml`), yamlOf(manifest));
  }
  for (const release of rendering.releases) files.set(join("helm", `${release.name}.yaml`), releaseText(release));
  for (const [name, json] of dashboardsIn(rendering.manifests)) files.set(join("dashboards", name), json);
  files.set("README.md", indexOf(stack, rendering));
  for (const [path, text] of files) {
    await mkdir(join(directory, path, ".."), { recursive: true });
    await writeFile(join(directory, path), text);
  }
}

function dashboardsIn(manifests: readonly Manifest[]): [string, string][] {
  return manifests
    .filter(({ metadata }) => metadata.labels?.["grafana_dashboard"] !== undefined)
    .flatMap(({ data }) => Object.entries(Object(data)).map(([name, json]): [string, string] => [name, String(json)]));
}

function indexOf(stack: string, { manifests, releases }: Rendering): string {
  const objects = manifests.map(
    (each) => `| ${folderOf(each)} | ${each.kind} | ${each.metadata.name} | ${each.apiVersion} |`,
  );
  const charts = releases.map(
    ({ name, chart, version, namespace }) => `| ${name} | ${chart} | ${version} | ${namespace} |`,
  );
  return `# Kubernetes objects of ${stack}

What \`pulumi up\` puts into the cluster, rendered without a cloud. Values in angle brackets are known to a deployment
alone: \`<secret: …>\` is a secret, \`<output: …>\` comes from the cloud. So this is for reading and for comparing, not for
\`kubectl apply\`.

Charts are Pulumi's Helm releases: \`helm/\` has the values of each, with the command that would install it. Their own
objects are not here, since rendering them needs the chart. \`dashboards/\` has what a managed Grafana imports.

${manifests.length} objects:

| folder | kind | name | API |
| --- | --- | --- | --- |
${objects.join("\n")}

${releases.length} charts:

| name | chart | version | namespace |
| --- | --- | --- | --- |
${charts.join("\n")}
`;
}
