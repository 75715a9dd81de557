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
/** rows whose last entry is known by its values, to be found when the next one comes */
const RECENT = 1_000;
/** entries between two that are wanted, which are read rather than left out */
const NEAR = 16;
const NONE = -1;

/** A UNIQUE constraint over plain columns: indexes into the table's columns, and their collations. */
interface PlainUnique {
  readonly columns: readonly number[];
  readonly collations: readonly string[];
}

/** The last entry of a row, and where it begins in the index. */
interface Recent {
  readonly slot: number;
  readonly values: readonly SqlValue[];
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
  /** by the hash of the key: up to RECENT rows, and as many before them */
  private recent = new Map<number, Recent>();
  private recentBefore = new Map<number, Recent>();
  private readonly uniques: readonly PlainUnique[];
  /** some UNIQUE constraint can't be computed from an entry: every entry may be touched */
  readonly isOpaque: boolean;
  /** some UNIQUE constraint holds for a part of the rows: other columns decide whether a value displaces */
  private readonly isPartial: boolean;
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
    this.isOpaque = this.uniques.length < plain.length;
    this.isPartial = table.uniques.some(({ where }) => where !== null);
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
    if (this.isOpaque) return true;
    const rows = this.keys.all(BigInt(this.position));
    for (const row of rows) {
      const values: SqlValue[] = [];
      readExact(row, 1, this.columns.length, this.encoding).forEach((value, i) => values[this.columns[i]!] = value);
      const seq = Number(row[0]);
      const hashes = this.hashesOf(values);
      const isWhole = hashes.length > 1 && !this.isPartial;
      if (!isWhole || !this.overwrite(values, hashes, seq)) {
        if (isWhole) this.remember(hashes[0]!, { slot: this.size, values });
        for (const hash of hashes) this.add(hash, seq);
      }
      this.position = seq;
    }
    return rows.length < STEP;
  }

  /**
   * Gives an upsert the place of one with the same key and values, if no entry between them has one of these: what
   * `withoutOverwritten` would leave out need not be found. A row that is updated for hours has thousands of entries.
   */
  private overwrite(values: readonly SqlValue[], hashes: readonly number[], seq: number): boolean {
    const last = this.recent.get(hashes[0]!) ?? this.recentBefore.get(hashes[0]!);
    if (last === undefined || !hashes.every((hash, i) => this.newest(hash) === last.slot + i)) return false;
    const [before, now] = [this.identitiesOf(last.values), this.identitiesOf(values)];
    if (before.join("\n") !== now.join("\n")) return false;
    this.remember(hashes[0]!, last);
    this.seqs.fill(seq, last.slot, last.slot + hashes.length);
    return true;
  }

  private remember(hash: number, last: Recent): void {
    if (this.recent.size >= RECENT) [this.recentBefore, this.recent] = [this.recent, new Map()];
    this.recent.set(hash, last);
  }

  /** Entries were acknowledged: numbers above the highest one left will be used again. */
  acknowledged(highest: number): void {
    // those that are left may have given their places to some that are gone
    if (highest === 0 || (highest < this.position && this.recent.size > 0)) this.clear();
    // without such places they stand in order; a leftover would be taken for a part of the entry that gets its number
    while (this.size > 0 && this.seqs[this.size - 1]! > highest) this.removeLast();
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

  /** May an entry be about what has this hash? Tells of the entries that were taken in. */
  has(hash: number): boolean {
    return this.newest(hash) !== undefined;
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

  /**
   * Pending entries, in order, that share a key or a UNIQUE value with `touched`, with each other, and so on; without those
   * that another one overwrites before anything else of them matters.
   */
  closure(touched: ReadonlySet<number>): Iterable<Change> {
    if (this.isOpaque) return this.log.read(0, Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER);
    const lowest = this.log.lowest();
    // few of many that were touched are about something pending: they are not copied
    const more = new Set<number>();
    const isSeen = (hash: number) => touched.has(hash) || more.has(hash);
    const found = new Set<number>();
    const find = (hash: number) => {
      for (const slot of this.slots(hash)) {
        const seq = this.seqs[slot]!;
        if (seq < lowest) continue;
        found.add(seq);
        for (const other of this.hashesAround(slot)) if (!isSeen(other)) more.add(other);
      }
    };
    for (const hash of touched) find(hash);
    // a Set's iteration goes on to what is added meanwhile
    for (const hash of more) find(hash);
    // a number may have been used again, and was found by what an older entry was about
    const entries = this.readAll([...found].sort((a, b) => a - b));
    return this.withoutOverwritten(entries.filter((entry) => isSeen(this.keyHash(this.keyOf(entry)))));
  }

  /** Entries that are near each other are read together. @param seqs in order; some may be gone */
  private readAll(seqs: readonly number[]): Change[] {
    const wanted = new Set(seqs);
    const entries: Change[] = [];
    for (let from = 0, to = 0; from < seqs.length; from = to) {
      do to++; while (to < seqs.length && seqs[to]! - seqs[to - 1]! <= NEAR);
      for (const entry of this.log.read(seqs[from]! - 1, seqs[to - 1]!, Number.MAX_SAFE_INTEGER)) {
        if (wanted.has(entry.seq)) entries.push(entry);
      }
    }
    return entries;
  }

  /**
   * Leaves out an upsert if the next entry that shares its key or one of its UNIQUE values is an upsert with the same key and
   * the same values: that one writes the same row whole, and displaces the same rows. A busy row has thousands of entries.
   */
  private withoutOverwritten(entries: readonly Change[]): readonly Change[] {
    if (this.isPartial) return entries;
    const kept: Change[] = [];
    const next = new Map<string, { readonly place: number; readonly all: string }>();
    for (let place = entries.length - 1; place >= 0; place--) {
      const entry = entries[place]!;
      const names = this.namesOf(entry);
      const all = entry.op === OP_DELETE ? "" : names.join("\n");
      const after = names.map((name) => next.get(name)).filter((other) => other !== undefined);
      const first = after.reduce((a, b) => b.place < a.place ? b : a, after[0] ?? { place: -1, all: "" });
      if (all === "" || first.all !== all) kept.push(entry);
      for (const name of names) next.set(name, { place, all });
    }
    return kept.reverse();
  }

  private namesOf(entry: Change): string[] {
    if (entry.op !== OP_DELETE) return this.identitiesOf(entry.values);
    return [`key ${canonicalKey(entry.values, this.table.collations)}`];
  }

  /** Of a row: equal strings are one key, or one value of a UNIQUE constraint. */
  private identitiesOf(row: readonly SqlValue[]): string[] {
    const valuesOf = (columns: readonly number[]) => columns.map((column) => row[column] ?? null);
    const names = [`key ${canonicalKey(valuesOf(this.table.keyIndexes), this.table.collations)}`];
    this.uniques.forEach(({ columns, collations }, place) => {
      const values = valuesOf(columns);
      if (!values.includes(null)) names.push(`${place} ${canonicalKey(values, collations)}`);
    });
    return names;
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

  /** Seqs, newest first. */
  private *find(hash: number): Generator<number> {
    for (const slot of this.slots(hash)) yield this.seqs[slot]!;
  }

  /** Where a hash stands, newest first. */
  private *slots(hash: number): Generator<number> {
    for (let at = this.buckets[hash & (this.buckets.length - 1)]!; at !== NONE; at = this.next[at]!) {
      if (this.hashes[at] === hash) yield at;
    }
  }

  private newest(hash: number): number | undefined {
    for (let at = this.buckets[hash & (this.buckets.length - 1)]!; at !== NONE; at = this.next[at]!) {
      if (this.hashes[at] === hash) return at;
    }
    return undefined;
  }

  /** All hashes of the entry of a slot: they were added one after the other. */
  private *hashesAround(slot: number): Generator<number> {
    const seq = this.seqs[slot];
    for (let at = slot; at >= 0 && this.seqs[at] === seq; at--) yield this.hashes[at]!;
    for (let at = slot + 1; at < this.size && this.seqs[at] === seq; at++) yield this.hashes[at]!;
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

  /** The last one added is the first of its chain. */
  private removeLast(): void {
    const at = --this.size;
    this.buckets[this.hashes[at]! & (this.buckets.length - 1)] = this.next[at]!;
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

  /**
   * Most of the index is about entries that are gone: it is built again from those that are left. Outside of
   * transactions: those that one has deleted are there again when it is undone.
   */
  clearIfStale(): void {
    if (this.size <= STALE_LIMIT) return;
    const { lowest, highest } = this.log.ends();
    const left = highest - lowest + 1;
    if (this.size > STALE_LIMIT + 4 * left * (1 + this.uniques.length)) this.clear();
  }

  private clear(): void {
    this.recent.clear();
    this.recentBefore.clear();
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
