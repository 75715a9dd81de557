/** What a run of many histories writes down while it goes on, so that it can be interrupted and continued. */
import { existsSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import process from "node:process";
import { commitOf } from "../support/commit.ts";
import { Counters } from "./counters.ts";

/** One history. */
export interface SeedReport {
  readonly seed: number;
  readonly digest: string;
  readonly failure: string | undefined;
  readonly failedAt: number;
  readonly counters: readonly (readonly [string, number])[];
}

interface Written {
  /** seeds one after the other, from the first on */
  readonly histories: number;
  readonly firstSeed: number;
  /** of all parts together, by the clock */
  readonly seconds: number;
  /** of each part, where it is another than that of the part before */
  readonly runtimes: readonly string[];
  readonly commits: readonly string[];
  readonly failed: readonly number[];
  /** failed in an earlier part, and hold since what was wrong was mended */
  readonly failedAndMended: readonly number[];
  readonly counts: Readonly<Record<string, number>>;
}

export class RunReport {
  private readonly before: Written | undefined;
  private readonly counters = new Counters();
  readonly failed: Set<number>;
  private readonly mended: Set<number>;
  /** behind a seed that has not come yet: not counted until it has, since a run is continued at the first that is missing */
  private readonly ahead = new Map<number, SeedReport>();
  private readonly started = performance.now();
  private readonly commit = commitOf("src", "tests/simulation");
  /** histories from the first seed on, those of earlier parts included */
  histories: number;

  /** Continues what the file holds, when that begins with the same seed and says which source it ran on. */
  constructor(private readonly path: string, private readonly firstSeed: number) {
    const written: Partial<Written> = existsSync(path) ? JSON.parse(readFileSync(path, "utf8")) : {};
    this.before = written.firstSeed === firstSeed && written.commits !== undefined ? written as Written : undefined;
    this.histories = this.before?.histories ?? 0;
    this.failed = new Set(this.before?.failed);
    this.mended = new Set(this.before?.failedAndMended);
    this.counters.merge(Object.entries(this.before?.counts ?? {}));
  }

  take(report: SeedReport): void {
    if (report.failure !== undefined) this.failed.add(report.seed);
    this.ahead.set(report.seed, report);
    for (;;) {
      const seed = this.firstSeed + this.histories;
      const next = this.ahead.get(seed);
      if (next === undefined) return;
      this.ahead.delete(seed);
      this.counters.merge(next.counters);
      this.histories++;
    }
  }

  /** A seed that failed before was run again, and held. */
  held(seed: number): void {
    this.failed.delete(seed);
    this.mended.add(seed);
  }

  /** Readers see the old file or the new one, whenever this process ends. */
  write(): void {
    const written: Written = {
      histories: this.histories,
      firstSeed: this.firstSeed,
      seconds: Math.round((this.before?.seconds ?? 0) + (performance.now() - this.started) / 1000),
      runtimes: joined(this.before?.runtimes, runtimeOf()),
      commits: joined(this.before?.commits, this.commit),
      failed: sorted(this.failed),
      failedAndMended: sorted(this.mended),
      counts: Object.fromEntries([...this.counters.counts].sort(([a], [b]) => a < b ? -1 : 1)),
    };
    writeFileSync(`${this.path}.new`, `${JSON.stringify(written, undefined, 2)}\n`);
    renameSync(`${this.path}.new`, this.path);
  }
}

function sorted(seeds: ReadonlySet<number>): number[] {
  return [...seeds].sort((a, b) => a - b);
}

function joined(before: readonly string[] = [], now: string): string[] {
  return before.at(-1) === now ? [...before] : [...before, now];
}

function runtimeOf(): string {
  const { bun, deno } = process.versions;
  return bun === undefined ? `Deno ${deno}` : `Bun ${bun}`;
}
