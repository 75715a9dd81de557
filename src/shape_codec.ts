/**
 * The shape of a table in a frame: its name and columns, the places of its key, its fingerprint (8 bytes), and affinities
 * (2 bits each; frames of version 1 of a message have none).
 */
import { type ByteReader, type ByteWriter, malformed } from "./bytes.ts";
import { AFFINITIES, type TableShape } from "./change.ts";

/** Most columns a table may have: the most that any SQLite can be compiled for. */
const MAX_COLUMNS = 32_767;
/** Longest name of a table or column, UTF-16 units. SQLite's default allows no statement that is longer. */
const MAX_NAME_LENGTH = 1_000_000;

const FINGERPRINT = /^[0-9a-f]{16}$/;

/** Of shapes that were written: those of a node's tables come in every message. */
const written = new WeakMap<TableShape, Uint8Array>();

/** Throws RangeError on what the limits above, or SQLite, exclude. */
export function writeShape(out: ByteWriter, shape: TableShape): void {
  const known = written.get(shape);
  if (known !== undefined) return out.raw(known);
  const start = out.length;
  encodeShape(out, shape);
  written.set(shape, out.written.slice(start));
}

function encodeShape(out: ByteWriter, shape: TableShape): void {
  const { table, columns, key, fingerprint } = shape;
  if (columns.length > MAX_COLUMNS) throw new RangeError(`Cannot encode ${table}: more than ${MAX_COLUMNS} columns`);
  if (key.length > columns.length) throw new RangeError(`Cannot encode ${table}: key of ${key.length} columns`);
  if (!FINGERPRINT.test(fingerprint)) throw new RangeError(`Cannot encode ${table}: fingerprint ${fingerprint}`);
  const names = [table, ...columns];
  for (const name of names) {
    if (name.length > MAX_NAME_LENGTH || !name.isWellFormed()) {
      throw new RangeError(`Cannot encode ${table.slice(0, 100)}: a name is too long, or not Unicode`);
    }
  }
  out.names(names);
  out.varint(key.length);
  for (const index of key) {
    if (columns[index] === undefined) throw new RangeError(`Cannot encode ${table}: no key column ${index}`);
    out.varint(index);
  }
  out.int64(BigInt.asIntN(64, BigInt(`0x${fingerprint}`)));
  writeAffinities(out, shape);
}

/** 0 if each column has had one, else one more than all and how many each had; four in a byte, the first in its lowest bits. */
function writeAffinities(out: ByteWriter, { table, columns, affinities }: TableShape): void {
  if (affinities.length !== columns.length) {
    throw new RangeError(`Cannot encode ${table}: affinities of ${affinities.length} of ${columns.length} columns`);
  }
  const all = affinities.join("");
  const isOneEach = affinities.every((had) => had.length === 1);
  out.varint(isOneEach ? 0 : all.length + 1);
  if (!isOneEach) { for (const had of affinities) out.varint(had.length); }
  for (let at = 0; at < all.length; at += 4) {
    let byte = 0;
    for (let i = 0; i < 4 && at + i < all.length; i++) {
      const code = AFFINITIES.indexOf(all[at + i]!);
      if (code < 0) throw new RangeError(`Cannot encode ${table}: affinity ${all[at + i]}`);
      byte |= code << 2 * i;
    }
    out.byte(byte);
  }
}

/** The shape that was read last, and its bytes: mostly the next one is the same. */
let last: { readonly bytes: Uint8Array; readonly shape: TableShape } | undefined;

/** @param hasAffinities as in version 2 of a message */
export function readShape(from: ByteReader, hasAffinities: boolean): TableShape {
  if (hasAffinities && last !== undefined && startsWith(from, last.bytes)) {
    from.take(last.bytes.length);
    return last.shape;
  }
  const start = from.at;
  const shape = decodeShape(from, hasAffinities);
  if (hasAffinities) last = { bytes: from.bytes.slice(start, from.at), shape };
  return shape;
}

function startsWith(from: ByteReader, bytes: Uint8Array): boolean {
  if (from.left < bytes.length) return false;
  for (let i = 0; i < bytes.length; i++) if (from.bytes[from.at + i] !== bytes[i]) return false;
  return true;
}

function decodeShape(from: ByteReader, hasAffinities: boolean): TableShape {
  const [table, ...columns] = from.names(MAX_COLUMNS + 1, MAX_NAME_LENGTH);
  if (table === undefined) throw malformed("a table has no name");
  const keySize = from.varint();
  if (keySize > columns.length) throw malformed("a key column doesn't exist");
  const key: number[] = [];
  for (let i = 0; i < keySize; i++) key.push(from.varint());
  for (const index of key) if (index >= columns.length) throw malformed("a key column doesn't exist");
  const fingerprint = BigInt.asUintN(64, from.int64()).toString(16).padStart(16, "0");
  const affinities = hasAffinities ? readAffinities(from, columns.length) : columns.map(() => "");
  return { table, columns, key, fingerprint, affinities };
}

function readAffinities(from: ByteReader, columns: number): string[] {
  const more = from.varint();
  const size = more === 0 ? columns : more - 1;
  const sizes = new Array<number>(columns).fill(1);
  if (more > 0) { for (let i = 0; i < columns; i++) sizes[i] = from.varint(); }
  if (sizes.reduce((sum, one) => sum + one, 0) !== size) throw malformed("affinities have no column");
  let all = "";
  for (const byte of from.raw(Math.ceil(size / 4))) {
    for (let i = 0; i < 4; i++) all += AFFINITIES[byte >> 2 * i & 3];
  }
  let at = 0;
  return sizes.map((one) => all.slice(at, at += one));
}
