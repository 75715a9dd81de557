/** The application of a node: Python's sqlite3 in a process of its own (app.py). */
import { fileURLToPath } from "node:url";
import { PythonProgram } from "../../tests/support/python_program.ts";

const PROGRAM = fileURLToPath(new URL("./app.py", import.meta.url));

export type Kind = "insert" | "update" | "delete";

/** Which rows are written, and how. */
export interface Work {
  readonly kind: Kind;
  /** id of the first row */
  readonly first: number;
  readonly count: number;
  /** bytes of a row's text and blob */
  readonly size: number;
  readonly table: string;
  /** of an update: pick the rows at random among so many; null updates each row once */
  readonly among: number | null;
  /** of updates and deletes: in random order of the keys, so that each transaction touches as many pages as rows */
  readonly shuffled: boolean;
  /** of an update: what it writes differs from what it wrote in another turn, and from what was inserted */
  readonly turn: number;
}

/** of commits, in nanoseconds */
export interface Spread {
  readonly p50: number;
  readonly p90: number;
  readonly p99: number;
  readonly max: number;
  readonly count: number;
}

/** times of CLOCK_MONOTONIC in nanoseconds */
export interface Written {
  readonly started: number;
  readonly ended: number;
  readonly commits: Spread;
  /** of each commit, how long another connection kept the write lock from it */
  readonly waits: Spread;
}

export interface Paced {
  readonly commits: Spread;
  readonly waits: Spread;
  /** id of the first row */
  readonly first: number;
  /** of each row, when its commit returned */
  readonly ends: readonly number[];
}

export interface Watched {
  readonly reached: boolean;
  readonly seen: readonly (readonly [value: number, at: number])[];
}

/** Requests are answered one after the other; each method rejects when Python raises or ends. */
export class Application implements AsyncDisposable {
  private constructor(private readonly program: PythonProgram) {}

  static async start(path: string): Promise<Application> {
    return new Application(await PythonProgram.start(PROGRAM, [path]));
  }

  get pid(): number {
    return this.program.pid;
  }

  /** Versions of what it runs on. */
  async facts(): Promise<{ sqlite: string; python: string }> {
    return await this.#ask("facts", {}) as { sqlite: string; python: string };
  }

  /** CLOCK_MONOTONIC in nanoseconds, which the harness's own runtime has no way to read. */
  async now(): Promise<number> {
    return await this.#ask("now", {}) as number;
  }

  /** How long the disk takes to make appends to this file durable. */
  async sync(path: string, count: number): Promise<Spread> {
    return await this.#ask("sync", { path, count }) as Spread;
  }

  async script(sql: string): Promise<void> {
    await this.#ask("script", { sql });
  }

  async rows(sql: string): Promise<unknown[][]> {
    return await this.#ask("rows", { sql }) as unknown[][];
  }

  /** Inserts rows, unmeasured. */
  async fill(work: Omit<Work, "kind">): Promise<void> {
    await this.#ask("fill", { ...work });
  }

  /** Writes at full speed in transactions of `per` rows. With a mark, the last one also inserts it into `mark`. */
  async write(work: Work, per: number, mark: number | null = null): Promise<Written> {
    return await this.#ask("write", { ...work, per, mark }) as Written;
  }

  /** One row a transaction, with random pauses of `pause` seconds on average, for at most that many seconds. */
  async paced(work: Work, pause: number, seconds: number): Promise<Paced> {
    return await this.#ask("paced", { ...work, pause, seconds }) as Paced;
  }

  /** Deferred transactions that read first; `busy` of them were refused. */
  async upgrading(work: Work, pause: number, seconds: number): Promise<{ busy: number; done: number }> {
    return await this.#ask("upgrading", { ...work, pause, seconds }) as { busy: number; done: number };
  }

  /** Polls a number until it is at least `until`, with `pause` seconds between two looks. */
  async watch(sql: string, until: number, pause: number, seconds: number): Promise<Watched> {
    return await this.#ask("watch", { sql, until, pause, seconds }) as Watched;
  }

  /** Polls a row until it is this one. @returns when the read that saw it began; null when it never was */
  async equal(sql: string, row: readonly unknown[], pause: number, seconds: number): Promise<number | null> {
    return await this.#ask("equal", { sql, row, pause, seconds }) as number | null;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.program.end();
  }

  #ask(op: string, request: Readonly<Record<string, unknown>>): Promise<unknown> {
    return this.program.ask({ op, ...request });
  }
}
