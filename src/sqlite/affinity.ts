/** What the type of a column does to values: its affinity (https://www.sqlite.org/datatype3.html, 3.1). */
import { NO_AFFINITY } from "../change.ts";

const TYPES: Readonly<Record<string, string>> = { [NO_AFFINITY]: "BLOB", T: "TEXT", N: "NUMERIC", R: "REAL" };

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

/** A type that has one of AFFINITIES. */
export function typeOf(affinity: string): string {
  return TYPES[affinity]!;
}

/**
 * Has a column here come as far as its origin's? A node that has left the origin's type behind does to a value now what the
 * origin's migration will do to it. One that will come to that type must not have stored it under the type before.
 * @param origin the affinities that the column had at the origin, one after the other; empty if they are not known
 * @param here those that it had here. Where neither node's are the beginning of the other's (one began later, or was down
 *   between two migrations), it is enough to have had the origin's present one
 */
export function hasFollowed(origin: string, here: string): boolean {
  if (here.startsWith(origin)) return true;
  if (origin.startsWith(here) && origin.length === here.length + 1) return false;
  return here.includes(origin.at(-1)!);
}
