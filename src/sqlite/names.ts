/** Remembers every table, column, affinity and fingerprint this node ever had: a change for a name it once had is no mystery. */
import type { TableShape } from "../change.ts";
import type { Database, Statement } from "../database.ts";
import { typeOf } from "./affinity.ts";
import { LazyStatement } from "./lazy_statement.ts";
import { COLUMNS, FINGERPRINTS, TABLES_TABLE } from "./own_tables.ts";
import { fold, id, knownCollate } from "./quote.ts";
import type { Table } from "./schema.ts";
import { logName, valueColumn } from "./triggers.ts";

/** Rows that tell what a migration gave to a new column: looked at under the write lock, so not all of a large table */
const FILL_SAMPLE_ROWS = 1_000;
const STORED = "temp.marmot_stored";

export type TableState = "captured" | "excluded" | "dropped" | "renamed";

export interface KnownTable {
  readonly name: string;
  readonly state: TableState;
  readonly renamedTo: string | null;
  /** of its change log, as long as there is one */
  readonly shape: (Omit<TableShape, "affinities"> & { collations: string[] }) | null;
  /** its name before any rename */
  readonly home: string;
}

export class Names {
  readonly tables = new Map<string, KnownTable>();
  /** folded table → folded column → what it is called now, null while it keeps its name */
  private readonly columns = new Map<string, Map<string, string | null>>();
  private readonly fingerprints = new Map<string, Set<string>>();
  /** folded table → folded column → the last of the entries that were made without it, while some are there */
  private readonly filled = new Map<string, Map<string, number>>();
  /** folded table → folded column → those that a column of this name had, one after the other */
  private readonly affinitiesByTable = new Map<string, Map<string, string>>();

  private readonly insertTable: Statement;
  private readonly insertColumn: Statement;
  private readonly insertFingerprint: Statement;
  private readonly updateAffinities: Statement;

  private constructor(private readonly db: Database) {
    this.insertTable = new LazyStatement(db, () => `INSERT OR REPLACE INTO ${TABLES_TABLE} VALUES (?, ?, ?, ?, ?)`);
    this.insertColumn = new LazyStatement(
      db,
      () =>
        `INSERT INTO ${COLUMNS}(table_name, name, renamed_to) VALUES (?, ?, ?)
        ON CONFLICT (table_name, name) DO UPDATE SET renamed_to = excluded.renamed_to`,
    );
    this.insertFingerprint = new LazyStatement(db, () => `INSERT OR IGNORE INTO ${FINGERPRINTS} VALUES (?, ?)`);
    this.updateAffinities = new LazyStatement(
      db,
      () => `UPDATE ${COLUMNS} SET affinities = ? WHERE table_name = ? AND name = ?`,
    );
  }

  static read(db: Database): Names {
    const names = new Names(db);
    for (
      const [name, state, renamedTo, shape, home] of db.prepare(
        `SELECT name, state, renamed_to, shape, home FROM ${TABLES_TABLE}`,
      ).all()
    ) {
      names.tables.set(fold(String(name)), {
        name: String(name),
        state: String(state) as TableState,
        renamedTo: renamedTo === null ? null : String(renamedTo),
        shape: shape === null ? null : JSON.parse(String(shape)),
        // a database that an older Marmot wrote has none
        home: String(home ?? name),
      });
    }
    const columns = db.prepare(`SELECT table_name, name, renamed_to, filled_to, affinities FROM ${COLUMNS}`).all();
    for (const [table, name, renamedTo, filledTo, affinities] of columns) {
      names.columnsOf(String(table)).set(String(name), renamedTo === null ? null : String(renamedTo));
      if (filledTo !== null) names.filledOf(String(table)).set(String(name), Number(filledTo));
      if (affinities !== null) names.affinitiesOf(String(table)).set(String(name), String(affinities));
    }
    for (const [table, fingerprint] of db.prepare(`SELECT table_name, fingerprint FROM ${FINGERPRINTS}`).all()) {
      names.fingerprintsOf(String(table)).add(String(fingerprint));
    }
    return names;
  }

  /** Follows renames of a table to what it is called now. */
  current(table: string): KnownTable | undefined {
    let known = this.tables.get(fold(table));
    for (let hops = 0; known?.state === "renamed" && hops < this.tables.size; hops++) {
      known = this.tables.get(fold(known.renamedTo!));
    }
    return known;
  }

  /** What rows of a table are hashed under: a rename must not move them to other shards, away from what was said of them. */
  homeOf(table: string): string {
    return this.tables.get(fold(table))?.home ?? table;
  }

  /**
   * A table that takes the name of a dropped one is a rebuild: a node that looked only when it was over saw one table, which
   * stayed where it was.
   */
  homeAfterRename(then: string, now: string): string {
    return this.homeOf(this.tables.get(fold(now))?.state === "dropped" ? now : then);
  }

  /** What a column is called now: undefined if the table never had it, null if it is gone without a successor. */
  currentColumn(table: string, column: string, present: ReadonlySet<string>): string | null | undefined {
    const columns = this.columnsOf(table);
    let name = fold(column);
    for (let hops = 0; hops <= columns.size; hops++) {
      if (present.has(name)) return name;
      const next = columns.get(name);
      if (next === undefined) return undefined;
      if (next === null) return null;
      name = fold(next);
    }
    return null;
  }

  hadFingerprint(table: string, fingerprint: string): boolean {
    return this.fingerprintsOf(table).has(fingerprint);
  }

  /** Those that a column of this name had, one after the other. */
  affinities(table: string, column: string): string {
    return this.affinitiesOf(table).get(fold(column)) ?? "";
  }

  /** Remembers a captured table as it is now; writes only what is new. */
  rememberCaptured(table: Table): void {
    const shape = {
      table: table.name,
      columns: [...table.columns],
      key: [...table.keyIndexes],
      fingerprint: table.fingerprint,
      collations: [...table.collations],
    };
    const before = this.tables.get(fold(table.name));
    const home = before?.state === "renamed" ? table.name : this.homeOf(table.name);
    this.put({ name: table.name, state: "captured", renamedTo: null, shape, home });
    const columns = this.columnsOf(table.name);
    const grown = columns.size > 0;
    for (const [place, column] of table.columns.entries()) {
      if (columns.get(fold(column)) !== null) {
        this.putColumn(table.name, column, null);
        if (grown) this.rememberFill(table, place);
      }
      this.rememberAffinities(table.name, column, table.affinities[place]!);
    }
    if (!this.hadFingerprint(table.name, table.fingerprint)) {
      this.fingerprintsOf(table.name).add(table.fingerprint);
      this.insertFingerprint.run(fold(table.name), table.fingerprint);
    }
  }

  /** A column of this name comes to `more`, one after the other. */
  private rememberAffinities(table: string, column: string, more: string): void {
    const before = this.affinities(table, column);
    let had = before;
    for (const affinity of more) if (!had.endsWith(affinity)) had += affinity;
    if (had === before) return;
    this.affinitiesOf(table).set(fold(column), had);
    this.updateAffinities.run(had, fold(table), fold(column));
  }

  /**
   * Entries that were made before a table had these columns were given their values from the rows. They may be on their way
   * without them: what others say of these columns meanwhile must stay when those entries are laid over it.
   * @param highest of the entries there are, 0 if there are none
   */
  rememberFilled(table: string, added: readonly string[], highest: number): void {
    const filled = this.filledOf(table);
    for (const column of added) filled.set(fold(column), Infinity);
    for (const [column, to] of filled) {
      if (to <= highest) continue;
      if (highest === 0) filled.delete(column);
      else filled.set(column, highest);
      const sql = `UPDATE ${COLUMNS} SET filled_to = ? WHERE table_name = ? AND name = ?`;
      this.db.prepare(sql).run(highest === 0 ? null : BigInt(highest), fold(table), column);
    }
  }

  /** Entries were acknowledged: numbers above the highest one left will be used again. In the same transaction. */
  lowerFilled(table: string, highest: number): void {
    const sql = `UPDATE ${COLUMNS} SET filled_to = nullif(?1, 0) WHERE table_name = ?2 AND filled_to > ?1`;
    this.db.prepare(sql).run(BigInt(highest), fold(table));
  }

  rememberState(name: string, state: TableState, renamedTo: string | null = null): void {
    this.put({
      name,
      state,
      renamedTo,
      shape: state === "renamed" ? null : this.tables.get(fold(name))?.shape ?? null,
      home: this.homeOf(name),
    });
  }

  /** Columns that are renamed at once; they may have taken each other's names. */
  renameColumns(table: string, renamed: readonly (readonly [then: string, now: string])[]): void {
    const had = renamed.map(([then]) => this.affinities(table, then));
    for (const [then, now] of renamed) {
      this.putColumn(table, then, now);
      if (this.columnsOf(table).get(fold(now)) === undefined) this.inheritColumn([table, then], [table, now], null);
    }
    renamed.forEach(([, now], place) => this.rememberAffinities(table, now, had[place]!));
  }

  /**
   * The new name of a table inherits the columns, fingerprints and home of the old one.
   * @param had the affinities of its columns before tables that were renamed at once took each other's names
   */
  renameTable(then: string, now: string, home: string, had: ReadonlyMap<string, string>): void {
    for (const [column, renamedTo] of this.columnsOf(then)) {
      this.inheritColumn([then, column], [now, column], renamedTo);
    }
    for (const [column, affinities] of had) this.rememberAffinities(now, column, affinities);
    for (const fingerprint of this.fingerprintsOf(then)) {
      this.fingerprintsOf(now).add(fingerprint);
      this.insertFingerprint.run(fold(now), fingerprint);
    }
    this.rememberState(then, "renamed", now);
    this.put({ name: now, state: "captured", renamedTo: null, shape: this.tables.get(fold(now))?.shape ?? null, home });
  }

  /** What was pending is still in the log of a renamed table, and may be published without capturing the table again. */
  rememberLog(
    table: string,
    before: KnownTable["shape"],
    columns: readonly (readonly [then: string, now: string])[],
  ): void {
    const renamed = new Map(columns.map(([then, now]) => [fold(then), now]));
    const shape = before &&
      { ...before, table, columns: before.columns.map((column) => renamed.get(fold(column)) ?? column) };
    this.put({ name: table, state: "captured", renamedTo: null, shape, home: this.homeOf(table) });
  }

  private put(known: KnownTable): void {
    const before = this.tables.get(fold(known.name));
    if (before !== undefined && JSON.stringify(before) === JSON.stringify(known)) return;
    this.tables.set(fold(known.name), known);
    const shape = known.shape === null ? null : JSON.stringify(known.shape);
    if (before !== undefined && before.name !== known.name) {
      this.db.prepare(`DELETE FROM ${TABLES_TABLE} WHERE name = ?`).run(before.name);
    }
    this.insertTable.run(known.name, known.state, known.renamedTo, shape, known.home);
  }

  private putColumn(table: string, column: string, renamedTo: string | null): void {
    this.columnsOf(table).set(fold(column), renamedTo);
    this.insertColumn.run(fold(table), fold(column), renamedTo);
  }

  /** Under another name, a column is filled as before. */
  private inheritColumn(then: readonly string[], now: readonly string[], renamedTo: string | null): void {
    this.putColumn(now[0]!, now[1]!, renamedTo);
    const fill = `SELECT fill, filled_to FROM ${COLUMNS} WHERE table_name = ? AND name = ?`;
    const sql = `UPDATE ${COLUMNS} SET (fill, filled_to) = (${fill}) WHERE table_name = ? AND name = ?`;
    this.db.prepare(sql).run(...[...then, ...now].map(fold));
    const filledTo = this.filledOf(then[0]!).get(fold(then[1]!));
    if (filledTo !== undefined) this.filledOf(now[0]!).set(fold(now[1]!), filledTo);
  }

  /**
   * A migration gave its rows some value in a new column: rows from a node without it get the same, even if the column has
   * no DEFAULT, or loses it in a rebuild. Values that differ, or that of a single row, may be made of something else: only
   * a column that must have a value gets the most frequent one then. What the application wrote since has entries.
   */
  private rememberFill({ name, columns, key, collations, zeros, defaults, affinities }: Table, place: number): void {
    // as values only: a collation may be known to the application alone
    const column = `${id(columns[place]!)} COLLATE BINARY AS v`;
    const keyOfRow = key.map((part, i) => id(part) + knownCollate(collations[i]!));
    const required = zeros[place] !== null && zeros[place] !== "NULL";
    const some = `(SELECT ${column} FROM main.${id(name)} LIMIT ${FILL_SAMPLE_ROWS})`;
    const logged = `SELECT ${key.map((part) => id(valueColumn(part)))} FROM main.${id(logName(name))}`;
    const migrated = `(SELECT ${column} FROM main.${id(name)} WHERE (${keyOfRow}) NOT IN (${logged})
      LIMIT ${FILL_SAMPLE_ROWS})`;
    const most = `SELECT v FROM ${some} GROUP BY v ORDER BY count(*) DESC LIMIT 1`;
    const only = `SELECT min(v) FROM ${migrated} HAVING count(*) > 1 AND count(*) = count(v) AND min(v) IS max(v)`;
    const put = (fill: string) =>
      this.db.prepare(`UPDATE ${COLUMNS} SET fill = (${fill}) WHERE table_name = ? AND name = ?`)
        .run(fold(name), fold(columns[place]!));
    if (defaults[place] === "NULL") put(required ? most : only);
    else this.stored(defaults[place]!, affinities[place]!, put);
  }

  /** A value as a column stores it: under the type of a later migration it would become something else. */
  private stored(sql: string, affinity: string, put: (stored: string) => void): void {
    this.db.exec(`CREATE TEMP TABLE ${STORED}(v ${typeOf(affinity)})`);
    // not by exec, whose errors have no code on Deno: the application's SQL may fail
    this.db.prepare(`INSERT INTO ${STORED} VALUES (${sql})`).run();
    put(`SELECT v FROM ${STORED}`);
    this.db.exec(`DROP TABLE ${STORED}`);
  }

  /** Folded column → the last entry that was made without it. */
  filledOf(table: string): Map<string, number> {
    return entryOf(this.filled, fold(table), () => new Map<string, number>());
  }

  private columnsOf(table: string): Map<string, string | null> {
    return entryOf(this.columns, fold(table), () => new Map<string, string | null>());
  }

  /** Folded column → as `affinities` gives them. */
  affinitiesOf(table: string): Map<string, string> {
    return entryOf(this.affinitiesByTable, fold(table), () => new Map<string, string>());
  }

  private fingerprintsOf(table: string): Set<string> {
    return entryOf(this.fingerprints, fold(table), () => new Set<string>());
  }
}

function entryOf<K, V>(map: Map<K, V>, key: K, make: () => V): V {
  let value = map.get(key);
  if (value === undefined) map.set(key, value = make());
  return value;
}
