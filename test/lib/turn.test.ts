import { setImmediate as nextTurn } from "node:timers/promises";
import { expect, test } from "vitest";
import { sendInTurn } from "../../runtime/lib/turn.ts";

test("what a turn has to send leaves at its end, in order", async () => {
  const sent: number[] = [];
  for (const number of [1, 2, 3]) sendInTurn(() => sent.push(number));
  await Promise.resolve();
  expect(sent).toEqual([]);
  await nextTurn();
  expect(sent).toEqual([1, 2, 3]);
});

test("sixteen wait for no more, and what they cause leaves with the next", async () => {
  const sent: number[] = [];
  for (let number = 1; number <= 17; number += 1) {
    sendInTurn(() => {
      sent.push(number);
      if (number === 16) sendInTurn(() => sent.push(0));
    });
    expect(sent).toHaveLength(number < 16 ? 0 : 16);
  }
  await nextTurn();
  expect(sent.slice(16)).toEqual([0, 17]);
});
