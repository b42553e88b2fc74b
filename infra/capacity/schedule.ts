import type { PlannedFleet } from "../plan/plan.ts";

type Schedule = PlannedFleet["scaling"]["schedule"][number];

const minutesPerDay = 1_440;
const minutesPerWeek = 7 * minutesPerDay;

/** A Monday: second 0 of a simulation. A time zone counts as it is on that day, winter in the north. */
const firstDay = new Date("2026-01-05T00:00:00Z");

/** A fleet's floors by the clock; schedules that name a day of the month or a month are left out, and named. */
export function floors(schedule: readonly Schedule[]): {
  readonly at: (atSeconds: number) => number;
  readonly leftOut: readonly string[];
} {
  const weeks = schedule.map((entry) => ({ entry, week: weekOf(entry) }));
  const leftOut = weeks.filter(({ week }) => week === null).map(({ entry }) => `${entry.start} to ${entry.end}`);
  const known = weeks.flatMap(({ week }) => week ?? []);
  if (known.length === 0) return { at: () => 0, leftOut };
  const highest = Array.from({ length: minutesPerWeek }, (_, minute) =>
    Math.max(...known.map((week) => week.floors[minute] ?? 0)),
  );
  return { at: (atSeconds) => highest[Math.floor(atSeconds / 60) % minutesPerWeek] ?? 0, leftOut };
}

/** The floor in each minute of a week; null where an expression is of another kind. */
function weekOf({ start, end, timezone, replicas }: Schedule): { readonly floors: Uint16Array } | null {
  const starts = minutesOf(start);
  const ends = minutesOf(end);
  if (starts === null || ends === null) return null;
  const offset = offsetMinutes(timezone);
  const result = new Uint16Array(minutesPerWeek);
  let isOn = false;
  // The second round knows what the end of the week left behind.
  for (let minute = 0; minute < 2 * minutesPerWeek; minute += 1) {
    const local = (((minute + offset) % minutesPerWeek) + minutesPerWeek) % minutesPerWeek;
    if (starts.has(local)) isOn = true;
    if (ends.has(local)) isOn = false;
    result[minute % minutesPerWeek] = isOn ? replicas : 0;
  }
  return { floors: result };
}

/** Minutes of the week, from Monday 00:00, at which a cron expression is due. */
function minutesOf(expression: string): Set<number> | null {
  const [minute = "", hour = "", day, month, weekday = "", ...rest] = expression.trim().split(/\s+/);
  if (rest.length > 0 || day !== "*" || month !== "*") return null;
  const minutes = numbers(minute, 0, 59);
  const hours = numbers(hour, 0, 23);
  const days = numbers(weekday.replaceAll(/[a-z]{3}/gi, dayNumber), 0, 7);
  if (minutes === null || hours === null || days === null) return null;
  // Cron's Sunday is 0 and 7.
  const mondayFirst = new Set(days.map((each) => (each + 6) % 7));
  return new Set(
    [...mondayFirst].flatMap((each) => hours.flatMap((at) => minutes.map((m) => each * minutesPerDay + at * 60 + m))),
  );
}

function dayNumber(name: string): string {
  const at = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"].indexOf(name.toLowerCase());
  return at === -1 ? name : String(at);
}

/** A field: any, one number, a range, each with a step, and lists of them. */
function numbers(field: string, least: number, most: number): number[] | null {
  const parts = field.split(",").map((part) => {
    const match = /^(?:\*|(\d{1,2})(?:-(\d{1,2}))?)(?:\/(\d{1,2}))?$/.exec(part);
    if (match === null) return null;
    const [, from, to, step = "1"] = match;
    const first = from === undefined ? least : Number(from);
    const last = from === undefined ? most : Number(to ?? from);
    const by = Number(step);
    if (first < least || last > most || last < first || by === 0) return null;
    return Array.from({ length: Math.floor((last - first) / by) + 1 }, (_, at) => first + at * by);
  });
  return parts.some((part) => part === null) ? null : parts.flatMap((part) => part ?? []);
}

/** Minutes that a time zone is ahead of UTC on the first day; one that nobody knows counts as UTC. */
function offsetMinutes(timeZone: string): number {
  try {
    const local = new Date(firstDay.toLocaleString("en-US", { timeZone }));
    const utc = new Date(firstDay.toLocaleString("en-US", { timeZone: "UTC" }));
    return Math.round((local.getTime() - utc.getTime()) / 60_000);
  } catch {
    return 0;
  }
}
