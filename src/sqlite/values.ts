/**
 * Values between SQLite and SqlValue, to the byte. The drivers cut TEXT at NUL and replace invalid UTF-8, so TEXT is
 * read as CAST(x AS BLOB) beside a mask that tells which columns were TEXT, and written as CAST(? AS TEXT).
 */
import { SqlText, type SqlValue } from "../change.ts";
import type { DriverValue, Row } from "../database.ts";

/** columns of one mask: it stays a small integer */
const MASK_BITS = 30;

/** The stored encoding of TEXT: PRAGMA encoding. On the wire it is always UTF-8. */
export type TextEncoding = "UTF-8" | "UTF-16le" | "UTF-16be";

/** Result columns that read `expressions` to the byte: first the masks, then the values. */
export function exactColumns(expressions: readonly string[]): string {
  const masks: string[] = [];
  for (let from = 0; from < expressions.length; from += MASK_BITS) {
    const bits = expressions.slice(from, from + MASK_BITS).map((x, bit) => `(typeof(${x})='text')*${2 ** bit}`);
    masks.push(bits.join("+"));
  }
  const values = expressions.map((x) => `CASE WHEN typeof(${x})='text' THEN CAST(${x} AS BLOB) ELSE ${x} END`);
  return [...masks, ...values].join(",");
}

/** How many result columns exactColumns gives for `count` expressions, before the first value. */
export function maskCount(count: number): number {
  return Math.ceil(count / MASK_BITS);
}

/** The `count` values that exactColumns put into `row`, whose first mask is at `offset`. */
export function readExact(row: Row, offset: number, count: number, encoding: TextEncoding): SqlValue[] {
  const masks = maskCount(count);
  const values = new Array<SqlValue>(count);
  const start = offset + masks;
  for (let m = 0; m < masks; m++) {
    const mask = Number(row[offset + m]);
    const end = Math.min(count, (m + 1) * MASK_BITS);
    for (let i = m * MASK_BITS; i < end; i++) {
      const value = row[start + i];
      values[i] = mask & (1 << (i - m * MASK_BITS)) ? fromStored(value as Uint8Array, encoding) : value as SqlValue;
    }
  }
  return values;
}

function fromStored(bytes: Uint8Array, encoding: TextEncoding): SqlText {
  return new SqlText(encoding === "UTF-8" ? bytes : utf16ToUtf8(bytes, encoding === "UTF-16be"));
}

/** What to bind for a value where the statement has `placeholder(value, encoding)`. */
export function toDriver(value: SqlValue, encoding: TextEncoding): DriverValue {
  if (!(value instanceof SqlText)) return value;
  return encoding === "UTF-8" ? value.bytes : utf8ToUtf16(value.bytes, encoding === "UTF-16be");
}

/**
 * The text of a parameter. The + keeps CAST's affinity away from comparisons: in a column without a type 1 and '1' are
 * two keys. SQLite 3.50 takes a bound BLOB that is cast for UTF-8 in every database; what substr() returns has the
 * database's own encoding, and is NULL for no bytes.
 */
export function placeholder(value: SqlValue, encoding: TextEncoding): string {
  if (!(value instanceof SqlText)) return "?";
  return encoding === "UTF-8" ? "+CAST(? AS TEXT)" : "+CAST(coalesce(substr(?, 1), x'') AS TEXT)";
}

/** Bytes of UTF-16 as UTF-8; lone surrogates become three bytes each, as SQLite itself does it. */
export function utf16ToUtf8(bytes: Uint8Array, bigEndian: boolean): Uint8Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const out = new Uint8Array(bytes.length * 2);
  let end = 0;
  for (let i = 0; i + 1 < bytes.length; i += 2) {
    let point = view.getUint16(i, !bigEndian);
    if (point >= 0xd800 && point < 0xdc00 && i + 3 < bytes.length) {
      const low = view.getUint16(i + 2, !bigEndian);
      if (low >= 0xdc00 && low < 0xe000) {
        point = 0x10000 + ((point - 0xd800) << 10) + (low - 0xdc00);
        i += 2;
      }
    }
    end = putUtf8(out, end, point);
  }
  return out.subarray(0, end);
}

function putUtf8(out: Uint8Array, end: number, point: number): number {
  if (point < 0x80) {
    out[end++] = point;
  } else if (point < 0x800) {
    out[end++] = 0xc0 | (point >> 6);
    out[end++] = 0x80 | (point & 0x3f);
  } else if (point < 0x10000) {
    out[end++] = 0xe0 | (point >> 12);
    out[end++] = 0x80 | ((point >> 6) & 0x3f);
    out[end++] = 0x80 | (point & 0x3f);
  } else {
    out[end++] = 0xf0 | (point >> 18);
    out[end++] = 0x80 | ((point >> 12) & 0x3f);
    out[end++] = 0x80 | ((point >> 6) & 0x3f);
    out[end++] = 0x80 | (point & 0x3f);
  }
  return end;
}

/** UTF-8 as UTF-16 bytes; a byte that begins no valid sequence becomes U+FFFD, since UTF-16 can't hold it. */
export function utf8ToUtf16(bytes: Uint8Array, bigEndian: boolean): Uint8Array {
  const out = new DataView(new ArrayBuffer(bytes.length * 2));
  let end = 0;
  for (let i = 0; i < bytes.length;) {
    const [point, length] = readUtf8(bytes, i);
    i += length;
    if (point >= 0x10000) {
      out.setUint16(end, 0xd800 + ((point - 0x10000) >> 10), !bigEndian);
      out.setUint16(end + 2, 0xdc00 + ((point - 0x10000) & 0x3ff), !bigEndian);
      end += 4;
    } else {
      out.setUint16(end, point, !bigEndian);
      end += 2;
    }
  }
  return new Uint8Array(out.buffer, 0, end);
}

const REPLACEMENT = 0xfffd;

/** @returns the code point at `i` (surrogates included) and how many bytes it took */
function readUtf8(bytes: Uint8Array, i: number): [point: number, length: number] {
  const first = bytes[i]!;
  if (first < 0x80) return [first, 1];
  const length = first >= 0xf0 && first < 0xf5 ? 4 : first >= 0xe0 && first < 0xf0 ? 3 : first >= 0xc2 ? 2 : 0;
  if (length === 0 || first >= 0xf5 || i + length > bytes.length) return [REPLACEMENT, 1];
  let point = first & (0x7f >> length);
  for (let k = 1; k < length; k++) {
    const next = bytes[i + k]!;
    if ((next & 0xc0) !== 0x80) return [REPLACEMENT, 1];
    point = (point << 6) | (next & 0x3f);
  }
  return [point, length];
}
