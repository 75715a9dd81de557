/** What came out of a run, as a table for people. */
import type { TortureResult } from "./run.ts";

export function describeTorture(result: TortureResult): string {
  const { faults, violations } = result;
  const rows: [string, string | number][] = [
    ["seed", result.seed],
    ["seconds of faults", result.seconds],
    ["nodes", result.nodes.join(", ")],
    ["shards", result.shards],
    ["transactions committed", result.commits],
    ["rows written in them", result.rows],
    ["rolled back", result.rolledBack],
    ["application killed before its COMMIT", result.interrupted],
    ["application killed in its COMMIT", result.unanswered],
    ["went back in time with their database", result.lapsed],
    ["writes that found the disk full", result.writesWithoutRoom],
    ["reads that checked the laws", result.reads],
    ...Object.entries(faults).sort(),
    ["keys compared on each node", result.keys],
    ["converged after the last fault, ms", result.convergedMs],
    ["committed rows lost", result.lost],
    ["rows that hold a wrong value", result.differences],
    ["violations", violations.length],
  ];
  const width = Math.max(...rows.map(([name]) => name.length));
  const table = rows.map(([name, value]) => `${name.padEnd(width)}  ${value}`);
  const kept = result.kept === undefined ? [] : [`databases, journals and logs: ${result.kept}`];
  return [...table, ...violations.map((text) => `VIOLATION ${text}`), ...kept].join("\n");
}
