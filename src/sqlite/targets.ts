/** Where changes of a table as its origin has it go on this node: to which columns, or nowhere, and why. */
import { NO_AFFINITY, type TableShape } from "../change.ts";
import type { Database } from "../database.ts";
import { type TablePatterns, whyExcluded } from "../table_filter.ts";
import { hasFollowed, typeOf } from "./affinity.ts";
import { ChangeLog } from "./change_log.ts";
import { sqliteProblem } from "./connection.ts";
import type { Installed } from "./install.ts";
import { PendingIndex } from "./pending_index.ts";
import { fold } from "./quote.ts";
import { type Carried, RowWriter } from "./row_writer.ts";
import type { Table } from "./schema.ts";
import { TriggerPolicy } from "./trigger_policy.ts";

/** All that apply needs for one captured table. */
export interface LocalTable {
  readonly table: Table;
  readonly writer: RowWriter;
  readonly log: ChangeLog;
  readonly pending: PendingIndex;
  /** a trigger of the application fires on it: look before writing */
  readonly hasTriggers: boolean;
  /** the columns of its own change log */
  readonly own: Mapping;
}

export interface Mapping {
  readonly carried: Carried;
  /** for each local key column its place in the values of an upsert */
  readonly upsertKey: readonly number[];
  /** … and in the values of a delete */
  readonly deleteKey: readonly number[];
}

export type Target =
  | { readonly kind: "write"; readonly local: LocalTable; readonly mapping: Mapping }
  | { readonly kind: "skip"; readonly reason: string }
  /** the schema here does not fit: the changes wait. `table` is the name they wait under. */
  | { readonly kind: "park"; readonly table: string; readonly reason: string };

export class Targets {
  private readonly targets = new Map<string, Target>();
  private readonly locals = new Map<string, LocalTable | string>();
  private readonly policy: TriggerPolicy;
  /** logs of captured tables, and of dropped and excluded ones that still hold entries */
  readonly logs = new Map<string, ChangeLog>();

  constructor(private readonly db: Database, readonly installed: Installed, private readonly patterns: TablePatterns) {
    this.policy = new TriggerPolicy(db, installed.schema, installed.captured);
    const { encoding } = installed.schema;
    const { names } = installed;
    for (const [name, table] of installed.captured) {
      const filledOf = names.filledOf(name);
      const filled = new Map(table.columns.flatMap((column, place) => {
        const to = filledOf.get(fold(column));
        return to === undefined || table.keyIndexes.includes(place) ? [] : [[place, to]];
      }));
      const shape = {
        table: table.name,
        columns: table.columns,
        key: table.keyIndexes,
        fingerprint: table.fingerprint,
        affinities: this.affinitiesOf(name, table.columns),
      };
      this.logs.set(
        name,
        new ChangeLog(db, { ...shape, collations: table.collations, filled }, encoding),
      );
    }
    for (const [name, known] of names.tables) {
      if (this.logs.has(name) || known.shape === null || !installed.logs.has(name)) continue;
      const affinities = this.affinitiesOf(name, known.shape.columns);
      this.logs.set(name, new ChangeLog(db, { ...known.shape, affinities, filled: new Map() }, encoding));
    }
  }

  /** Entries of a table's log were deleted; `highest` is the highest seq left, 0 when it is empty. */
  acknowledged(name: string, highest: number): void {
    this.logs.get(name)?.acknowledged(highest);
    const local = this.locals.get(name);
    if (local !== undefined && typeof local !== "string") local.pending.acknowledged(highest);
  }

  /**
   * Outside of transactions: the first call for a table compiles statements and makes TEMP objects.
   * @param outlived the origin has had a schema that is known here since: a fingerprint in between is not waited for
   */
  of(shape: TableShape, outlived = false): Target {
    const key = `${outlived}\n${shape.table}\n${shape.fingerprint}\n${shape.affinities.join()}\n${
      shape.columns.join("\n")
    }`;
    let target = this.targets.get(key);
    if (target === undefined) this.targets.set(key, target = this.find(shape, outlived));
    return target;
  }

  private find(shape: TableShape, outlived: boolean): Target {
    const excluded = whyExcluded(shape.table, this.patterns);
    if (excluded !== undefined) return { kind: "skip", reason: excluded };
    const { names, captured, schema } = this.installed;
    const known = names.current(shape.table);
    const park = (reason: string): Target => ({ kind: "park", table: known?.name ?? shape.table, reason });
    if (known === undefined) return park("this node has no such table");
    if (known.state === "dropped") return { kind: "skip", reason: "the table was dropped here" };
    if (known.state === "excluded") return { kind: "skip", reason: "the table is excluded here" };
    const table = captured.get(fold(known.name));
    if (table === undefined) {
      const skipped = schema.skipped.find(({ name }) => fold(name) === fold(known.name));
      return park(skipped === undefined ? "this node has no such table" : `it is not captured here: ${skipped.reason}`);
    }
    const differs = shape.fingerprint !== table.fingerprint && !names.hadFingerprint(table.name, shape.fingerprint);
    if (differs && !outlived) {
      return park("its primary key or UNIQUE constraints differ from those at the origin");
    }
    const mapping = this.map(shape, table);
    if (typeof mapping === "string") return park(mapping);
    const local = this.local(table);
    return typeof local === "string" ? park(local) : { kind: "write", local, mapping };
  }

  private affinitiesOf(table: string, columns: readonly string[]): string[] {
    return columns.map((column) => this.installed.names.affinities(table, column));
  }

  private map(shape: TableShape, table: Table): Mapping | string {
    const byName = new Map(table.columns.map((column, place) => [fold(column), place]));
    const present = new Set(byName.keys());
    const columns: number[] = [];
    const places: number[] = [];
    const placeOf = new Map<number, number>();
    for (const [place, name] of shape.columns.entries()) {
      const now = this.installed.names.currentColumn(table.name, name, present);
      if (now === undefined) return `this node has no column ${name}`;
      const origin = shape.affinities[place]!;
      const follows = hasFollowed(origin, this.installed.names.affinities(table.name, now ?? name));
      if (now === null && !follows) return `its column ${name} is another one at the origin`;
      if (now === null) continue;
      const column = byName.get(now)!;
      const here = table.affinities[column]!;
      if (!follows && here !== NO_AFFINITY) {
        return `its column ${name} is ${typeOf(origin.at(-1)!)} at the origin, and ${typeOf(here)} here`;
      }
      columns.push(column);
      places.push(place);
      placeOf.set(column, place);
    }
    const upsertKey = table.keyIndexes.map((column) => placeOf.get(column) ?? -1);
    const deleteKey = upsertKey.map((place) => shape.key.indexOf(place));
    if (upsertKey.includes(-1) || deleteKey.includes(-1)) return "its primary key has other columns at the origin";
    return { carried: { columns, places }, upsertKey, deleteKey };
  }

  /** @returns why changes can't be applied to the table, if so. Throws what passes by itself: a lock, a full disk. */
  private local(table: Table): LocalTable | string {
    let local = this.locals.get(fold(table.name));
    if (local === undefined) this.locals.set(fold(table.name), local = this.build(table));
    return local;
  }

  private build(table: Table): LocalTable | string {
    const policy = this.policy.of(table);
    if (policy.problem !== undefined) return policy.problem;
    const { encoding } = this.installed.schema;
    try {
      const log = this.logs.get(fold(table.name))!;
      const writer = new RowWriter(this.db, table, this.policy, encoding);
      const all = table.columns.map((_, place) => place);
      const own = {
        carried: { columns: all, places: all },
        upsertKey: table.keyIndexes,
        deleteKey: table.key.map((_, place) => place),
      };
      const pending = new PendingIndex(this.db, table, log, encoding);
      return { table, writer, log, pending, hasTriggers: policy.hasTriggers, own };
    } catch (error) {
      if (sqliteProblem(error) !== "other") throw error;
      return error instanceof Error ? error.message : String(error);
    }
  }
}
