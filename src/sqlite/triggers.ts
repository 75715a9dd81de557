/**
 * The change logs and the triggers that fill them. Their cost is the application's: each statement is one INSERT, and
 * nothing in it depends on a pragma, a function or the application's build of SQLite.
 */
import { OP_DELETE, OP_INSERT, OP_UPDATE } from "../change.ts";
import { scan, skipQuoted } from "./index_sql.ts";
import { fold, id } from "./quote.ts";
import { PREFIX, type Table } from "./schema.ts";

const LOG_SUFFIX = "_change_log";
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
  const trigger = (suffix: string, event: string, body: string, when = "") => {
    const name = `${PREFIX}${table.name}_${suffix}`;
    return { name, sql: `CREATE TRIGGER ${id(name)} AFTER ${event} ON ${id(table.name)}${when} BEGIN ${body} END` };
  };
  const keyChanged = table.key.map((column, i) => `OLD.${id(column)}${table.keyCollates[i]!} IS NOT NEW.${id(column)}`)
    .join(" OR ");
  // SQLite doesn't even look at it when an UPDATE sets other columns: that saves a fifth of what updates pay
  const setsKey = `UPDATE OF ${[...table.key.map(id), ...ROWID_NAMES].join(", ")}`;
  return [
    trigger("insert", "INSERT", upsert(OP_INSERT)),
    trigger("update", "UPDATE", table.cascadesOnUpdate ? upsertFromRow(table) : upsert(OP_UPDATE)),
    trigger("key", setsKey, deleteOld(table), ` WHEN ${keyChanged}`),
    trigger("delete", "DELETE", deleteOld(table)),
  ];
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
  const names = list(sql, scan(sql, 0, (char) => char === "("));
  const values = list(sql, scan(sql, sql.indexOf(" VALUES "), (char) => char === "("));
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
  const match = /^__marmot__(.+)_(insert|update|key|delete)$/s.exec(name);
  return match ? { table: match[1]!, suffix: match[2]! } : undefined;
}

/** SQL texts are the same but for the way SQLite stores them. */
export function sameTable(a: string, b: string): boolean {
  return fold(a) === fold(b);
}
