/** What the type of a column does to values (https://www.sqlite.org/datatype3.html, 3.1). */
import { NO_AFFINITY } from "../change.ts";

/**
 * The affinity of a declared type, as one letter of AFFINITIES. INTEGER counts as NUMERIC: they differ in CAST alone.
 * @param strict the table is STRICT: there ANY keeps every value, elsewhere it is NUMERIC
 */
export function affinityOf(type: string, strict: boolean): string {
  if (/INT/i.test(type)) return "N";
  if (/CHAR|CLOB|TEXT/i.test(type)) return "T";
  if (/BLOB/i.test(type) || type === "" || (strict && /^ANY$/i.test(type))) return NO_AFFINITY;
  return /REAL|FLOA|DOUB/i.test(type) ? "R" : "N";
}

/** A type that has the affinity. */
export function typeOf(affinity: string): string {
  return { T: "TEXT", N: "NUMERIC", R: "REAL" }[affinity] ?? "";
}

/**
 * Does a column become what it is on all nodes, if it stores a value that its origin stored under another affinity? A node
 * that has left the origin's behind does now what the origin's migration will do. One that comes to it later must not have
 * changed the value before.
 * @param had the affinities that the column has and had here
 */
export function storesAlike(origin: string, here: string, had: string): boolean {
  return here === NO_AFFINITY || here === origin || had.includes(origin);
}
