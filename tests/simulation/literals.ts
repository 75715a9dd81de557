/** Values as SQL text that gives them back to the bit: the same from SQLite itself and from a decoded message. */
import { SqlText, type SqlValue } from "../../src/change.ts";
import { hex } from "../../src/hex.ts";

/** SQL that gives the literal of an expression. */
export function literalOf(expression: string): string {
  return `CASE typeof(${expression}) WHEN 'text' THEN '(+CAST(X''' || hex(${expression}) || ''' AS TEXT))' ` +
    `ELSE quote(${expression}) END`;
}

export function literal(value: SqlValue): string {
  if (value === null) return "NULL";
  if (value instanceof SqlText) return `(+CAST(X'${hex(value.bytes).toUpperCase()}' AS TEXT))`;
  if (value instanceof Uint8Array) return `X'${hex(value).toUpperCase()}'`;
  return typeof value === "bigint" ? String(value) : realLiteral(value);
}

const REALS = new Map([[0.5, "0.5"], [1e300, "1.0e+300"]]);

/** Of the few that histories write; SQLite prints -0.0 as it does 0.0. */
function realLiteral(value: number): string {
  return REALS.get(value) ??
    (Number.isInteger(value) ? Math.abs(value) === 0 ? "0.0" : value.toFixed(1) : String(value));
}
