/** A cumulative histogram in seconds. */
export class Histogram {
  readonly #bounds: readonly number[];
  readonly #counts: number[];
  #sum = 0;
  #count = 0;

  constructor(bounds: readonly number[]) {
    this.#bounds = bounds;
    this.#counts = bounds.map(() => 0);
  }

  observe(value: number): void {
    this.#sum += value;
    this.#count += 1;
    for (const [index, bound] of this.#bounds.entries()) {
      if (value <= bound) this.#counts[index] = (this.#counts[index] ?? 0) + 1;
    }
  }

  samples(name: string, labels: Labels): Sample[] {
    const buckets = this.#bounds.map((bound, index) => ({
      name: `${name}_bucket`,
      labels: { ...labels, le: String(bound) },
      value: this.#counts[index] ?? 0,
    }));
    return [
      ...buckets,
      { name: `${name}_bucket`, labels: { ...labels, le: "+Inf" }, value: this.#count },
      { name: `${name}_sum`, labels, value: this.#sum },
      { name: `${name}_count`, labels, value: this.#count },
    ];
  }
}

export type Labels = Readonly<Record<string, string>>;

/** One line of a Prometheus page. */
export interface Sample {
  readonly name: string;
  readonly labels: Labels;
  readonly value: number;
}

/** A metric with its lines. */
export interface Family {
  readonly name: string;
  readonly type: "counter" | "gauge" | "histogram";
  readonly help: string;
  readonly samples: readonly Sample[];
}

/** A counter or gauge with one line. */
export function single(type: "counter" | "gauge", name: string, line: { labels: Labels; value: number }): Family {
  return { name, type, help: name.replaceAll(/[:_]/g, " "), samples: [{ name, ...line }] };
}

/** A histogram as a family. */
export function histogram(name: string, data: Histogram, labels: Labels): Family {
  return { name, type: "histogram", help: name.replaceAll(/[:_]/g, " "), samples: data.samples(name, labels) };
}

/** The Prometheus text format. Families named in `omit` are left out. */
export function exposition(families: readonly Family[], omit: readonly string[] = []): string {
  return families
    .filter(({ name }) => !omit.includes(name))
    .map(({ name, type, help, samples }) =>
      [`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`, ...samples.map((sample) => sampleText(sample)), ""].join(
        "\n",
      ),
    )
    .join("");
}

function sampleText({ name, labels, value }: Sample): string {
  const pairs = Object.entries(labels).map(([key, text]) => `${key}=${JSON.stringify(text)}`);
  return `${name}${pairs.length === 0 ? "" : `{${pairs.join(",")}}`} ${value}`;
}
