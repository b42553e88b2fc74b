/** Names in a sentence about a config. */
export function list(names: Iterable<string>): string {
  return [...names].map((each) => `\`${each}\``).join(", ");
}

/** Places of the names that were there before. */
export function repeated(names: readonly string[]): number[] {
  return names.flatMap((each, at) => (names.indexOf(each) < at ? [at] : []));
}
