/** What travels: changes of rows, grouped by table, in parts of a batch. */

/**
 * A TEXT value, as the bytes SQLite stores (UTF-8 on the wire). They may hold NUL or be no valid UTF-8, so they are
 * never decoded on the way.
 */
export class SqlText {
  constructor(readonly bytes: Uint8Array) {}
}

/** INTEGER is bigint, REAL is number, TEXT is SqlText, BLOB is Uint8Array. Storage classes survive to the bit. */
export type SqlValue = null | bigint | number | SqlText | Uint8Array;

/** About the memory that values take, bytes */
export function bytesOf(values: readonly SqlValue[]): number {
  let bytes = 8 * values.length;
  for (const value of values) {
    if (value instanceof Uint8Array) bytes += value.length;
    else if (value instanceof SqlText) bytes += value.bytes.length;
  }
  return bytes;
}

/** The `op` of an entry: what the trigger saw. The numbers are stored in change logs and messages. */
export const OP_INSERT = 1;
export const OP_UPDATE = 2;
export const OP_DELETE = 3;
export type Op = typeof OP_INSERT | typeof OP_UPDATE | typeof OP_DELETE;

/** One change: the entry it came from, and the row. */
export interface Change {
  readonly op: Op;
  /** `seq` of the entry in its change log, 1 … 2^53 */
  readonly seq: number;
  /** random mark of the entry, signed 64 bits */
  readonly stamp: bigint;
  /** one value for each of the table's `columns`; for OP_DELETE one for each key column, in that order */
  readonly values: readonly SqlValue[];
}

/** What the type of a column does to the values that it is given; in messages each is its place here. */
export const AFFINITIES = "BTNR";
/** BLOB, or no type: stores every value as it is. T is TEXT, N is NUMERIC and INTEGER, R is REAL. */
export const NO_AFFINITY = "B";

/** The shape of a table as its origin had it. Names are UTF-8 strings as declared there. */
export interface TableShape {
  readonly table: string;
  /** columns of OP_INSERT and OP_UPDATE values, in order */
  readonly columns: readonly string[];
  /** indexes into `columns`: the primary key, in key order */
  readonly key: readonly number[];
  /** schema fingerprint: key columns, collations, UNIQUE set; 16 hex digits */
  readonly fingerprint: string;
  /** for each of `columns` those of AFFINITIES that it had at the origin, one after the other; "" if they are not known */
  readonly affinities: readonly string[];
}

/** Changes of one table, in the order of their entries. */
export interface TableChanges extends TableShape {
  readonly changes: readonly Change[];
}

/** The `base` of a batch that its own node writes again: it holds entries that were not laid whole while pending. */
export const WRITTEN_AGAIN = 0;

/** What every message says of itself, besides its changes. */
export interface MessageHeader {
  /** id of the node the changes were made on, 32 hex digits */
  readonly origin: string;
  /** the process of it, 16 hex digits */
  readonly nonce: string;
  readonly epoch: number;
  /** number of this message in its epoch, from 1; 1 is the marker */
  readonly number: number;
  /** the shard's cursor in the snapshot that held all entries of the batch */
  readonly base: number;
  /** place of this part in its batch, from 1 */
  readonly part: number;
  /** the batch ends here and takes effect */
  readonly last: boolean;
  /** the payload goes on in the next part: a piece of a frame that is larger than a message may be */
  readonly continues: boolean;
}

/**
 * A message: its header and a frame (or, when `continues` was set here or in the part before, a piece of one).
 * A frame is whole entries, encoded and perhaps compressed: see change_codec.ts. A marker has an empty frame.
 */
export interface Message extends MessageHeader {
  readonly frame: Uint8Array;
}
