/** What must hold once everything came back: nothing committed is lost, and nothing is there that nobody wrote. */
import type { Journal } from "./journal.ts";

/** Rows of these tables may have been displaced by another row. */
const DISPLACED = /^seat\//;
const SHOWN = 10;

export interface Verdict {
  readonly keys: number;
  /** committed rows that are gone */
  readonly lost: number;
  /** rows that hold what is not their last write */
  readonly stale: number;
  /** the first of each, in words */
  readonly problems: readonly string[];
}

/**
 * @param state what each key holds on every node, by now
 * @param initial what the databases began with
 */
export function judge(
  state: Readonly<Record<string, string>>,
  initial: Readonly<Record<string, string>>,
  journals: ReadonlyMap<string, Journal>,
): Verdict {
  const keys = new Set([...Object.keys(state), ...Object.keys(initial)]);
  for (const { last } of journals.values()) for (const key of last.keys()) keys.add(key);
  let [lost, stale] = [0, 0];
  const problems: string[] = [];
  for (const key of keys) {
    const found = state[key] ?? null;
    const allowed = allowedValues(key, initial[key] ?? null, journals);
    if (allowed.includes(found) || (found === null && DISPLACED.test(key))) continue;
    if (found === null) lost++;
    else stale++;
    if (problems.length < SHOWN) problems.push(`${key}: ${found} instead of ${[...new Set(allowed)].join(" or ")}`);
  }
  return { keys: keys.size, lost, stale, problems };
}

/** The last write of all is the last one of some node: which node's, the stream has decided. */
function allowedValues(
  key: string,
  initial: string | null,
  journals: ReadonlyMap<string, Journal>,
): (string | null)[] {
  const writes = [...journals.values()].flatMap(({ last }) => last.get(key) ?? []);
  const values = writes.flatMap((write) => write.values);
  return writes.some(({ sure }) => sure) ? values : [initial, ...values];
}
