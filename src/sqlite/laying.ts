/**
 * Lays changes on the tables, in one transaction: upsert, delete and displace; and then what is pending here over what
 * was touched, so that every table is the accepted prefix of the stream with this node's pending entries on top (I1).
 */
import { type Change, OP_DELETE, OP_INSERT, type SqlValue } from "../change.ts";
import { sqliteProblem } from "./connection.ts";
import { fold } from "./quote.ts";
import { type Carried, isUniqueViolation } from "./row_writer.ts";
import type { LocalTable, Mapping } from "./targets.ts";

/** A table's changes can't be applied; the transaction is run again with the table parked. */
export class TableProblem extends Error {
  constructor(readonly table: string, readonly reason: string) {
    super(`${table}: ${reason}`);
  }
}

/** What one transaction touched of that which entries pending in a table may be about. */
interface Touched {
  readonly local: LocalTable;
  /** of a table without UNIQUE constraints: the keys, by their canonical form */
  readonly keys: Map<string, SqlValue[]>;
  /** of one that has some: hashes of keys and UNIQUE values */
  readonly hashes: Set<number>;
}

/** The rows of one transaction; thrown away when it rolls back. */
export class Laying {
  /** tables that have pending entries, by folded name */
  private readonly touched = new Map<string, Touched>();
  /** how many changes were laid */
  changes = 0;

  /** Was something touched since the last rebase that may be pending? */
  get isDue(): boolean {
    return this.touched.values().some(({ local, keys, hashes }) => {
      return local.pending.isOpaque || keys.size > 0 || hashes.size > 0;
    });
  }

  /** @throws TableProblem for a row that the table refuses */
  apply(changes: readonly Change[], local: LocalTable, mapping: Mapping): void {
    const touched = this.touch(local);
    try {
      this.applyAll(changes, local, mapping, touched);
    } catch (error) {
      if (!isRowProblem(error)) throw error;
      throw new TableProblem(local.table.name, (error as Error).message);
    }
    this.changes += changes.length;
  }

  /** undefined when nothing is pending in the table, so that nothing has to be laid over it. */
  private touch(local: LocalTable): Touched | undefined {
    const name = fold(local.table.name);
    let touched = this.touched.get(name);
    if (touched === undefined && local.log.highest() > 0) {
      // what the index does not have now is not pending: the write lock is held
      while (!local.pending.step());
      this.touched.set(name, touched = { local, keys: new Map(), hashes: new Set() });
    }
    return touched;
  }

  /** Runs of upserts with one statement where nothing has to be looked at before, the others one by one. */
  private applyAll(
    changes: readonly Change[],
    local: LocalTable,
    mapping: Mapping,
    touched: Touched | undefined,
  ): void {
    const inRuns = !local.hasTriggers && local.writer.takesRuns(mapping.carried);
    let oneByOne = inRuns ? 0 : changes.length;
    for (let at = 0; at < changes.length;) {
      const length = at < oneByOne ? 0 : local.writer.runLength(mapping.carried, changes, at);
      if (length === 0) this.applyChange(changes[at++]!, local, mapping, touched);
      else if (this.applyRun(changes.slice(at, at + length), local, mapping, touched)) at += length;
      else oneByOne = at + length;
    }
  }

  /** @returns false, with nothing changed, when a UNIQUE value is in the way, or a row that must be looked at */
  private applyRun(run: readonly Change[], local: LocalTable, mapping: Mapping, touched: Touched | undefined): boolean {
    const { writer } = local;
    const keys: SqlValue[][] = run.map((change) => mapping.upsertKey.map((place) => change.values[place]!));
    const look = mustLook(local, touched);
    if (look && run.some(({ op }) => op !== OP_INSERT)) return false;
    if (local.table.nullableKey && keys.some((key) => key.includes(null))) return false;
    try {
      if (look) writer.insertNewRun(mapping.carried, run);
      else writer.insertRun(mapping.carried, run, keys);
    } catch (error) {
      if (!isUniqueViolation(error)) throw error;
      return false;
    }
    if (look) { for (const change of run) touchRow(touched!, laidOn([], change, mapping)); }
    else if (touched !== undefined) { for (const key of keys) touchKey(touched, key); }
    return true;
  }

  private applyChange(change: Change, local: LocalTable, mapping: Mapping, touched: Touched | undefined): void {
    const { writer, table } = local;
    if (change.op === OP_DELETE) {
      const key = mapping.deleteKey.map((place) => change.values[place]!);
      const before = local.hasTriggers ? writer.read(key) : undefined;
      if (touched !== undefined) touchKey(touched, key);
      const removed = writer.remove(key);
      if (before !== undefined && !removed) {
        throw new Error("a trigger of the application keeps the row from being deleted");
      }
      return;
    }
    const key: SqlValue[] = mapping.upsertKey.map((place) => change.values[place]!);
    if (touched !== undefined) touchKey(touched, key);
    if (mustLook(local, touched) || (table.nullableKey && key.includes(null))) {
      this.lay(change, key, local, mapping, touched);
      return;
    }
    try {
      if (change.op === OP_INSERT || !writer.updateBlind(mapping.carried, change.values, key)) {
        writer.insertOrUpdate(mapping.carried, change.values, key);
      }
    } catch (error) {
      if (!isUniqueViolation(error)) throw error;
      this.lay(change, key, local, mapping, touched);
    }
  }

  /** The careful way: looks first, and displaces. */
  private lay(
    change: Change,
    key: SqlValue[],
    local: LocalTable,
    mapping: Mapping,
    touched: Touched | undefined,
  ): void {
    const { writer } = local;
    const before = writer.upsert(
      mapping.carried,
      change.values,
      key,
      (row) => touched !== undefined && touchRow(touched, row),
    );
    if (touched === undefined || local.table.uniques.length === 0) return;
    // not the values that it had: what is pending with one of them is about this row, or would have displaced it
    touchRow(touched, laidOn(before ?? [], change, mapping));
  }

  /** Lays pending entries over what was touched since, so that the application never sees its own write disappear. */
  rebase(): void {
    for (const touched of this.touched.values()) {
      const { local } = touched;
      const entries = local.table.uniques.length > 0
        ? local.pending.closure(touched.hashes)
        : local.pending.lastOf(touched.keys.values());
      try {
        for (const entry of entries) {
          if (entry.op === OP_DELETE) local.writer.remove(entry.values);
          else {
            const key = local.own.upsertKey.map((place) => entry.values[place]!);
            local.writer.upsert(carriedBy(entry, local), entry.values, key, () => {});
          }
        }
      } catch (error) {
        if (!isRowProblem(error)) throw error;
        throw new TableProblem(local.table.name, (error as Error).message);
      }
    }
    this.touched.clear();
  }
}

/** A trigger may undo what is written, or pending entries may hold a UNIQUE value of the row that was there. */
function mustLook({ hasTriggers, table }: LocalTable, touched: Touched | undefined): boolean {
  return hasTriggers || (touched !== undefined && table.uniques.length > 0);
}

/** An entry may be on its way as it was made, without columns that its table got since: those stay as they are. */
function carriedBy({ seq }: Change, { log, own }: LocalTable): Carried {
  if (!log.isFilled(seq)) return own.carried;
  const columns = log.madeWith(seq);
  return { columns, places: columns };
}

function touchKey({ local, keys, hashes }: Touched, key: SqlValue[]): void {
  const hash = local.pending.keyHash(key);
  if (!local.pending.has(hash)) return;
  if (local.table.uniques.length > 0) hashes.add(hash);
  else keys.set(local.writer.canonical(key), key);
}

function touchRow(touched: Touched, row: readonly SqlValue[]): void {
  const { local, hashes } = touched;
  if (local.table.uniques.length === 0) touchKey(touched, local.writer.keyOf(row));
  else for (const hash of local.pending.hashesOf(row)) if (local.pending.has(hash)) hashes.add(hash);
}

/** A row, by the table's column indexes, as an upsert leaves it. */
function laidOn(before: readonly SqlValue[], { values }: Change, { carried }: Mapping): SqlValue[] {
  const after = [...before];
  carried.columns.forEach((column, i) => after[column] = values[carried.places[i]!]!);
  return after;
}

/** Is this about the row and its table, rather than about the file or a lock? */
function isRowProblem(error: unknown): boolean {
  return error instanceof Error && !(error instanceof TableProblem) && sqliteProblem(error) === "other";
}
