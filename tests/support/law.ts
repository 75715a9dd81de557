/**
 * What every node must be, computed apart from the core's own apply (I1): the accepted batches of each stream, in order,
 * and a node's pending entries over them. Rows are strings, as SQLite's quote() tells values.
 */
import { hex } from "../../src/hex.ts";
import { SqlText, type SqlValue } from "../../src/change.ts";
import { decodeFrame, decodeMessage } from "../../src/change_codec.ts";
import type { MemoryStream } from "./memory_stream.ts";

/** The schema of a history's table, in the law's words. */
export interface LawTable {
  readonly name: string;
  readonly columns: readonly string[];
  readonly key: readonly string[];
  /** keys that are one row have one canonical form */
  readonly fold: (value: string) => string;
  /** UNIQUE values of a row, undefined where it has none: equal ones displace each other */
  readonly uniques: readonly ((row: ReadonlyMap<string, string>) => string | undefined)[];
}

export interface LawChange {
  readonly table: string;
  readonly stamp: string;
  /** the row, or of a deleted one its key */
  readonly row: ReadonlyMap<string, string>;
  readonly deletes: boolean;
}

/** table → key → row */
export type LawState = ReadonlyMap<string, ReadonlyMap<string, ReadonlyMap<string, string>>>;
type Rows = Map<string, Map<string, ReadonlyMap<string, string>>>;

export function keyOf(table: LawTable, row: ReadonlyMap<string, string>): string {
  return table.key.map((column) => table.fold(row.get(column)!)).join(",");
}

/** Upserts or deletes, and displaces. */
export function put(state: Rows, table: LawTable, { row, deletes }: LawChange): void {
  const rows = state.get(table.name)!;
  const key = keyOf(table, row);
  if (deletes) {
    rows.delete(key);
    return;
  }
  for (const unique of table.uniques) {
    const value = unique(row);
    if (value === undefined) continue;
    for (const [other, held] of rows) if (other !== key && unique(held) === value) rows.delete(other);
  }
  rows.set(key, row);
}

export function copyOf(state: LawState): Rows {
  return new Map([...state].map(([name, rows]) => [name, new Map(rows)]));
}

interface Seen {
  nonce: string;
  epoch: number;
  number: number;
}

/** The law of one shard. */
export class Law {
  /** after each sequence, from 0 */
  readonly states: LawState[];
  readonly changes: { origin: string; change: LawChange }[] = [];
  private readonly seen = new Map<string, Seen>();
  private readonly parts = new Map<string, Uint8Array[]>();

  constructor(private readonly stream: MemoryStream, private readonly tables: ReadonlyMap<string, LawTable>) {
    this.states = [new Map([...tables.keys()].map((name) => [name, new Map()]))];
  }

  advance(): void {
    for (const { data } of this.stream.messages.slice(this.states.length - 1)) {
      const before = this.states.at(-1)!;
      const { origin, nonce, epoch, number, last, continues, frame } = decodeMessage(data);
      const seen = this.seen.get(origin) ?? { nonce: "", epoch: 0, number: 0 };
      const higher = epoch > seen.epoch && number === 1;
      const next = epoch === seen.epoch && nonce === seen.nonce && number === seen.number + 1;
      if (higher || next) this.seen.set(origin, { nonce, epoch, number });
      if (higher) this.parts.delete(origin);
      const stored = this.parts.get(origin) ?? [];
      if ((higher || next) && !last) this.parts.set(origin, [...stored, Uint8Array.of(continues ? 1 : 0), frame]);
      if (!(higher || next) || !last) {
        this.states.push(before);
        continue;
      }
      this.parts.delete(origin);
      const state = copyOf(before);
      for (const change of changesOf([...stored, Uint8Array.of(0), frame])) {
        put(state, this.tables.get(change.table)!, change);
        this.changes.push({ origin, change });
      }
      this.states.push(state);
    }
  }
}

/** Flag (1: the frame goes on) and piece by turns. */
function changesOf(parts: readonly Uint8Array[]): LawChange[] {
  const changes: LawChange[] = [];
  let pieces: number[] = [];
  for (let i = 0; i < parts.length; i += 2) {
    pieces.push(...parts[i + 1]!);
    if (parts[i]![0] === 1) continue;
    for (const { table, columns, key, changes: some } of decodeFrame(Uint8Array.from(pieces))) {
      for (const { op, stamp, values } of some) {
        const names = op === 3 ? key.map((place) => columns[place]!) : columns;
        const row = new Map(names.map((name, place) => [name, quoted(values[place]!)]));
        changes.push({ table, stamp: String(stamp), row, deletes: op === 3 });
      }
    }
    pieces = [];
  }
  return changes;
}

/** As SQLite's quote() does it. */
export function quoted(value: SqlValue): string {
  if (value === null) return "NULL";
  if (value instanceof SqlText) return `'${new TextDecoder().decode(value.bytes).replaceAll("'", "''")}'`;
  if (value instanceof Uint8Array) return `X'${hex(value).toUpperCase()}'`;
  return String(value);
}
