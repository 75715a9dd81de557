/** Reads and clears one table's change log. */
import { bytesOf, type Change, OP_DELETE, type TableShape } from "../change.ts";
import type { Database, Statement } from "../database.ts";
import { type AroundSnapshot, EntryReader, type StoredEntry } from "./entry_reader.ts";
import { LazyStatement } from "./lazy_statement.ts";
import { COLUMNS } from "./own_tables.ts";
import { id } from "./quote.ts";
import { logName, tableOfLog, valueColumn } from "./triggers.ts";
import type { TextEncoding } from "./values.ts";

/** Entries read at once: few at first, fewer where the last ones were large, then as many as hold about that many bytes */
const FIRST_CHUNK_ROWS = 16;
const CHUNK_ROWS = 512;
const CHUNK_BYTES = 512 * 1024;
/** Runs of fewer neighbours than this, on average, are deleted by one list rather than one by one. */
const LEAST_RUN = 4;

export interface LogShape extends TableShape {
  readonly collations: readonly string[];
  /** index of a column → the last of the entries that were made before the table had it */
  readonly filled: ReadonlyMap<number, number>;
}

export class ChangeLog {
  private readonly entries: EntryReader;
  private readonly highestSeq: Statement;
  private readonly lowestSeq: Statement;
  private readonly bothEnds: Statement;
  private readonly stamp: Statement;
  private readonly some: Statement;
  private readonly deleteRange: Statement;
  private readonly deleteListed: Statement;
  private readonly deleteStamped: Statement;
  /** entries up to here were made before the table had all of its columns */
  private filledTo: number;
  private firstChunk = FIRST_CHUNK_ROWS;

  constructor(db: Database, readonly shape: LogShape, encoding: TextEncoding) {
    this.filledTo = Math.max(0, ...shape.filled.values());
    const log = id(logName(shape.table));
    this.entries = new EntryReader(db, log, shape.columns.map((column) => `l.${id(valueColumn(column))}`), encoding);
    this.highestSeq = new LazyStatement(db, () => `SELECT max(seq) FROM ${log}`);
    this.lowestSeq = new LazyStatement(db, () => `SELECT min(seq) FROM ${log}`);
    // not min and max of one SELECT, which would read the whole log
    this.bothEnds = new LazyStatement(db, () => `SELECT (SELECT min(seq) FROM ${log}), (SELECT max(seq) FROM ${log})`);
    this.some = new LazyStatement(db, () => `SELECT count(*) FROM (SELECT 1 FROM ${log} LIMIT ?)`);
    this.stamp = new LazyStatement(db, () => `SELECT stamp FROM ${log} WHERE seq = ?`);
    this.deleteRange = new LazyStatement(db, () => `DELETE FROM ${log} WHERE seq BETWEEN ? AND ?`);
    this.deleteListed = new LazyStatement(
      db,
      () => `DELETE FROM ${log} WHERE seq IN (SELECT value FROM json_each(?))`,
    );
    this.deleteStamped = new LazyStatement(db, () => `DELETE FROM ${log} WHERE seq = ? AND stamp = ?`);
  }

  /**
   * Entries with `after` < seq ≤ `to`, at most `limit`, in order. Read in chunks of bounded size, and no statement is
   * left open when the reader stops early: that would hold the connection in an old snapshot.
   * @param around called for each snapshot: a chunk is one
   */
  *read(
    after: number,
    to: number,
    limit: number,
    around: AroundSnapshot = (snapshot) => snapshot(),
  ): Generator<Change> {
    let chunk = this.firstChunk;
    for (let at = after, left = limit; left > 0;) {
      const wanted = Math.min(chunk, left);
      const entries = this.entries.read(at, to, wanted, around);
      if (entries.length === 0) return;
      let bytes = 0;
      for (const { values } of entries) bytes += bytesOf(values);
      const fitting = Math.max(1, Math.floor(CHUNK_BYTES * entries.length / (bytes + 1)));
      // of large rows a reader takes one, which fills its frame, and comes again
      this.firstChunk = Math.min(FIRST_CHUNK_ROWS, fitting);
      for (const entry of entries) yield this.change(entry);
      if (entries.length < wanted) return;
      at = entries.at(-1)!.seq;
      left -= entries.length;
      chunk = Math.min(CHUNK_ROWS, 4 * chunk, fitting);
    }
  }

  /** Was the entry made before the table had all of its columns? Values of the others were filled in since. */
  isFilled(seq: number): boolean {
    return seq <= this.filledTo;
  }

  /** Indexes of the columns that the table had when the entry was made. */
  madeWith(seq: number): number[] {
    return this.shape.columns.map((_, column) => column).filter((column) =>
      seq > Math.min(this.filledTo, this.shape.filled.get(column) ?? 0)
    );
  }

  /** Entries were acknowledged: numbers above the highest one left will be used again. */
  acknowledged(highest: number): void {
    this.filledTo = Math.min(this.filledTo, highest);
  }

  /** 0 when the log is empty */
  highest(): number {
    return Number(this.highestSeq.get()![0] ?? 0);
  }

  /** 0 when the log is empty */
  lowest(): number {
    return Number(this.lowestSeq.get()![0] ?? 0);
  }

  /** both 0 when the log is empty */
  ends(): { readonly lowest: number; readonly highest: number } {
    const [lowest, highest] = this.bothEnds.get()!;
    return { lowest: Number(lowest ?? 0), highest: Number(highest ?? 0) };
  }

  /** how many entries there are; not more than `limit` are counted */
  count(limit: number): number {
    return Number(this.some.get(BigInt(limit))![0]);
  }

  /** undefined when there is no such entry */
  stampOf(seq: number): bigint | undefined {
    return this.stamp.get(BigInt(seq))?.[0] as bigint | undefined;
  }

  /** Deletes entries whose seqs are known to be those of own batches; neighbours go in one statement. */
  deleteSeqs(seqs: readonly number[]): void {
    const runs = runsOf(seqs.toSorted((a, b) => a - b));
    if (runs.length > 1 && runs.length * LEAST_RUN > seqs.length) this.deleteListed.run(JSON.stringify(seqs));
    else for (const [from, to] of runs) this.deleteRange.run(BigInt(from), BigInt(to));
  }

  /** An entry whose number was perhaps used again: only the same stamp is the same entry. */
  deleteIfSame(seq: number, stamp: bigint): void {
    this.deleteStamped.run(BigInt(seq), stamp);
  }

  private change(entry: StoredEntry): Change {
    if (entry.op !== OP_DELETE) return entry;
    return { ...entry, values: this.shape.key.map((place) => entry.values[place]!) };
  }
}

/** First and last of the numbers that follow each other, of sorted ones. */
function runsOf(seqs: readonly number[]): [number, number][] {
  const runs: [number, number][] = [];
  for (const seq of seqs) {
    const run = runs.at(-1);
    if (run !== undefined && run[1] === seq - 1) run[1] = seq;
    else runs.push([seq, seq]);
  }
  return runs;
}

/** terms of one compound SELECT; SQLite's own limit is 500 */
const COMPOUND_TERMS = 200;

/**
 * Queries that tell the highest seq of many logs at once, as rows [index into names, seq or NULL].
 * @param tables key to give back, and table name
 */
export function headQueries(
  db: Database,
  tables: readonly [string, string][],
): { query: Statement; names: string[] }[] {
  const queries: { query: Statement; names: string[] }[] = [];
  for (let from = 0; from < tables.length; from += COMPOUND_TERMS) {
    const some = tables.slice(from, from + COMPOUND_TERMS);
    const sql = some.map(([, table], place) => `SELECT ${place}, max(seq) FROM ${id(logName(table))}`).join(
      " UNION ALL ",
    );
    queries.push({ query: db.prepare(sql), names: some.map(([name]) => name) });
  }
  return queries;
}

/** Tables that have a change log, dropped ones included. */
export function loggedTables(db: Database): string[] {
  const names = db.prepare("SELECT name FROM main.sqlite_schema WHERE type = 'table'").all().map(([name]) =>
    String(name)
  );
  return names.map(tableOfLog).filter((table) => table !== undefined);
}

/** Entries that have not come back through the stream, for each table that has some. */
export function countPending(db: Database): { table: string; entries: number }[] {
  return loggedTables(db).map((table) => {
    return { table, entries: Number(db.prepare(`SELECT count(*) FROM ${id(logName(table))}`).get()![0]) };
  }).filter(({ entries }) => entries > 0);
}

/** The entries that all change logs had at one moment. */
export interface PendingMarks {
  /** seq of any of them */
  readonly highest: bigint;
  readonly stamps: ReadonlySet<bigint>;
}

export function pendingMarks(db: Database): PendingMarks {
  let highest = 0n;
  const stamps = new Set<bigint>();
  for (const table of loggedTables(db)) {
    for (const [seq, stamp] of db.prepare(`SELECT seq, stamp FROM ${id(logName(table))}`).all() as [bigint, bigint][]) {
      if (seq > highest) highest = seq;
      stamps.add(stamp);
    }
  }
  return { highest, stamps };
}

/** How many tables still hold one of the marked entries. By stamp: a table may have another name, and a seq another entry. */
export function stillPending(db: Database, { highest, stamps }: PendingMarks): number {
  return loggedTables(db).filter((table) => {
    const left = db.prepare(`SELECT stamp FROM ${id(logName(table))} WHERE seq <= ?`).all(highest);
    return left.some(([stamp]) => stamps.has(stamp as bigint));
  }).length;
}

export function dropEntries(db: Database): void {
  for (const table of loggedTables(db)) db.exec(`DELETE FROM ${id(logName(table))}`);
  db.exec(`UPDATE ${COLUMNS} SET filled_to = NULL`);
}
