/** Which shard a row belongs to, and when two keys are the same to SQLite: equal on every node and runtime. */
import { Buffer } from "node:buffer";
import { SqlText, type SqlValue } from "./change.ts";

/** table names whose hash is remembered; above this all are forgotten */
const REMEMBERED_TABLES = 10_000;
/** a scratch buffer larger than this is not kept, bytes */
const KEPT_SCRATCH_BYTES = 1024 * 1024;
/** up to this size a loop is faster than the engine's own way to copy or convert, bytes */
const LOOP_BYTES = 24;

const FORM_NULL = 0;
const FORM_INTEGER = 1;
const FORM_REAL = 2;
const FORM_TEXT = 3;
const FORM_BLOB = 4;
/** largest canonical form of a value besides the bytes of a text or blob: the tag and 8 bytes */
const FORM_BYTES = 9;

const TWO_32 = 2 ** 32;
const TWO_63 = 2 ** 63;
const SPACE = 0x20;
const UPPER_A = 0x41;
const UPPER_Z = 0x5a;

const tableHashes = new Map<string, number>();
const textEncoder = new TextEncoder();
let scratch = new Uint8Array(1024);
let scratchView = new DataView(scratch.buffer);

/**
 * Hash of a row's key, unsigned 32 bits: murmur3 (x86, 32) over a canonical form of the key, seeded with that of the
 * table's name. Names that differ in ASCII case only, and keys that SQLite compares equal, hash alike; NULL equals NULL.
 * @param collations one for each key column; a missing one, or one that isn't SQLite's own, is taken as BINARY
 */
export function hashKey(table: string, key: readonly SqlValue[], collations: readonly string[]): number {
  let size = key.length * FORM_BYTES;
  for (const value of key) {
    if (value instanceof SqlText) size += value.bytes.length;
    else if (value instanceof Uint8Array) size += value.length;
  }
  if (size > scratch.length) resizeScratch(size);
  let at = 0;
  for (let i = 0; i < key.length; i++) at = writeForm(at, key[i] as SqlValue, collations[i] ?? "BINARY");
  const hash = murmur3(scratch, at, hashTable(table));
  if (scratch.length > KEPT_SCRATCH_BYTES) resizeScratch(KEPT_SCRATCH_BYTES);
  return hash;
}

/** Shard of a hash, from 0. @param shards 1 or more */
export function shardOf(hash: number, shards: number): number {
  return hash % shards;
}

/**
 * The key as a string: two are equal exactly when SQLite compares the keys equal (NULL equals NULL here). For use in a
 * Map of one table; collations as in hashKey.
 */
export function canonicalKey(key: readonly SqlValue[], collations: readonly string[]): string {
  if (key.length === 1) return canonicalValue(key[0] as SqlValue, collations[0] ?? "BINARY");
  let text = "";
  for (let i = 0; i < key.length; i++) text += canonicalValue(key[i] as SqlValue, collations[i] ?? "BINARY") + ",";
  return text;
}

function resizeScratch(size: number): void {
  scratch = new Uint8Array(size);
  scratchView = new DataView(scratch.buffer);
}

function hashTable(table: string): number {
  const known = tableHashes.get(table);
  if (known !== undefined) return known;
  const name = textEncoder.encode(table.replace(/[A-Z]+/g, (upper) => upper.toLowerCase()));
  const hash = murmur3(name, name.length, 0);
  if (tableHashes.size >= REMEMBERED_TABLES) tableHashes.clear();
  tableHashes.set(table, hash);
  return hash;
}

/**
 * Writes the canonical form of a value into `scratch`: the form's byte, and the integer (8 bytes), the real (8), or the size
 * (4) and bytes of the text or blob. @returns where it ends
 */
function writeForm(at: number, value: SqlValue, collation: string): number {
  if (value === null) {
    scratch[at] = FORM_NULL;
    return at + 1;
  }
  if (typeof value === "bigint") return writeInteger(at, value);
  if (typeof value === "number") {
    if (isInteger64(value)) return writeInteger(at, BigInt(value));
    scratch[at] = FORM_REAL;
    scratchView.setFloat64(at + 1, value, true);
    return at + 9;
  }
  if (value instanceof SqlText) return writeText(at, value.bytes, collation);
  scratch[at] = FORM_BLOB;
  scratchView.setUint32(at + 1, value.length, true);
  scratch.set(value, at + 5);
  return at + 5 + value.length;
}

/** SQLite compares integers and reals exactly, so a real that is one of its integers is that integer; -0.0 is 0. */
function isInteger64(value: number): boolean {
  return Number.isInteger(value) && value >= -TWO_63 && value < TWO_63;
}

function writeInteger(at: number, value: bigint): number {
  scratch[at] = FORM_INTEGER;
  const near = Number(value);
  if (Number.isSafeInteger(near)) {
    scratchView.setInt32(at + 1, near | 0, true);
    scratchView.setInt32(at + 5, Math.floor(near / TWO_32), true);
  } else scratchView.setBigInt64(at + 1, value, true);
  return at + 9;
}

function writeText(at: number, bytes: Uint8Array, collation: string): number {
  const form = textForm(bytes, collation);
  scratch[at] = FORM_TEXT;
  scratchView.setUint32(at + 1, form.size, true);
  const start = at + 5;
  if (!form.fold && form.compared > LOOP_BYTES) {
    scratch.set(bytes.subarray(0, form.compared), start);
    return start + form.compared;
  }
  for (let i = 0; i < form.compared; i++) {
    const byte = bytes[i] as number;
    scratch[start + i] = form.fold ? foldAscii(byte) : byte;
  }
  return start + form.compared;
}

/** How a collation sees a text: as its `compared` first bytes, folded or not, and a size that must be the same. */
interface TextForm {
  readonly compared: number;
  readonly size: number;
  readonly fold: boolean;
}

function textForm(bytes: Uint8Array, collation: string): TextForm {
  const size = bytes.length;
  if (collation === "BINARY") return { compared: size, size, fold: false };
  const name = collation.toUpperCase();
  if (name === "RTRIM") {
    let end = size;
    while (end > 0 && bytes[end - 1] === SPACE) end--;
    return { compared: end, size: end, fold: false };
  }
  if (name === "NOCASE") {
    // SQLite's NOCASE stops at a NUL in both texts, and then compares the lengths.
    const nul = bytes.indexOf(0);
    return { compared: nul < 0 ? size : nul + 1, size, fold: true };
  }
  return { compared: size, size, fold: false };
}

function foldAscii(byte: number): number {
  return byte >= UPPER_A && byte <= UPPER_Z ? byte + 32 : byte;
}

function canonicalValue(value: SqlValue, collation: string): string {
  if (value === null) return "n";
  if (typeof value === "bigint") return canonicalInteger(value);
  if (typeof value === "number") return isInteger64(value) ? canonicalInteger(BigInt(value)) : `r${value}`;
  if (value instanceof Uint8Array) return `b${value.length}:${latin1(value, false)}`;
  const { bytes } = value;
  const { compared, size, fold } = textForm(bytes, collation);
  return `t${size}:${latin1(compared === bytes.length ? bytes : bytes.subarray(0, compared), fold)}`;
}

/** Digits only; through a number where that is exact, since its digits come faster. */
function canonicalInteger(value: bigint): string {
  const near = Number(value);
  return Number.isSafeInteger(near) ? `${near}` : `${value}`;
}

/** One character for each byte: exact, where decoding as UTF-8 would make different texts equal. */
function latin1(bytes: Uint8Array, fold: boolean): string {
  if (bytes.length > LOOP_BYTES) {
    const seen = fold ? foldedCopy(bytes) : bytes;
    return Buffer.from(seen.buffer, seen.byteOffset, seen.byteLength).toString("latin1");
  }
  let text = "";
  for (let i = 0; i < bytes.length; i++) {
    const byte = bytes[i] as number;
    text += String.fromCharCode(fold ? foldAscii(byte) : byte);
  }
  return text;
}

function foldedCopy(bytes: Uint8Array): Uint8Array {
  const folded = new Uint8Array(bytes.length);
  for (let i = 0; i < bytes.length; i++) folded[i] = foldAscii(bytes[i] as number);
  return folded;
}

/** MurmurHash3_x86_32 of the first `size` bytes. */
function murmur3(bytes: Uint8Array, size: number, seed: number): number {
  let hash = seed | 0;
  const blocks = size & ~3;
  for (let i = 0; i < blocks; i += 4) {
    const word = (bytes[i] as number) | (bytes[i + 1] as number) << 8 | (bytes[i + 2] as number) << 16 |
      (bytes[i + 3] as number) << 24;
    hash ^= mixWord(word);
    hash = hash << 13 | hash >>> 19;
    hash = (Math.imul(hash, 5) + 0xe6546b64) | 0;
  }
  let tail = 0;
  for (let i = size - 1; i >= blocks; i--) tail = tail << 8 | (bytes[i] as number);
  if (blocks < size) hash ^= mixWord(tail);
  hash ^= size;
  hash = Math.imul(hash ^ hash >>> 16, 0x85ebca6b);
  hash = Math.imul(hash ^ hash >>> 13, 0xc2b2ae35);
  return (hash ^ hash >>> 16) >>> 0;
}

function mixWord(word: number): number {
  const mixed = Math.imul(word, 0xcc9e2d51);
  return Math.imul(mixed << 15 | mixed >>> 17, 0x1b873593);
}
