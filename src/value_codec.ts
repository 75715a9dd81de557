/**
 * One SQLite value as a tag byte and its bytes, exact to the bit:
 *
 * | tag | value |
 * |---|---|
 * | 0x00 | NULL |
 * | 0x01 … 0x08 | INTEGER, as that many bytes of two's complement (1, 2, 4, 6 and 8 are written and read) |
 * | 0x09 | REAL, 8 bytes |
 * | 0x0a, 0x0b | TEXT, BLOB, with a varint length |
 * | 0x40 … 0x7f | TEXT of 0 … 63 bytes |
 * | 0x80 … 0xff | the INTEGER -16 … 111 |
 */
import { type ByteReader, type ByteWriter, malformed } from "./bytes.ts";
import { SqlText, type SqlValue } from "./change.ts";

const TAG_NULL = 0x00;
const TAG_REAL = 0x09;
const TAG_TEXT = 0x0a;
const TAG_BLOB = 0x0b;
const TAG_SHORT_TEXT = 0x40;
const TAG_SMALL_INTEGER = 0x80;

const SHORT_TEXT_BYTES = 0x3f;
const SMALL_INTEGER_MIN = -16;
const SMALL_INTEGER_MAX = 111;
const INT16_MAX = 0x7fff;
const INT32_MAX = 0x7fffffff;
const INT48_MAX = 0x7fffffffffff;
const TWO_32 = 0x100000000;

/** Making a bigint costs an allocation; the most frequent ones exist already. Indexed by tag - TAG_SMALL_INTEGER. */
const SMALL_INTEGERS = Array.from({ length: 128 }, (_, index) => BigInt(index + SMALL_INTEGER_MIN));

/** Throws RangeError for what SQLite can't hold: NaN, an integer of more than 64 bits. */
export function writeValue(out: ByteWriter, value: SqlValue): void {
  if (value === null) out.byte(TAG_NULL);
  else if (typeof value === "bigint") writeInteger(out, value);
  else if (typeof value === "number") writeReal(out, value);
  else if (value instanceof SqlText) writeText(out, value.bytes);
  else {
    out.byte(TAG_BLOB);
    out.varint(value.length);
    out.raw(value);
  }
}

function writeText(out: ByteWriter, bytes: Uint8Array): void {
  if (bytes.length <= SHORT_TEXT_BYTES) out.byte(TAG_SHORT_TEXT + bytes.length);
  else {
    out.byte(TAG_TEXT);
    out.varint(bytes.length);
  }
  out.raw(bytes);
}

function writeReal(out: ByteWriter, value: number): void {
  if (Number.isNaN(value)) throw new RangeError("Cannot encode NaN: SQLite has no such value");
  out.reserve(9);
  out.bytes[out.length] = TAG_REAL;
  out.view.setFloat64(out.length + 1, value, true);
  out.length += 9;
}

function writeInteger(out: ByteWriter, value: bigint): void {
  out.reserve(9);
  const at = out.length;
  const near = Number(value);
  if (near >= SMALL_INTEGER_MIN && near <= SMALL_INTEGER_MAX) {
    out.bytes[at] = TAG_SMALL_INTEGER + near - SMALL_INTEGER_MIN;
    out.length = at + 1;
    return;
  }
  const magnitude = near < 0 ? -near - 1 : near;
  let size = 8;
  if (magnitude <= 0x7f) out.bytes[at + 1] = near, size = 1;
  else if (magnitude <= INT16_MAX) out.view.setInt16(at + 1, near, true), size = 2;
  else if (magnitude <= INT32_MAX) out.view.setInt32(at + 1, near, true), size = 4;
  else if (magnitude <= INT48_MAX) {
    out.view.setInt32(at + 1, near | 0, true);
    out.view.setInt16(at + 5, Math.floor(near / TWO_32), true);
    size = 6;
  } else {
    if (BigInt.asIntN(64, value) !== value) throw new RangeError(`Cannot encode ${value}: more than 64 bits`);
    out.view.setBigInt64(at + 1, value, true);
  }
  out.bytes[at] = size;
  out.length = at + 1 + size;
}

/** Text and blobs are views of the reader's bytes. Throws MessageFormatError on an unknown tag or a cut-off value. */
export function readValue(from: ByteReader): SqlValue {
  const tag = from.byte();
  if (tag >= TAG_SMALL_INTEGER) return SMALL_INTEGERS[tag - TAG_SMALL_INTEGER] as bigint;
  if (tag >= TAG_SHORT_TEXT) return new SqlText(from.raw(tag - TAG_SHORT_TEXT));
  switch (tag) {
    case TAG_NULL:
      return null;
    case 1:
      return BigInt(from.view.getInt8(from.take(1)));
    case 2:
      return BigInt(from.view.getInt16(from.take(2), true));
    case 4:
      return BigInt(from.view.getInt32(from.take(4), true));
    case 6: {
      const at = from.take(6);
      return BigInt(from.view.getInt16(at + 4, true) * TWO_32 + from.view.getUint32(at, true));
    }
    case 8:
      return from.view.getBigInt64(from.take(8), true);
    case TAG_REAL:
      return readReal(from);
    case TAG_TEXT:
      return new SqlText(from.raw(from.varint()));
    case TAG_BLOB:
      return from.raw(from.varint());
    default:
      throw malformed(`unknown value tag ${tag}`);
  }
}

function readReal(from: ByteReader): number {
  const value = from.view.getFloat64(from.take(8), true);
  if (Number.isNaN(value)) throw malformed("a value is NaN, which SQLite doesn't have");
  return value;
}
