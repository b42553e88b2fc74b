import { charts } from "../../infra/catalog/add-ons.ts";
import { allowedRegistries } from "../allowed.ts";
import { levels, type ResourceRule } from "../rule.ts";
import { at, said } from "../values.ts";
import { containersOf, podPaths } from "./pods.ts";

const release = "kubernetes:helm.sh/v3:Release";

/** What runs: images and charts. */
export const softwareRules: readonly ResourceRule[] = [
  {
    id: "pinned-images",
    title: "Images have a version, and come from a registry that is allowed",
    levels: levels.always,
    severity: "high",
    reason: "`latest` is another program tomorrow, on one node of two.",
    remedy: "A tag that is not `latest`, or a digest; add a registry of yours to policies/allowed.ts.",
    judges: "resource",
    types: Object.keys(podPaths),
    judge: (resource) =>
      containersOf(resource).flatMap(({ name, container }) => {
        const image = at(container, "image");
        return (typeof image === "string" ? imageProblems(image) : [`is ${said(image)}`]).map(
          (problem) => `the image of ${name} ${problem}`,
        );
      }),
  },
  {
    id: "images-by-digest",
    title: "Images are named by their digest",
    levels: levels.saidInProd,
    severity: "low",
    reason: "A tag can be moved; a digest is the image.",
    remedy: "`images.version` with a digest. With AKS artifact streaming tags are the only way.",
    judges: "resource",
    types: Object.keys(podPaths),
    judge: (resource) =>
      containersOf(resource)
        .filter(({ container }) => !String(at(container, "image")).includes("@sha256:"))
        .map(({ name, container }) => `the image of ${name} is ${said(at(container, "image"))}`),
  },
  {
    id: "pinned-charts",
    title: "Charts are of the catalogue, in its version",
    levels: levels.always,
    severity: "high",
    reason: "A chart runs what it wants with the rights of whoever installs it.",
    remedy: "Add the chart with its version and where that was read to infra/catalog/add-ons.ts.",
    judges: "resource",
    types: [release, "kubernetes:helm.sh/v4:Chart", "kubernetes:helm.sh/v3:Chart"],
    judge({ properties }) {
      const [chart, version] = [String(at(properties, "chart")), at(properties, "version")];
      const repository = at(properties, "repositoryOpts.repo");
      const known = Object.values(charts).find((each) =>
        each.repository.startsWith("oci://")
          ? chart === `${each.repository}/${each.chart}`
          : chart === each.chart && repository === each.repository,
      );
      if (known === undefined) return [`${chart} of ${said(repository)} is not in the catalogue`];
      return version === known.version ? [] : [`its version is ${said(version)}; the catalogue has ${known.version}`];
    },
  },
];

function imageProblems(image: string): string[] {
  const [path = "", digest] = image.split("@");
  const tag = /:([^/:]+)$/.exec(path)?.[1];
  const problems: string[] = [];
  if (digest === undefined && (tag === undefined || tag === "latest")) problems.push(`has no version: ${image}`);
  // A name without a host is one of Docker Hub.
  const isHost = /^[^/]+[.:][^/]*\//.test(path);
  const full = isHost ? path : `docker.io/${path}`;
  if (!allowedRegistries.some((allowed) => full.startsWith(allowed)))
    problems.push(`is of no allowed registry: ${image}`);
  return problems;
}
