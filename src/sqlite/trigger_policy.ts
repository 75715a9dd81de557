/**
 * What the application's triggers may do on the applying connection (I5). Their writes into captured tables were captured
 * at the origin and arrive by themselves; what they write elsewhere (an FTS5 index, a table that is not replicated) must
 * happen here. SQLite's authorizer, called while a statement is compiled, tells what each trigger does and can leave an
 * INSERT or a SELECT out of it. It can't stop DELETE and UPDATE: TEMP triggers that fire first skip those rows.
 */
import { constants } from "node:sqlite";
import type { Database } from "../database.ts";
import { sqliteProblem } from "./connection.ts";
import { generatedExpressions, readIndexSql } from "./index_sql.ts";
import { fold, id } from "./quote.ts";
import { PREFIX, type Schema, type Table, type Trigger } from "./schema.ts";
import { isRefusal, isSelect, readTriggerSql, SelectPlan, selectsInside, type TriggerParts } from "./select_plan.ts";

const { SQLITE_OK, SQLITE_IGNORE, SQLITE_INSERT, SQLITE_DELETE, SQLITE_UPDATE, SQLITE_SELECT, SQLITE_FUNCTION } =
  constants;

const GUARD = "marmot_guard_";
const NESTED = "marmot_nested";
const COUNTED = "marmot_counted";

/** What a trigger does, as SQLite's compiler told. */
interface Learned {
  readonly inserts: Set<string>;
  /** deletes and updates */
  readonly changes: Set<string>;
  readonly functions: Set<string>;
}

export interface TablePolicy {
  /** some trigger of the application fires on this table */
  readonly hasTriggers: boolean;
  /** why changes can't be applied to it */
  readonly problem: string | undefined;
}

export class TriggerPolicy {
  private learning = false;
  private readonly learned = new Map<string, Learned>();
  /** functions used outside triggers, while one table is learned */
  private outside = new Set<string>();
  private readonly silenced = new Set<string>();
  /** silenced triggers whose SELECT statements can be left out as well: all of them, or as planned */
  private readonly mute = new Map<string, "all" | SelectPlan>();
  /** SELECTs compiled for a trigger that is tried out */
  private counted: { selects: number; programs: number; readonly silenced: boolean } | undefined;
  private readonly guarded = new Set<string>();
  private readonly stubs: Set<string>;
  private readonly policies = new Map<string, TablePolicy>();
  private readonly triggers: ReadonlyMap<string, Trigger>;
  /** the next row that fires a guard is the one Marmot writes itself */
  private armed = false;

  constructor(
    private readonly db: Database,
    private schema: Schema,
    private readonly captured: ReadonlyMap<string, Table>,
  ) {
    this.stubs = stubsOf(db);
    this.triggers = new Map(schema.triggers.map((trigger) => [trigger.name, trigger]));
    db.function(NESTED, { varargs: false, deterministic: false }, () => {
      const own = this.armed;
      this.armed = false;
      return own ? 0n : 1n;
    });
    this.dropGuards();
    db.setAuthorizer((action, first, _second, _database, trigger) => this.authorize(action, first, _second, trigger));
  }

  /**
   * Runs one of Marmot's own updates or deletes of one row: the guards let its row pass, and no other. Not for inserts,
   * nor where the table has no guard: the first row that a trigger changes would pass instead.
   */
  write<T>(table: Table, statement: () => T): T {
    this.armed = this.guards(table);
    try {
      return statement();
    } finally {
      this.armed = false;
    }
  }

  /** May `write` let only one row of this table pass? */
  guards(table: Table): boolean {
    return this.guarded.has(fold(table.name));
  }

  /** Learns what writing to a table sets off. Outside of transactions: it makes TEMP triggers. */
  of(table: Table): TablePolicy {
    let policy = this.policies.get(fold(table.name));
    if (policy === undefined) this.policies.set(fold(table.name), policy = this.learn(table));
    return policy;
  }

  private authorize(action: number, first: string | null, second: string | null, trigger: string | null): number {
    if (this.learning) {
      this.record(action, first, second, trigger);
      return SQLITE_OK;
    }
    if (this.counted !== undefined) return this.count(this.counted, action, first ?? second, trigger);
    if (trigger === null) {
      for (const plan of this.mute.values()) if (plan !== "all") plan.begin();
      return SQLITE_OK;
    }
    if (trigger.startsWith(GUARD)) return SQLITE_OK;
    if (action === SQLITE_INSERT && (this.arrives(first) || this.silenced.has(trigger))) return SQLITE_IGNORE;
    if (action !== SQLITE_SELECT) return SQLITE_OK;
    const mute = this.mute.get(trigger);
    return mute === "all" || mute?.isStep() ? SQLITE_IGNORE : SQLITE_OK;
  }

  /**
   * A trigger that is tried out is silenced as the one it stands for, and the others as they will be: what one of them
   * inserts into this table would fire it again.
   */
  private count(
    counted: NonNullable<TriggerPolicy["counted"]>,
    action: number,
    name: string | null,
    trigger: string | null,
  ): number {
    if (trigger === null) return SQLITE_OK;
    if (trigger === COUNTED && action === SQLITE_SELECT) counted.selects++;
    if (trigger === COUNTED && action === SQLITE_FUNCTION && name === NESTED) counted.programs++;
    const silenced = trigger === COUNTED ? counted.silenced : this.silenced.has(trigger);
    return action === SQLITE_INSERT && (silenced || this.arrives(name)) ? SQLITE_IGNORE : SQLITE_OK;
  }

  /** What a trigger writes to this table was captured at the origin, and comes by itself. */
  private arrives(table: string | null): boolean {
    return table !== null && (fold(table).startsWith(PREFIX) || this.captured.has(fold(table)));
  }

  private record(action: number, first: string | null, second: string | null, trigger: string | null): void {
    if (trigger === null) {
      if (action === SQLITE_FUNCTION && second !== null) this.outside.add(fold(second));
      return;
    }
    if (trigger.startsWith(GUARD) || trigger.startsWith(PREFIX)) return;
    let learned = this.learned.get(trigger);
    if (learned === undefined) {
      this.learned.set(trigger, learned = { inserts: new Set(), changes: new Set(), functions: new Set() });
    }
    if (action === SQLITE_INSERT) learned.inserts.add(fold(first!));
    if (action === SQLITE_DELETE || action === SQLITE_UPDATE) learned.changes.add(fold(first!));
    if (action === SQLITE_FUNCTION) learned.functions.add(fold(second!));
  }

  private learn(table: Table): TablePolicy {
    const problem = this.compileAll(table);
    for (const [name, learned] of this.learned) this.judge(name, learned);
    const missing = [...this.outside].find((name) => this.stubs.has(name)) ?? this.missingInTriggers() ??
      this.missingInStored(table);
    return {
      hasTriggers: [...this.triggers.values()].some((t) =>
        fold(t.table) === fold(table.name) && !t.name.startsWith(PREFIX)
      ),
      problem: problem ??
        (missing === undefined ? undefined : `the function ${missing}() is known to the application only`),
    };
  }

  /** Compiles a statement of each kind; functions that are missing get a stub, so that the rest can be compiled. */
  private compileAll(table: Table): string | undefined {
    this.outside = new Set();
    this.learning = true;
    try {
      for (const sql of statementsOf(table)) this.withStubs(() => this.db.prepare(sql));
      return undefined;
    } catch (error) {
      if (sqliteProblem(error) !== "other") throw error;
      return error instanceof Error ? error.message : String(error);
    } finally {
      this.learning = false;
    }
  }

  /** Compiles something that may name functions of the application: those that are missing get a stub. */
  withStubs<T>(compile: () => T): T {
    for (;;) {
      try {
        return compile();
      } catch (error) {
        const missing = /no such function: (\S+)/.exec(String(error))?.[1];
        if (missing === undefined || this.stubs.has(fold(missing))) throw error;
        this.stubs.add(fold(missing));
        this.db.function(missing, { varargs: true, deterministic: true }, () => null);
      }
    }
  }

  private judge(name: string, learned: Learned): void {
    const silenced = !this.writesElsewhere(learned);
    if (silenced) this.silenced.add(name);
    const trigger = this.triggers.get(name);
    const parts = trigger === undefined ? undefined : readTriggerSql(trigger.sql);
    if (parts !== undefined && !this.mute.has(name)) this.silenceSelects(trigger!, parts, silenced);
    for (const target of learned.changes) this.guard(target);
  }

  /** Has it an effect that does not come by itself? What it writes to a view, the view's own triggers write. */
  private writesElsewhere(learned: Learned | undefined, seen = new Set<string>()): boolean {
    return [...learned?.inserts ?? [], ...learned?.changes ?? []].some((target) => {
      if (this.arrives(target) || seen.has(target)) return false;
      if (!this.schema.views.has(target)) return true;
      seen.add(target);
      const own = [...this.triggers.values()].filter((trigger) => fold(trigger.table) === target);
      return own.some(({ name }) => this.writesElsewhere(this.learned.get(name), seen));
    });
  }

  /** Validation ran at the origin: what it accepted is not refused here, also by a trigger that does other things besides. */
  private silenceSelects(trigger: Trigger, parts: TriggerParts, silenced: boolean): void {
    const table = this.captured.get(fold(trigger.table));
    const left = silenced ? isSelect : isRefusal;
    if (silenced && !selectsInside(parts)) this.mute.set(trigger.name, "all");
    else if (table !== undefined && parts.steps.some(left)) {
      const count = (head: string, steps: readonly string[]) => this.countSelects(table, head, steps, silenced);
      const plan = SelectPlan.of(parts, left, count);
      if (plan !== undefined) this.mute.set(trigger.name, plan);
    }
  }

  /**
   * @returns undefined for a trigger that is compiled inside itself: statements with another OR fire it again; and where
   * its table's statements can't be compiled, for another trigger perhaps
   */
  private countSelects(
    table: Table,
    head: string,
    steps: readonly string[],
    silenced: boolean,
  ): number | undefined {
    // a step may end in a comment
    const body = [...steps, `SELECT ${NESTED}()`].join("\n; ");
    this.db.exec(`DROP TRIGGER IF EXISTS temp.${COUNTED}`);
    try {
      this.db.exec(`CREATE TEMP TRIGGER ${COUNTED} ${head} BEGIN ${body}; END`);
      let selects: number | undefined;
      for (const sql of statementsOf(table)) {
        const counted = this.counted = { selects: 0, programs: 0, silenced };
        this.db.prepare(sql);
        if (counted.programs > 1) return undefined;
        if (counted.programs === 1) selects = counted.selects - 1;
      }
      return selects;
    } catch (error) {
      if (sqliteProblem(error) !== "other") throw error;
      return undefined;
    } finally {
      this.counted = undefined;
      this.db.exec(`DROP TRIGGER IF EXISTS temp.${COUNTED}`);
    }
  }

  private guard(folded: string): void {
    const table = this.captured.get(folded);
    if (table === undefined || this.guarded.has(folded)) return;
    for (const event of ["UPDATE", "DELETE"]) {
      const name = id(`${GUARD}${event}_${table.name}`);
      // an earlier try may have ended between the two
      this.db.exec(`DROP TRIGGER IF EXISTS temp.${name}`);
      this.db.exec(
        `CREATE TEMP TRIGGER ${name} BEFORE ${event} ON main.${id(table.name)} ` +
          `WHEN ${NESTED}() BEGIN SELECT RAISE(IGNORE); END`,
      );
    }
    this.guarded.add(folded);
  }

  private dropGuards(): void {
    const guards = this.db.prepare("SELECT name FROM temp.sqlite_schema WHERE type = 'trigger'").all();
    // one whose table was dropped or renamed by another connection is listed, but not there
    for (const [name] of guards) this.db.exec(`DROP TRIGGER IF EXISTS temp.${id(String(name))}`);
  }

  /** A stub, once it is there, would be called for what is stored: in an index, or a generated column. */
  private missingInStored(table: Table): string | undefined {
    if (this.stubs.size === 0) return undefined;
    const indexes = this.db.prepare(
      "SELECT sql FROM main.sqlite_schema WHERE type = 'index' AND tbl_name = ? COLLATE NOCASE AND sql IS NOT NULL",
    ).all(table.name);
    const stored = [...generatedExpressions(table.sql)];
    for (const { terms, where } of indexes.map(([sql]) => readIndexSql(String(sql)))) {
      stored.push(...terms, where ?? "");
    }
    return [...this.stubs].find((name) => stored.some((sql) => calls(sql, name)));
  }

  private missingInTriggers(): string | undefined {
    for (const [name, learned] of this.learned) {
      if (this.silenced.has(name)) continue;
      const missing = [...learned.functions].find((used) => this.stubs.has(used));
      if (missing !== undefined) return missing;
    }
    return undefined;
  }
}

/** One of each kind that fires triggers. */
function statementsOf(table: Table): string[] {
  const columns = table.columns.map(id);
  const name = `main.${id(table.name)}`;
  return [
    `INSERT INTO ${name}(${columns.join(", ")}) VALUES (${columns.map(() => "?").join(", ")})`,
    `UPDATE ${name} SET ${columns.map((column) => `${column} = ?`).join(", ")}`,
    `DELETE FROM ${name}`,
  ];
}

/** A stub stays with its connection, whatever becomes of the schema. */
const STUBS = new WeakMap<Database, Set<string>>();

function stubsOf(db: Database): Set<string> {
  let stubs = STUBS.get(db);
  if (stubs === undefined) STUBS.set(db, stubs = new Set());
  return stubs;
}

/** Does an expression call this function? */
function calls(sql: string, name: string): boolean {
  const plain = sql.replace(/'(?:[^']|'')*'/g, "''");
  const escaped = name.replace(/[^\w]/g, "\\$&");
  return new RegExp(`(^|[^\\w$])["\x60[]?${escaped}["\x60\\]]?\\s*\\(`, "i").test(plain);
}
