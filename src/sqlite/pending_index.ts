/**
 * Which entries of a change log are about a key, or about a UNIQUE value: an index of hashes in memory, 20 bytes an
 * entry and value. Entries that were acknowledged since stay in it until it is built again, so every hit is checked
 * against the log.
 */
import { type Change, OP_DELETE, type SqlValue } from "../change.ts";
import type { Database, Statement } from "../database.ts";
import { canonicalKey, hashKey } from "../shard.ts";
import { id } from "./quote.ts";
import type { Table } from "./schema.ts";
import { logName, valueColumn } from "./triggers.ts";
import { exactColumns, readExact, type TextEncoding } from "./values.ts";
import type { ChangeLog } from "./change_log.ts";

/** entries read in one step */
const STEP = 5_000;
/** stale entries that are borne before the index is built again */
const STALE_LIMIT = 50_000;
const FIRST_CAPACITY = 1024;
const NONE = -1;

/** A UNIQUE constraint over plain columns: indexes into the table's columns, and their collations. */
interface PlainUnique {
  readonly columns: readonly number[];
  readonly collations: readonly string[];
}

export class PendingIndex {
  /** a power of two of them, as many as there is room for entries */
  private buckets = new Int32Array(FIRST_CAPACITY).fill(NONE);
  private hashes = new Uint32Array(FIRST_CAPACITY);
  private seqs = new Float64Array(FIRST_CAPACITY);
  private next = new Int32Array(FIRST_CAPACITY);
  private size = 0;
  /** highest seq that is in the index */
  private position = 0;
  private readonly uniques: readonly PlainUnique[];
  /** some UNIQUE constraint can't be computed from an entry: every entry may be touched */
  private readonly opaque: boolean;
  private readonly keys: Statement;
  private readonly columns: readonly number[];

  constructor(
    db: Database,
    private readonly table: Table,
    private readonly log: ChangeLog,
    private readonly encoding: TextEncoding,
  ) {
    const plain = table.uniques.map(({ terms }) => ({
      columns: terms.map((term) => table.columns.findIndex((column) => id(column) === term.sql)),
      collations: terms.map((term) => term.collation),
    }));
    this.uniques = plain.filter((unique) => !unique.columns.includes(-1));
    this.opaque = this.uniques.length < plain.length;
    this.columns = [...new Set([...table.keyIndexes, ...this.uniques.flatMap((unique) => unique.columns)])];
    const exact = exactColumns(this.columns.map((column) => `l.${id(valueColumn(table.columns[column]!))}`));
    this.keys = db.prepare(
      `SELECT seq, ${exact} FROM ${id(logName(table.name))} AS l WHERE seq > ? ORDER BY seq LIMIT ${STEP}`,
    );
  }

  /**
   * Takes in one step of entries that are not in the index yet.
   * @returns whether all are in it now
   */
  step(): boolean {
    if (this.opaque) return true;
    if (this.size > STALE_LIMIT) this.clearIfStale();
    const rows = this.keys.all(BigInt(this.position));
    for (const row of rows) {
      const values: SqlValue[] = [];
      readExact(row, 1, this.columns.length, this.encoding).forEach((value, i) => values[this.columns[i]!] = value);
      const seq = Number(row[0]);
      for (const hash of this.hashesOf(values)) this.add(hash, seq);
      this.position = seq;
    }
    return rows.length < STEP;
  }

  /** Entries were acknowledged: numbers above the highest one left will be used again. */
  acknowledged(highest: number): void {
    if (highest === 0) this.clear();
    this.position = Math.min(this.position, highest);
  }

  /** Hashes of a row's key and UNIQUE values; `values` by the table's column indexes. */
  hashesOf(values: readonly SqlValue[]): number[] {
    const hashes = [hashKey("", this.table.keyIndexes.map((column) => values[column] ?? null), this.table.collations)];
    this.uniques.forEach(({ columns, collations }, place) => {
      const key = columns.map((column) => values[column] ?? null);
      if (!key.includes(null)) hashes.push(hashKey(`${place}`, key, collations));
    });
    return hashes;
  }

  keyHash(key: readonly SqlValue[]): number {
    return hashKey("", key, this.table.collations);
  }

  /** The last pending entry of each of the keys that has one. */
  *lastOf(keys: Iterable<readonly SqlValue[]>): Generator<Change> {
    const read = this.reader();
    for (const key of keys) {
      const wanted = canonicalKey(key, this.table.collations);
      for (const seq of this.find(this.keyHash(key))) {
        const entry = read(seq);
        if (entry === undefined || canonicalKey(this.keyOf(entry), this.table.collations) !== wanted) continue;
        yield entry;
        break;
      }
    }
  }

  /** Pending entries, in order, that share a key or a UNIQUE value with `touched`, with each other, and so on. */
  closure(touched: ReadonlySet<number>): Iterable<Change> {
    if (this.opaque) return this.log.read(0, Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER);
    const seen = new Set(touched);
    const entries = new Map<number, Change>();
    const read = this.reader();
    const queue = [...touched];
    for (let hash = queue.pop(); hash !== undefined; hash = queue.pop()) {
      for (const seq of this.find(hash)) {
        if (entries.has(seq)) continue;
        const entry = read(seq);
        if (entry === undefined) continue;
        entries.set(seq, entry);
        for (const other of this.hashesOf(this.valuesOf(entry))) {
          if (!seen.has(other)) {
            seen.add(other);
            queue.push(other);
          }
        }
      }
    }
    return [...entries.values()].sort((a, b) => a.seq - b.seq);
  }

  private valuesOf(entry: Change): SqlValue[] {
    if (entry.op !== OP_DELETE) return [...entry.values];
    const values: SqlValue[] = [];
    this.table.keyIndexes.forEach((column, i) => values[column] = entry.values[i]!);
    return values;
  }

  private keyOf(entry: Change): SqlValue[] {
    return entry.op === OP_DELETE ? [...entry.values] : this.table.keyIndexes.map((column) => entry.values[column]!);
  }

  /** Reads entries by seq. Those that were acknowledged are nearly always older than all that are left. */
  private reader(): (seq: number) => Change | undefined {
    const lowest = this.log.lowest();
    return (seq) => {
      if (seq < lowest || lowest === 0) return undefined;
      const [entry] = this.log.read(seq - 1, seq, 1);
      return entry;
    };
  }

  /** Newest first. */
  private *find(hash: number): Generator<number> {
    for (let at = this.buckets[hash & (this.buckets.length - 1)]!; at !== NONE; at = this.next[at]!) {
      if (this.hashes[at] === hash) yield this.seqs[at]!;
    }
  }

  private add(hash: number, seq: number): void {
    if (this.size === this.seqs.length) this.grow();
    this.hashes[this.size] = hash;
    this.seqs[this.size] = seq;
    this.chain(this.size++);
  }

  private chain(at: number): void {
    const bucket = this.hashes[at]! & (this.buckets.length - 1);
    this.next[at] = this.buckets[bucket]!;
    this.buckets[bucket] = at;
  }

  private grow(): void {
    const capacity = this.seqs.length * 2;
    const hashes = new Uint32Array(capacity);
    const seqs = new Float64Array(capacity);
    const next = new Int32Array(capacity);
    hashes.set(this.hashes);
    seqs.set(this.seqs);
    next.set(this.next);
    [this.hashes, this.seqs, this.next] = [hashes, seqs, next];
    this.buckets = new Int32Array(capacity).fill(NONE);
    for (let at = 0; at < this.size; at++) this.chain(at);
  }

  /** Most of the index is about entries that are gone: it is built again from those that are left. */
  private clearIfStale(): void {
    const left = this.log.highest() - this.log.lowest() + 1;
    if (this.size > STALE_LIMIT + 4 * left * (1 + this.uniques.length)) this.clear();
  }

  private clear(): void {
    this.position = 0;
    if (this.size === 0) return;
    this.size = 0;
    this.buckets.fill(NONE);
    if (this.seqs.length > STALE_LIMIT) {
      this.buckets = new Int32Array(FIRST_CAPACITY).fill(NONE);
      this.hashes = new Uint32Array(FIRST_CAPACITY);
      this.seqs = new Float64Array(FIRST_CAPACITY);
      this.next = new Int32Array(FIRST_CAPACITY);
    }
  }
}
