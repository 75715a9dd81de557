/** What a scenario gives: figures of each round, and what they cost. */

interface FigureKind {
  /** head of a column; "…" and short ones go on from the column before */
  readonly title: string;
  /** its name by itself */
  readonly legend: string;
  readonly unit: string;
}

/** How a figure is called and shown; the order is that of a table's columns. */
export const FIGURES = {
  bare: { title: "bare SQLite", legend: "bare SQLite", unit: "rows/s" },
  captured: { title: "with capture, Marmot stopped", legend: "with capture, Marmot stopped", unit: "rows/s" },
  capturedRatio: { title: "… of bare", legend: "with capture, Marmot stopped", unit: "share" },
  replicated: { title: "while replicated", legend: "while replicated", unit: "rows/s" },
  replicatedRatio: { title: "… of bare", legend: "while replicated", unit: "share" },
  endToEnd: { title: "end to end", legend: "end to end", unit: "rows/s" },
  endToEndRatio: { title: "… of bare", legend: "end to end", unit: "share" },
  lag: { title: "lag when the writer stops", legend: "lag", unit: "ms" },
  syncP50: { title: "one fsync of this disk, p50", legend: "fsync, p50", unit: "ms" },
  syncP99: { title: "p99", legend: "fsync, p99", unit: "ms" },
  answerP50: { title: "a publish and its answer, p50", legend: "the broker alone, p50", unit: "ms" },
  answerP99: { title: "p99", legend: "the broker alone, p99", unit: "ms" },
  visibleP50: { title: "commit to visible, p50", legend: "p50", unit: "ms" },
  visibleP99: { title: "p99", legend: "p99", unit: "ms" },
  visibleMax: { title: "max", legend: "max", unit: "ms" },
  catchUp: { title: "catch-up, once it has begun", legend: "catch-up", unit: "rows/s" },
  catchUpRatio: { title: "… of bare", legend: "catch-up", unit: "share" },
  start: { title: "from start to the first change", legend: "start to first change", unit: "ms" },
  all: { title: "from start to the last change", legend: "start to last change", unit: "ms" },
  idleCpu: { title: "idle CPU of a node", legend: "idle CPU", unit: "share of a core" },
  resident: { title: "resident memory of a node", legend: "resident memory", unit: "MB" },
  bareP50: { title: "commit of bare SQLite, p50", legend: "bare SQLite, p50", unit: "ms" },
  bareP99: { title: "p99", legend: "bare SQLite, p99", unit: "ms" },
  bareMax: { title: "max", legend: "bare SQLite, max", unit: "ms" },
  commitP50: { title: "commit while replicated, p50", legend: "with Marmot, p50", unit: "ms" },
  commitP99: { title: "p99", legend: "with Marmot, p99", unit: "ms" },
  commitMax: { title: "max", legend: "with Marmot, max", unit: "ms" },
  waitP99: { title: "of which for the lock, p99", legend: "for the lock, p99", unit: "ms" },
  waitMax: { title: "max", legend: "for the lock, max", unit: "ms" },
  busy: { title: "upgrades refused as busy", legend: "refused", unit: "share" },
  wal: { title: "largest WAL", legend: "WAL", unit: "MB" },
} as const satisfies Record<string, FigureKind>;

export type FigureName = keyof typeof FIGURES;

/** What a measurement cost: of each process, and of the broker's connections. */
export interface Cost {
  /** CPU seconds per 1,000 rows, by process */
  readonly cpu: Readonly<Record<string, number>>;
  /** bytes per 1,000 rows that the broker got from all nodes */
  readonly bytesIn: number;
  /** bytes per 1,000 rows that the broker sent to all nodes */
  readonly bytesOut: number;
  /** MB, by process */
  readonly peakMemory: Readonly<Record<string, number>>;
  /** cores that processes outside the benchmark used meanwhile */
  readonly foreignCores: number;
}

export interface Result {
  readonly scenario: string;
  readonly system: string;
  /** what tells this line from others of the scenario, such as "transactions of 100" */
  readonly variant: string;
  readonly rows: number;
  /** of each round */
  readonly figures: Readonly<Partial<Record<FigureName, readonly number[]>>>;
  readonly costs: readonly Cost[];
  /** why a round gave no figures, for each that gave none */
  readonly failures: readonly string[];
}

/** A result in the making. */
export class Measurement implements Result {
  readonly figures: Partial<Record<FigureName, number[]>> = {};
  readonly costs: Cost[] = [];
  readonly failures: string[] = [];

  constructor(
    readonly scenario: string,
    readonly system: string,
    readonly variant: string,
    readonly rows: number,
  ) {}

  add(figures: Readonly<Partial<Record<FigureName, number>>>): void {
    for (const [name, value] of Object.entries(figures)) (this.figures[name as FigureName] ??= []).push(value);
  }
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  if (sorted.length % 2 === 1) return sorted[middle] ?? NaN;
  return ((sorted[middle - 1] ?? NaN) + (sorted[middle] ?? NaN)) / 2;
}

export function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? NaN;
}
