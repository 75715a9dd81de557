/** Has Marmot become much slower? Compares ratios to bare SQLite, which machines share, with those that were recorded. */
import { type FigureName, median, type Result } from "./results.ts";

/** What is compared: figures that don't depend on the machine's speed. */
const RATIOS = ["capturedRatio", "replicatedRatio", "endToEndRatio", "catchUpRatio"] as const satisfies FigureName[];
/** Below this part of what was recorded, something broke; above it, machines and their other work differ. */
const COLLAPSE = 0.5;

/** by "scenario, variant", then by figure */
export type Recorded = Readonly<Record<string, Readonly<Partial<Record<FigureName, number>>>>>;

/** The medians, to be kept. */
export function recordOf(results: readonly Result[]): Recorded {
  return Object.fromEntries(results.map((result) => [nameOf(result), ratiosOf(result, median)]));
}

/**
 * What collapsed, a line for each; empty when nothing did. The best round counts: what disturbs a round only makes it
 * slower.
 */
export function collapsed(results: readonly Result[], recorded: Recorded): string[] {
  const measured = Object.fromEntries(
    results.map((result) => [nameOf(result), ratiosOf(result, (values) => Math.max(...values))]),
  );
  return Object.entries(recorded).flatMap(([name, ratios]) =>
    Object.entries(ratios).flatMap(([figure, was]) => {
      const is = measured[name]?.[figure as FigureName];
      if (is === undefined) return [`${name}: ${figure} was not measured`];
      if (is >= was * COLLAPSE) return [];
      return [`${name}: ${figure} is ${shown(is)} of bare SQLite, and was ${shown(was)}`];
    })
  );
}

function nameOf({ scenario, variant }: Result): string {
  return `${scenario}, ${variant}`;
}

function ratiosOf(
  { figures }: Result,
  one: (values: readonly number[]) => number,
): Partial<Record<FigureName, number>> {
  return Object.fromEntries(RATIOS.flatMap((name) => {
    const values = figures[name];
    return values === undefined ? [] : [[name, Number(one(values).toFixed(3))]];
  }));
}

function shown(share: number): string {
  return `${(share * 100).toFixed(1)} %`;
}
