/**
 * A frame is whole entries of one or more tables:
 *
 *     kind (1: values as they are, 2: values in zstd) · bytes of the entries section · bytes of the values section ·
 *     with zstd only: bytes of its compressed form · entries section · values section
 *
 * The entries section holds for each table its shape (shape_codec.ts), how many changes it has (4 bytes), and
 * for each change op and seq (as the difference from the one before, 1 byte as a rule) and stamp (8 bytes). It is apart
 * from the values, and never compressed (stamps are random), so that an acknowledgement reads nothing else.
 * The values section holds the values of all changes in the same order (value_codec.ts). Row-wise: with zstd behind it, columns
 * side by side save little, and rows are what both ends have.
 */
import { constants, zstdCompressSync, zstdDecompressSync } from "node:zlib";
import { ByteReader, ByteWriter, malformed } from "./bytes.ts";
import {
  type Change,
  type Op,
  OP_DELETE,
  OP_INSERT,
  OP_UPDATE,
  type SqlValue,
  type TableChanges,
  type TableShape,
} from "./change.ts";
import { readShape, writeShape } from "./shape_codec.ts";
import { readValue, writeValue } from "./value_codec.ts";

/** Largest section of a frame, and so the largest row, bytes. SQLite's own rows end at 10^9, or 2^31 - 1 if compiled so. */
export const MAX_SECTION_BYTES = 0x7fffffff;
/** Values below this are not worth a compressor's start, bytes. */
export const COMPRESS_MIN_BYTES = 2048;
/** Values above this travel as they are: it bounds what a small frame can unfold to, and how long one call blocks, bytes. */
export const COMPRESS_MAX_BYTES = 64 * 1024 * 1024;
/** Compressed form is used if it is at most this part of the values. */
const COMPRESS_MAX_RATIO = 0.9;
/** unit in which output grows while decompressing, bytes */
const DECOMPRESS_CHUNK_BYTES = 1024 * 1024;

/** most bytes in front of the entries: kind and three varints of 8 */
const MAX_HEAD_BYTES = 25;
const KIND_RAW = 1;
const KIND_ZSTD = 2;
/** as version 1 of a message has it: without affinities */
const TABLE_WITHOUT_AFFINITIES = 1;
const TABLE_FOLLOWS = 2;
const TABLES_END = 0;
/** least bytes of a change in the entries section: op with seq, stamp */
const MIN_ENTRY_BYTES = 9;
const COMPRESSION = {
  params: { [constants.ZSTD_c_compressionLevel]: 1, [constants.ZSTD_c_checksumFlag]: 1 },
};

/** What an acknowledgement needs to know of one table of a frame. `seqs` and `stamps` have the same length. */
export interface TableSeqs {
  readonly table: string;
  readonly fingerprint: string;
  readonly seqs: number[];
  readonly stamps: bigint[];
}

/**
 * Builds frames, one after the other, in buffers it keeps. Every method throws RangeError on what the limits above, or
 * SQLite, exclude; the frame is then void: `finish` throws too, and it or `reset` makes the encoder usable again.
 */
export class FrameEncoder {
  private readonly entries = new ByteWriter(MAX_SECTION_BYTES);
  private readonly values = new ByteWriter(MAX_SECTION_BYTES);
  private readonly head = new ByteWriter(MAX_HEAD_BYTES);
  private shape: TableShape | undefined;
  /** false while something is half written, and for good when that threw */
  private whole = true;
  private count = 0;
  private countAt = 0;
  private previousSeq = 0;

  /** Bytes so far, before compression; a few bytes less than the frame will have. */
  get size(): number {
    return this.entries.length + this.values.length;
  }

  /** Changes added from here on are of this table. A table without changes, or one that comes twice, is legal. */
  begin(shape: TableShape): void {
    this.endTable();
    const whole = this.whole;
    this.whole = false;
    const { entries } = this;
    entries.byte(TABLE_FOLLOWS);
    writeShape(entries, shape);
    entries.reserve(4);
    this.countAt = entries.length;
    entries.length += 4;
    this.shape = shape;
    this.count = 0;
    this.previousSeq = 0;
    this.whole = whole;
  }

  /** @param values as in Change; they are copied */
  add(op: Op, seq: number, stamp: bigint, values: readonly SqlValue[]): void {
    const { shape } = this;
    const whole = this.whole;
    this.whole = false;
    if (shape === undefined) throw new RangeError("Cannot add a change: no table has begun");
    const width = valueCount(shape, op);
    if (values.length !== width) {
      throw new RangeError(`Cannot encode a change of ${shape.table}: ${values.length} values, expected ${width}`);
    }
    if (!(seq >= 0 && Number.isSafeInteger(seq))) throw new RangeError(`Cannot encode seq ${seq}: not 0 … 2^53 - 1`);
    if (BigInt.asIntN(64, stamp) !== stamp) throw new RangeError(`Cannot encode stamp ${stamp}: more than 64 bits`);
    writeEntry(this.entries, op, seq - this.previousSeq, stamp);
    this.previousSeq = seq;
    for (let i = 0; i < width; i++) writeValue(this.values, values[i] as SqlValue);
    this.count++;
    this.whole = whole;
  }

  /** @returns the frame (empty when no table has begun); the encoder is ready for the next one */
  finish(): Uint8Array {
    try {
      if (!this.whole) throw new RangeError("Cannot finish a frame: something in it was refused");
      if (this.shape === undefined) return new Uint8Array(0);
      this.endTable();
      this.entries.byte(TABLES_END);
      return assemble(this.head, this.entries, this.values);
    } finally {
      this.reset();
    }
  }

  /** Forgets what was added. */
  reset(): void {
    this.shape = undefined;
    this.whole = true;
    this.entries.clear();
    this.values.clear();
  }

  private endTable(): void {
    if (this.shape !== undefined) this.entries.view.setUint32(this.countAt, this.count, true);
  }
}

function valueCount(shape: TableShape, op: Op): number {
  return op === OP_DELETE ? shape.key.length : shape.columns.length;
}

/** First byte: 1 bit more bytes follow, 1 bit sign, 2 bits op, 4 bits of the difference; the rest of it as a varint. */
function writeEntry(out: ByteWriter, op: Op, difference: number, stamp: bigint): void {
  const magnitude = Math.abs(difference);
  const head = (op << 4) | (difference < 0 ? 0x40 : 0);
  if (magnitude < 16) out.byte(head | magnitude);
  else {
    out.byte(head | 0x80 | magnitude % 16);
    out.varint(Math.floor(magnitude / 16));
  }
  out.int64(stamp);
}

function assemble(head: ByteWriter, entries: ByteWriter, values: ByteWriter): Uint8Array {
  const rows = values.written;
  const packed = compress(rows);
  head.clear();
  head.byte(packed === undefined ? KIND_RAW : KIND_ZSTD);
  head.varint(entries.length);
  head.varint(rows.length);
  if (packed !== undefined) head.varint(packed.length);
  const body = packed ?? rows;
  const frame = new Uint8Array(head.length + entries.length + body.length);
  frame.set(head.written);
  frame.set(entries.written, head.length);
  frame.set(body, head.length + entries.length);
  return frame;
}

/** @returns undefined when it doesn't pay */
function compress(rows: Uint8Array): Uint8Array | undefined {
  if (rows.length < COMPRESS_MIN_BYTES || rows.length > COMPRESS_MAX_BYTES) return undefined;
  const packed = zstdCompressSync(rows, COMPRESSION);
  return packed.length <= rows.length * COMPRESS_MAX_RATIO ? packed : undefined;
}

/** A frame of whole tables; of none, the empty frame of a marker. Throws RangeError as FrameEncoder does. */
export function encodeFrame(tables: readonly TableChanges[]): Uint8Array {
  const encoder = new FrameEncoder();
  for (const table of tables) {
    encoder.begin(table);
    for (const { op, seq, stamp, values } of table.changes) encoder.add(op, seq, stamp, values);
  }
  return encoder.finish();
}

/**
 * The tables of a frame, in the order they were encoded; none for an empty frame. Text and blob values may be views of
 * `frame`: it must not be written to, and a kept value keeps all of it.
 * Throws MessageFormatError for anything but a whole frame.
 */
export function decodeFrame(frame: Uint8Array): TableChanges[] {
  if (frame.length === 0) return [];
  const { entries, values } = open(frame);
  const from = new ByteReader(unpack(values));
  const tables = readTables(entries, (shape, ops, seqs, stamps) => {
    const changes = ops.map((op, index): Change => ({
      op,
      seq: seqs[index] as number,
      stamp: stamps[index] as bigint,
      values: readValues(from, valueCount(shape, op)),
    }));
    return { ...shape, changes };
  });
  if (from.left > 0) throw malformed("values are left over");
  return tables;
}

/**
 * Entries of a frame, for an acknowledgement: its values are neither decompressed nor looked at. One element for each
 * table section, so a table may come twice. Throws MessageFormatError like decodeFrame.
 */
export function readFrameSeqs(frame: Uint8Array): TableSeqs[] {
  if (frame.length === 0) return [];
  return readTables(open(frame).entries, ({ table, fingerprint }, _ops, seqs, stamps) => {
    return { table, fingerprint, seqs, stamps };
  });
}

/** Bytes of a frame's values once it is decoded. Throws MessageFormatError like decodeFrame. */
export function unpackedSize(frame: Uint8Array): number {
  return frame.length === 0 ? 0 : open(frame).values.size;
}

/** The sections of a frame: where the entries are, and the values, still packed. */
interface Sections {
  readonly entries: ByteReader;
  readonly values: PackedValues;
}

interface PackedValues {
  readonly kind: number;
  /** bytes of the values once unpacked */
  readonly size: number;
  readonly packed: Uint8Array;
}

function open(frame: Uint8Array): Sections {
  const from = new ByteReader(frame);
  const kind = from.byte();
  if (kind !== KIND_RAW && kind !== KIND_ZSTD) throw malformed(`unknown kind of frame ${kind}. Upgrade this node.`);
  const entriesSize = from.varint();
  const size = from.varint();
  if (size > (kind === KIND_RAW ? MAX_SECTION_BYTES : COMPRESS_MAX_BYTES)) throw malformed("it is too large");
  const packedSize = kind === KIND_RAW ? size : from.varint();
  const start = from.take(entriesSize);
  const packed = from.raw(packedSize);
  if (from.left > 0) throw malformed("bytes are left over");
  return { entries: new ByteReader(frame, start, start + entriesSize), values: { kind, size, packed } };
}

function unpack({ kind, size, packed }: PackedValues): Uint8Array {
  if (kind === KIND_RAW) return packed;
  // The output is bounded, and its length compared: a cut-off zstd frame decodes without an error.
  const options = { maxOutputLength: size, chunkSize: Math.max(64, Math.min(size, DECOMPRESS_CHUNK_BYTES)) };
  let values: Uint8Array;
  try {
    values = zstdDecompressSync(packed, options);
  } catch (cause) {
    throw malformed("its values can't be decompressed", { cause });
  }
  if (values.length !== size) throw malformed("its values can't be decompressed");
  return values;
}

type TableReader<T> = (shape: TableShape, ops: Op[], seqs: number[], stamps: bigint[]) => T;

function readTables<T>(from: ByteReader, readTable: TableReader<T>): T[] {
  const tables: T[] = [];
  for (;;) {
    const mark = from.byte();
    if (mark === TABLES_END && from.left === 0) return tables;
    if (mark !== TABLE_FOLLOWS && mark !== TABLE_WITHOUT_AFFINITIES) throw malformed("tables are not in order");
    const shape = readShape(from, mark === TABLE_FOLLOWS);
    const count = from.view.getUint32(from.take(4), true);
    if (count * MIN_ENTRY_BYTES > from.left) throw malformed("it is cut off");
    const ops: Op[] = [];
    const seqs: number[] = [];
    const stamps: bigint[] = [];
    let seq = 0;
    for (let i = 0; i < count; i++) {
      const head = from.byte();
      const magnitude = (head & 0x0f) + (head & 0x80 ? from.varint() * 16 : 0);
      seq += head & 0x40 ? -magnitude : magnitude;
      if (!(seq >= 0 && seq <= Number.MAX_SAFE_INTEGER)) throw malformed("a seq is out of range");
      ops.push(readOp(head >> 4 & 3));
      seqs.push(seq);
      stamps.push(from.int64());
    }
    tables.push(readTable(shape, ops, seqs, stamps));
  }
}

function readOp(code: number): Op {
  if (code === OP_INSERT || code === OP_UPDATE || code === OP_DELETE) return code;
  throw malformed("unknown op");
}

function readValues(from: ByteReader, count: number): SqlValue[] {
  const values = new Array<SqlValue>(count);
  for (let i = 0; i < count; i++) values[i] = readValue(from);
  return values;
}
