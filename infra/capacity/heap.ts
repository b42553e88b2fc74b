/** A queue by a number, the least first; equal ones in any fixed order. */
export class Heap<Item> {
  readonly #keys: number[] = [];
  readonly #items: Item[] = [];

  get size(): number {
    return this.#keys.length;
  }

  /** Key of the first one; Infinity when there is none. */
  get first(): number {
    return this.#keys[0] ?? Infinity;
  }

  push(key: number, item: Item): void {
    let at = this.#keys.length;
    this.#keys.push(key);
    this.#items.push(item);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if ((this.#keys[parent] ?? 0) <= key) break;
      this.#swap(at, parent);
      at = parent;
    }
  }

  /** Takes the first one; undefined when there is none. */
  pop(): Item | undefined {
    const top = this.#items[0];
    const lastKey = this.#keys.pop();
    const lastItem = this.#items.pop();
    if (lastKey === undefined || lastItem === undefined || this.#keys.length === 0) return top;
    this.#keys[0] = lastKey;
    this.#items[0] = lastItem;
    this.#sink();
    return top;
  }

  #sink(): void {
    let at = 0;
    for (;;) {
      const left = 2 * at + 1;
      const right = left + 1;
      let least = at;
      if ((this.#keys[left] ?? Infinity) < (this.#keys[least] ?? Infinity)) least = left;
      if ((this.#keys[right] ?? Infinity) < (this.#keys[least] ?? Infinity)) least = right;
      if (least === at) return;
      this.#swap(at, least);
      at = least;
    }
  }

  #swap(a: number, b: number): void {
    // Both places are filled: callers compare their keys first.
    const [key, item] = [this.#keys[a] as number, this.#items[a] as Item];
    this.#keys[a] = this.#keys[b] as number; // as above
    this.#items[a] = this.#items[b] as Item; // as above
    this.#keys[b] = key;
    this.#items[b] = item;
  }
}
