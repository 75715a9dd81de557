/**
 * The change logs and the triggers that fill them. Their cost is the application's: each statement is one INSERT, and
 * nothing in it depends on a pragma, a function or the application's build of SQLite.
 */
import { OP_DELETE, OP_INSERT, OP_UPDATE } from "../change.ts";
import { scan, skipQuoted } from "./index_sql.ts";
import { fold, id } from "./quote.ts";
import { PREFIX, type Table, type Unique } from "./schema.ts";

const LOG_SUFFIX = "_change_log";
const MARKS_SUFFIX = "_displaced";
/** An INTEGER PRIMARY KEY can be set by these names too. */
const ROWID_NAMES = ["rowid", "oid", "_rowid_"];

export function logName(table: string): string {
  return `${PREFIX}${table}${LOG_SUFFIX}`;
}

/** The table of a change log's name, or undefined for any other name. */
export function tableOfLog(name: string): string | undefined {
  if (!name.startsWith(PREFIX) || !name.endsWith(LOG_SUFFIX)) return undefined;
  return name.slice(PREFIX.length, -LOG_SUFFIX.length);
}

export function valueColumn(column: string): string {
  return `val_${column}`;
}

/** No AUTOINCREMENT: it halves the speed of the application's updates, and a used seq is told apart by its stamp. */
export function logSql(table: Table): string {
  const values = table.columns.map((column) => `, ${id(valueColumn(column))}`).join("");
  return `CREATE TABLE ${id(logName(table.name))}(seq INTEGER PRIMARY KEY, op, stamp DEFAULT (random())${values})`;
}

/** Rows that an UPDATE may be about to displace, and the row that does it: empty but inside of such a statement. */
function marksName(table: string): string {
  return `${PREFIX}${table}${MARKS_SUFFIX}`;
}

/** The table of a name of marks, or undefined for any other name. */
export function tableOfMarks(name: string): string | undefined {
  if (!name.startsWith(PREFIX) || !name.endsWith(MARKS_SUFFIX)) return undefined;
  return name.slice(PREFIX.length, -MARKS_SUFFIX.length);
}

export function dropMarksSql(table: string): string {
  return `DROP TABLE IF EXISTS main.${id(marksName(table))}`;
}

/** Makes them anew; nothing for a table whose foreign keys don't lead back to it. */
export function marksSql(table: Table): string[] {
  if (!table.cascadesToItself) return [];
  const name = marksName(table.name);
  const [displaced, by] = [table.key.map(valueColumn), table.key.map(byColumn)].map((names) =>
    names.map(id).join(", ")
  );
  return [
    dropMarksSql(table.name),
    `CREATE TABLE ${id(name)}(${displaced}, ${by})`,
    `CREATE INDEX ${id(`${name}_row`)} ON ${id(name)}(${displaced})`,
    `CREATE INDEX ${id(`${name}_by`)} ON ${id(name)}(${by})`,
  ];
}

function byColumn(column: string): string {
  return `by_${column}`;
}

export interface TriggerText {
  readonly name: string;
  readonly sql: string;
}

/** In the order in which they are made; SQLite fires the newest first, so a key change logs its delete before its upsert. */
export function triggerTexts(table: Table): TriggerText[] {
  const upsert = (op: number) => {
    const names = table.columns.map((column) => `, ${id(valueColumn(column))}`).join("");
    const values = table.columns.map((column) => `, NEW.${id(column)}`).join("");
    return `INSERT INTO ${id(logName(table.name))}(op${names}) VALUES (${op}${values});`;
  };
  const trigger = (suffix: string, event: string, body: string, when = "", time = "AFTER") => {
    const name = `${PREFIX}${table.name}_${suffix}`;
    return { name, sql: `CREATE TRIGGER ${id(name)} ${time} ${event} ON ${id(table.name)}${when} BEGIN ${body} END` };
  };
  const keyChanged = table.key.map((column, i) => `OLD.${id(column)}${table.keyCollates[i]!} IS NOT NEW.${id(column)}`)
    .join(" OR ");
  // SQLite doesn't even look at it when an UPDATE sets other columns: that saves a fifth of what updates pay
  const setsKey = `UPDATE OF ${[...table.key.map(id), ...ROWID_NAMES].join(", ")}`;
  const texts = [
    trigger("insert", "INSERT", upsert(OP_INSERT)),
    trigger("update", "UPDATE", table.cascadesOnUpdate ? upsertFromRow(table) : upsert(OP_UPDATE)),
    trigger("key", setsKey, deleteOld(table), ` WHEN ${keyChanged}`),
    trigger("delete", "DELETE", deleteOld(table)),
  ];
  if (!table.cascadesToItself) return texts;
  const { inTheWay, mark, marked, settle, settleDeleted } = displacement(table);
  const setsUnique = updateOfUnique(table, setsKey);
  return [
    ...texts,
    trigger("displace", setsUnique, mark, ` WHEN ${inTheWay}`, "BEFORE"),
    trigger("displaced", setsUnique, settle, ` WHEN ${marked}`),
    trigger("gone", "DELETE", settleDeleted, ` WHEN ${marked}`),
  ];
}

/** The UPDATEs that may displace a row. */
function updateOfUnique(table: Table, setsKey: string): string {
  const terms = table.uniques.flatMap((unique) => unique.terms.map((term) => term.sql));
  const stored = new Set(table.columns.map(id));
  const plain = terms.every((sql) => stored.has(sql)) && table.uniques.every(({ where }) => where === null);
  return plain ? [setsKey, ...new Set(terms)].join(", ") : "UPDATE";
}

/**
 * A row that displaces another is logged, and displaces it wherever it arrives. But the one that it displaces may take it
 * along, by ON DELETE CASCADE: then SQLite runs a trigger for its deletion, and none for the other. So rows that stand in
 * the way are marked before the UPDATE, and logged as deleted if they are gone when it is done, or its row is deleted.
 * Whether they really go is not known before: that hangs on the statement's OR, and on the constraint's ON CONFLICT.
 */
function displacement(table: Table): {
  readonly inTheWay: string;
  readonly mark: string;
  readonly marked: string;
  readonly settle: string;
  readonly settleDeleted: string;
} {
  const { key, keyCollates } = table;
  const marks = id(marksName(table.name));
  const list = (name: (column: string) => string) => key.map((column) => id(name(column))).join(", ");
  const same = (a: (column: string) => string, b: (column: string) => string) =>
    key.map((column, i) => `${a(id(column))}${keyCollates[i]!} IS ${b(column)}`).join(" AND ");
  const mark = (column: string) => `${marks}.${id(valueColumn(column))}`;
  const byOld = key.map((column) => `${id(byColumn(column))} IS OLD.${id(column)}`).join(" AND ");
  const there = `EXISTS (SELECT 1 FROM ${id(table.name)} WHERE ${same((column) => column, mark)})`;
  const own = same((column) => column, (column) => `OLD.${id(column)}`);
  const olds = key.map((column) => `OLD.${id(column)}`).join(", ");
  const inTheWay = conflicts(table).map((conflict) => `FROM ${id(table.name)} WHERE ${conflict} AND NOT (${own})`);
  const marking = inTheWay.map((rows) =>
    `INSERT INTO ${marks}(${list(valueColumn)}, ${list(byColumn)}) SELECT ${key.map(id).join(", ")}, ${olds} ${rows};`
  );
  const log = `INSERT INTO ${id(logName(table.name))}(op, ${list(valueColumn)}) ` +
    `SELECT ${OP_DELETE}, ${list(valueColumn)} FROM ${marks} WHERE ${byOld} AND NOT ${there};`;
  const taken = same((column) => `NEW.${column}`, mark);
  const old = key.map((column) => `${id(valueColumn(column))} IS OLD.${id(column)}`).join(" AND ");
  return {
    inTheWay: inTheWay.map((rows) => `EXISTS (SELECT 1 ${rows})`).join(" OR "),
    mark: [`DELETE FROM ${marks} WHERE ${byOld} AND ${there};`, ...marking].join(" "),
    marked: `EXISTS (SELECT 1 FROM ${marks})`,
    // an action of a foreign key may change the row before all that is in its way is gone
    settle: `${log} DELETE FROM ${marks} WHERE ${byOld} AND (NOT ${there} OR ${taken});`,
    settleDeleted: `${log} DELETE FROM ${marks} WHERE ${byOld}; DELETE FROM ${marks} WHERE ${old};`,
  };
}

/** What is true of the rows that an updated row can't stand beside, for the key and each UNIQUE constraint. */
function conflicts(table: Table): string[] {
  const key = table.key.map((column, i) => `${id(column)}${table.keyCollates[i]!} = NEW.${id(column)}`).join(" AND ");
  const all = [...table.columns, ...table.generated];
  const row = all.map((column) => `NEW.${id(column)} AS ${id(column)}`).join(", ");
  const columns = new Set(all.map(id));
  const ofNew = (sql: string) => columns.has(sql) ? `NEW.${sql}` : `(SELECT ${sql} FROM (SELECT ${row}))`;
  const conflict = ({ terms, where }: Unique) => {
    const equal = terms.map(({ sql, collation }) => `${sql} COLLATE ${id(collation)} = ${ofNew(sql)}`);
    // it may be one of a partial index only after the UPDATE: what is marked in vain stays where it is
    return [...equal, ...(where === null ? [] : [`(${where})`])].join(" AND ");
  };
  return [key, ...table.uniques.map(conflict)];
}

function deleteOld(table: Table): string {
  const names = table.key.map((column) => `, ${id(valueColumn(column))}`).join("");
  const values = table.key.map((column) => `, OLD.${id(column)}`).join("");
  return `INSERT INTO ${id(logName(table.name))}(op${names}) VALUES (${OP_DELETE}${values});`;
}

/** Foreign key actions run before AFTER triggers: NEW may be older than the row by then. */
function upsertFromRow(table: Table): string {
  const names = table.columns.map((column) => `, ${id(valueColumn(column))}`).join("");
  const values = table.columns.map((column) => `, ${id(column)}`).join("");
  const same = table.key.map((column, i) => `${id(column)}${table.keyCollates[i]!} IS NEW.${id(column)}`).join(" AND ");
  const from = `FROM ${id(table.name)} WHERE ${same}`;
  return `INSERT INTO ${id(logName(table.name))}(op${names}) SELECT ${OP_UPDATE}${values} ${from};`;
}

/**
 * The columns as they stand in an insert trigger of ours: [name when the trigger was made, name now]. SQLite rewrites
 * NEW.x when a column is renamed, while val_x stays: so a rename can be read here.
 */
export function columnsOfTrigger(sql: string): [then: string, now: string][] {
  const open = scan(sql, 0, (char) => char === "(");
  const names = list(sql, open);
  const close = scan(sql, open + 1, (char) => char === ")");
  const values = list(sql, scan(sql, close + 1, (char) => char === "("));
  return names.slice(1).map((name, i) => [name.slice("val_".length), values[i + 1]!]);
}

/** The last identifier of each item of a parenthesised list. */
function list(sql: string, open: number): string[] {
  const items: string[] = [];
  for (let from = open + 1;;) {
    const end = scan(sql, from, (char) => char === "," || char === ")");
    items.push(unquote(sql.slice(from, end).trim()));
    if (sql[end] === ")") return items;
    from = end + 1;
  }
}

function unquote(item: string): string {
  const start = /^new\./i.test(item) ? 4 : 0;
  const quote = item[start]!;
  if (skipQuoted(item, start) === start) return item.slice(start);
  const inner = item.slice(start + 1, -1);
  return quote === "[" ? inner : inner.replaceAll(quote + quote, quote);
}

/** Is this the name of one of our triggers; for which table was it made? */
export function tableOfTrigger(name: string): { table: string; suffix: string } | undefined {
  const match = /^__marmot__(.*)_(insert|update|key|delete|displace|displaced|gone)$/s.exec(name);
  return match ? { table: match[1]!, suffix: match[2]! } : undefined;
}

/** SQL texts are the same but for the way SQLite stores them. */
export function sameTable(a: string, b: string): boolean {
  return fold(a) === fold(b);
}
