/**
 * A message on the wire, version 2:
 *
 *     version (1 byte) · CRC-32 of all that follows (4 bytes) · flags (1 byte) · origin (16) · nonce (8) ·
 *     epoch, number, base, part (varints) · the frame, or a piece of one
 *
 * Limits of this version: numbers below 2^53; in a frame (frame_codec.ts, shape_codec.ts) names of 1,000,000 UTF-16
 * units, 32,767 columns, and 2^31 - 1 bytes of values or of entries, so that any row SQLite holds fits.
 */
import { Buffer } from "node:buffer";
import { crc32 } from "node:zlib";
import { ByteReader, ByteWriter, malformed } from "./bytes.ts";
import type { Message } from "./change.ts";
import { MessageFormatError } from "./errors.ts";

export { decodeFrame, encodeFrame, FrameEncoder, readFrameSeqs, type TableSeqs, unpackedSize } from "./frame_codec.ts";

/** The version of message that this Marmot writes. It reads version 1, too, whose frames say no affinities. */
export const MESSAGE_VERSION = 2;
const FIRST_VERSION = 1;
/** Most bytes that a message has besides its frame. */
export const MAX_HEADER_BYTES = 62;

const CRC_AT = 1;
const CHECKED_AT = 5;
const ORIGIN_BYTES = 16;
const NONCE_BYTES = 8;
const FLAG_LAST = 1;
const FLAG_CONTINUES = 2;

/** Throws RangeError when the header is not as MessageHeader says. */
export function encodeMessage(message: Message): Uint8Array {
  const head = new ByteWriter(MAX_HEADER_BYTES);
  head.byte(MESSAGE_VERSION);
  head.length = CHECKED_AT;
  head.byte((message.last ? FLAG_LAST : 0) | (message.continues ? FLAG_CONTINUES : 0));
  head.raw(fromHex(message.origin, ORIGIN_BYTES));
  head.raw(fromHex(message.nonce, NONCE_BYTES));
  for (const value of [message.epoch, message.number, message.base, message.part]) {
    if (!Number.isSafeInteger(value) || value < 0) throw new RangeError(`Cannot encode a message: number ${value}`);
    head.varint(value);
  }
  const bytes = new Uint8Array(head.length + message.frame.length);
  bytes.set(head.written);
  bytes.set(message.frame, head.length);
  new DataView(bytes.buffer).setUint32(CRC_AT, crc32(bytes.subarray(CHECKED_AT)), true);
  return bytes;
}

/**
 * The message in `bytes`; its frame is a view of them, not a copy. Throws MessageFormatError for a message of another
 * version, naming both, and for bytes that are not exactly what encodeMessage returned.
 */
export function decodeMessage(bytes: Uint8Array): Message {
  const from = new ByteReader(bytes);
  const version = from.byte();
  if (version < FIRST_VERSION || version > MESSAGE_VERSION) {
    throw new MessageFormatError(
      `Cannot read a message: it has version ${version}, and this Marmot reads version ${FIRST_VERSION} and ${MESSAGE_VERSION}. ` +
        `Upgrade this node.`,
    );
  }
  const crc = from.view.getUint32(from.take(CHECKED_AT - CRC_AT), true);
  if (crc !== crc32(bytes.subarray(CHECKED_AT))) throw malformed("it is damaged (its checksum differs)");
  const flags = from.byte();
  if (flags > (FLAG_LAST | FLAG_CONTINUES)) throw malformed(`unknown flags ${flags}`);
  const origin = toHex(from.raw(ORIGIN_BYTES));
  const nonce = toHex(from.raw(NONCE_BYTES));
  const epoch = from.varint();
  const number = from.varint();
  const base = from.varint();
  const part = from.varint();
  const last = (flags & FLAG_LAST) !== 0;
  const continues = (flags & FLAG_CONTINUES) !== 0;
  return { origin, nonce, epoch, number, base, part, last, continues, frame: from.raw(from.left) };
}

function fromHex(hex: string, size: number): Uint8Array {
  if (hex.length !== size * 2 || !/^[0-9a-f]*$/.test(hex)) {
    throw new RangeError(`Cannot encode a message: ${JSON.stringify(hex)} is not ${size * 2} hex digits`);
  }
  return Buffer.from(hex, "hex");
}

function toHex(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("hex");
}
