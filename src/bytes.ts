/** A growing byte buffer and a bounds-checked reader: what the codecs stand on. All numbers are little-endian. */
import { MessageFormatError } from "./errors.ts";

/** capacity of a fresh writer, bytes */
const INITIAL_BYTES = 16 * 1024;
/** a writer that grew larger than this gives its memory back when it is cleared, bytes */
const KEPT_BYTES = 4 * 1024 * 1024;
/** above this capacity a writer grows by this much instead of doubling, bytes */
const GROWTH_BYTES = 256 * 1024 * 1024;
/** below this a loop copies faster than TypedArray.set, bytes */
const LOOP_COPY_BYTES = 48;

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

export class ByteWriter {
  bytes: Uint8Array<ArrayBuffer>;
  view: DataView;
  length = 0;

  constructor(readonly maxBytes: number) {
    this.bytes = new Uint8Array(Math.min(maxBytes, INITIAL_BYTES));
    this.view = new DataView(this.bytes.buffer);
  }

  /** Makes room for `count` more bytes. Throws RangeError above `maxBytes`. */
  reserve(count: number): void {
    if (this.length + count > this.bytes.length) this.grow(this.length + count);
  }

  private grow(needed: number): void {
    if (needed > this.maxBytes) throw new RangeError(`Cannot encode changes: they exceed ${this.maxBytes} bytes`);
    const roomy = this.bytes.length + Math.min(this.bytes.length, GROWTH_BYTES);
    const grown = new Uint8Array(Math.min(this.maxBytes, Math.max(needed, roomy)));
    grown.set(this.written);
    this.bytes = grown;
    this.view = new DataView(grown.buffer);
  }

  clear(): void {
    this.length = 0;
    if (this.bytes.length <= KEPT_BYTES) return;
    this.bytes = new Uint8Array(INITIAL_BYTES);
    this.view = new DataView(this.bytes.buffer);
  }

  /** A view of what was written, good until the next write. */
  get written(): Uint8Array {
    return this.bytes.subarray(0, this.length);
  }

  byte(value: number): void {
    this.reserve(1);
    this.bytes[this.length++] = value;
  }

  /** @param value 0 … 2^53 - 1 */
  varint(value: number): void {
    this.reserve(8);
    let rest = value;
    while (rest > 0x7f) {
      this.bytes[this.length++] = (rest % 128) | 0x80;
      rest = rest > 0x7fffffff ? Math.floor(rest / 128) : rest >>> 7;
    }
    this.bytes[this.length++] = rest;
  }

  int64(value: bigint): void {
    this.reserve(8);
    this.view.setBigInt64(this.length, value, true);
    this.length += 8;
  }

  raw(source: Uint8Array): void {
    const size = source.length;
    this.reserve(size);
    const target = this.bytes;
    const at = this.length;
    if (size <= LOOP_COPY_BYTES) { for (let i = 0; i < size; i++) target[at + i] = source[i] as number; }
    else target.set(source, at);
    this.length = at + size;
  }

  /** Names, as the length of each in UTF-16 units and then all of them as one text: one call of the encoder. */
  names(names: readonly string[]): void {
    this.varint(names.length);
    for (const name of names) this.varint(name.length);
    const encoded = encoder.encode(names.join(""));
    this.varint(encoded.length);
    this.raw(encoded);
  }
}

/** Reads forward between two bounds; every read past the end throws MessageFormatError. */
export class ByteReader {
  readonly view: DataView;
  at: number;
  readonly end: number;

  constructor(readonly bytes: Uint8Array, start = 0, end = bytes.length) {
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.at = start;
    this.end = end;
  }

  get left(): number {
    return this.end - this.at;
  }

  /** Claims the next `count` bytes. @returns where they start */
  take(count: number): number {
    const at = this.at;
    if (count > this.end - at) throw malformed("it is cut off");
    this.at = at + count;
    return at;
  }

  byte(): number {
    return this.bytes[this.take(1)] as number;
  }

  varint(): number {
    let value = 0;
    let scale = 1;
    for (let i = 0; i < 8; i++) {
      const byte = this.byte();
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) {
        if (value > Number.MAX_SAFE_INTEGER) break;
        return value;
      }
      scale *= 128;
    }
    throw malformed("a number is out of range");
  }

  int64(): bigint {
    return this.view.getBigInt64(this.take(8), true);
  }

  /** A view of the next `count` bytes, not a copy. */
  raw(count: number): Uint8Array {
    return new Uint8Array(this.bytes.buffer, this.bytes.byteOffset + this.take(count), count);
  }

  names(maxCount: number, maxLength: number): string[] {
    const count = this.varint();
    if (count > maxCount) throw malformed("it has too many names");
    const lengths: number[] = [];
    for (let i = 0; i < count; i++) lengths.push(this.varint());
    const encoded = this.raw(this.varint());
    const text = decodeText(encoded);
    let at = 0;
    const names = lengths.map((length) => text.slice(at, at += length));
    if (at !== text.length) throw malformed("its names don't have their lengths");
    if (!names.every((name) => name.length <= maxLength && name.isWellFormed())) throw malformed("a name is none");
    return names;
  }
}

function decodeText(encoded: Uint8Array): string {
  try {
    return decoder.decode(encoded);
  } catch (cause) {
    throw malformed("a name is not UTF-8", { cause });
  }
}

/** One array of many; the only one is given back as it is. */
export function joined(pieces: readonly Uint8Array[]): Uint8Array {
  if (pieces.length === 1) return pieces[0]!;
  const whole = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    whole.set(piece, at);
    at += piece.length;
  }
  return whole;
}

export function malformed(state: string, options?: ErrorOptions): MessageFormatError {
  return new MessageFormatError(`Cannot read a message: ${state}`, options);
}
