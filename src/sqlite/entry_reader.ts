/**
 * Reads the entries of a change log to the byte. Text as bytes costs a third of all that capture does on Deno (1 µs a
 * value), so it is read as the driver's string, beside its length in bytes. A string that has not that length in UTF-8 was
 * cut at a NUL, and one that holds U+FFFD was perhaps no UTF-8: such an entry is read again as bytes.
 */
import { type Op, SqlText, type SqlValue } from "../change.ts";
import type { Database, Row, Statement } from "../database.ts";
import { LazyStatement } from "./lazy_statement.ts";
import { exactColumns, readExact, type TextEncoding } from "./values.ts";

/** result columns before the values: seq, op, stamp */
const FIRST_VALUE = 3;
/** Texts up to this many characters are copied into a pool here, longer ones by the encoder */
const SHORT_TEXT = 64;
const POOL_BYTES = 16 * 1024;
/** A result has 2,000 columns at most, and each text takes two */
const STRING_COLUMNS = 900;
const NOT_UTF8 = "\ufffd";

const encoder = new TextEncoder();

/** An entry as it stands in the log, with a value for each column. */
export interface StoredEntry {
  readonly seq: number;
  readonly op: Op;
  readonly stamp: bigint;
  readonly values: SqlValue[];
}

/** Takes a read snapshot, and gives back what it gave. */
export type AroundSnapshot = <T>(snapshot: () => T) => T;

export class EntryReader {
  private readonly asBytes: Statement;
  private asStrings: Statement;
  /** columns in which text was seen, and so have their length in the result */
  private readonly texts = new Set<number>();
  /** how many of them have it in the statement as it is */
  private withLength = 0;
  /** for each column the place of its length in the result, 0 if it has none */
  private lengthAt: readonly number[] = [];
  private pool = new Uint8Array(POOL_BYTES);
  private poolAt = 0;

  /**
   * @param log SQL for the change log
   * @param columns SQL for its value columns
   */
  constructor(
    private readonly db: Database,
    private readonly log: string,
    private readonly columns: readonly string[],
    private readonly encoding: TextEncoding,
  ) {
    this.asBytes = new LazyStatement(db, () => this.sql(exactColumns(columns)));
    this.asStrings = this.compile();
  }

  /**
   * Entries with `after` < seq ≤ `to`, in order, the first `limit` of them.
   * @param around called for what is one read snapshot
   */
  read(after: number, to: number, limit: number, around: AroundSnapshot): StoredEntry[] {
    const range = [BigInt(after), BigInt(to), BigInt(limit)] as const;
    const rowsOf = (statement: Statement) => around(() => statement.all(...range));
    const isWide = this.columns.length > STRING_COLUMNS;
    if (isWide || this.encoding !== "UTF-8") return rowsOf(this.asBytes).map((row) => this.exact(row));
    for (;;) {
      // also after a read that a lock ended when it had just seen the first text of a column
      if (this.texts.size > this.withLength) this.asStrings = this.compile();
      const entries = rowsOf(this.asStrings).map((row) => this.quick(row));
      if (this.texts.size === this.withLength) return entries;
    }
  }

  private compile(): Statement {
    const texts = [...this.texts];
    this.withLength = texts.length;
    this.lengthAt = this.columns.map((_, column) => {
      const place = texts.indexOf(column);
      return place < 0 ? 0 : FIRST_VALUE + this.columns.length + place;
    });
    const lengths = texts.map((column) => `octet_length(${this.columns[column]!})`);
    return new LazyStatement(this.db, () => this.sql([...this.columns, ...lengths].join(", ")));
  }

  private sql(values: string): string {
    return `SELECT seq, op, stamp, ${values} FROM ${this.log} AS l WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?`;
  }

  private quick(row: Row): StoredEntry {
    const count = this.columns.length;
    const values = new Array<SqlValue>(count);
    for (let column = 0; column < count; column++) {
      const value = row[FIRST_VALUE + column]!;
      if (typeof value !== "string") {
        values[column] = value;
        continue;
      }
      const length = this.lengthAt[column]!;
      const bytes = length === 0 ? undefined : this.bytesOf(value, Number(row[length]));
      if (length === 0) this.texts.add(column);
      else if (bytes === undefined) return this.again(Number(row[0]));
      if (bytes !== undefined) values[column] = new SqlText(bytes);
    }
    return entryOf(row, values);
  }

  private again(seq: number): StoredEntry {
    const [row] = this.asBytes.all(BigInt(seq - 1), BigInt(seq), 1n);
    return this.exact(row!);
  }

  private exact(row: Row): StoredEntry {
    return entryOf(row, readExact(row, FIRST_VALUE, this.columns.length, this.encoding));
  }

  /** @returns undefined when the string is not what is stored */
  private bytesOf(text: string, length: number): Uint8Array | undefined {
    if (text.length <= SHORT_TEXT && text.length === length) {
      const ascii = this.asciiOf(text);
      if (ascii !== undefined) return ascii;
    }
    // Bun doesn't cut at a NUL; with as many statements on both, a simulated history is the same on both
    if (text.includes(NOT_UTF8) || text.includes("\0") || !text.isWellFormed()) return undefined;
    const bytes = encoder.encode(text);
    return bytes.length === length ? bytes : undefined;
  }

  private asciiOf(text: string): Uint8Array | undefined {
    if (this.poolAt + text.length > POOL_BYTES) {
      this.pool = new Uint8Array(POOL_BYTES);
      this.poolAt = 0;
    }
    const start = this.poolAt;
    for (let i = 0; i < text.length; i++) {
      const code = text.charCodeAt(i);
      if (code > 0x7f || code === 0) return undefined;
      this.pool[start + i] = code;
    }
    this.poolAt = start + text.length;
    return new Uint8Array(this.pool.buffer, start, text.length);
  }
}

function entryOf(row: Row, values: SqlValue[]): StoredEntry {
  return { seq: Number(row[0]), op: Number(row[1]) as Op, stamp: row[2] as bigint, values };
}
