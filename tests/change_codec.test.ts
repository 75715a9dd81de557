import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { test } from "node:test";
import fc from "fast-check";
import {
  type Change,
  type Message,
  type Op,
  OP_DELETE,
  OP_INSERT,
  OP_UPDATE,
  SqlText,
  type SqlValue,
  type TableChanges,
} from "../src/change.ts";
import {
  decodeFrame,
  decodeMessage,
  encodeFrame,
  encodeMessage,
  FrameEncoder,
  MAX_HEADER_BYTES,
  readFrameSeqs,
} from "../src/change_codec.ts";
import { MessageFormatError } from "../src/errors.ts";
import { COMPRESS_MAX_BYTES } from "../src/frame_codec.ts";

const INT64 = { min: -(2n ** 63n), max: 2n ** 63n - 1n };
const FINGERPRINT = "00000000000000ff";
const header = {
  origin: "00112233445566778899aabbccddeeff",
  nonce: "f1e2d3c4b5a69788",
  epoch: 3,
  number: 300,
  base: 123_456_789,
  part: 1,
  last: true,
  continues: false,
} as const;

function text(value: string): SqlText {
  return new SqlText(new TextEncoder().encode(value));
}

function bytes(...values: number[]): Uint8Array {
  return Uint8Array.from(values);
}

/** Every kind of value, each at the borders of its forms. */
const SAMPLES: readonly SqlValue[] = [
  null,
  ...[0n, -1n, 1n, -16n, -17n, 111n, 112n],
  ...[7n, 8n, 15n, 16n, 31n, 32n, 47n, 48n, 53n, 63n].flatMap((n) => [2n ** n - 1n, -(2n ** n)]),
  ...[8n, 16n, 32n, 48n, 53n, 62n].flatMap((n) => [2n ** n, 2n ** n + 1n, -(2n ** n) - 1n]),
  ...[0, -0, 1, 1.5, -2.25, 5e-324, 2 ** 53, 2 ** 63, Number.MAX_VALUE, Infinity, -Infinity],
  ...["", "a", "é😀", "a\0b", "x".repeat(63), "x".repeat(64), "x".repeat(5000)].map(text),
  ...[new SqlText(bytes(0xff, 0xfe, 0x80)), new SqlText(bytes(0xef, 0xbb, 0xbf))],
  ...[bytes(), bytes(0), new Uint8Array(63).fill(7), new Uint8Array(70_000).fill(255)],
];

function tableOf(values: readonly SqlValue[], changes?: readonly Change[]): TableChanges {
  const columns = values.map((_, index) => `column ${index}`);
  const insert: Change = { op: OP_INSERT, seq: 1, stamp: -1n, values };
  const affinities = columns.map(() => "B");
  return { table: "t", columns, key: [0], fingerprint: FINGERPRINT, affinities, changes: changes ?? [insert] };
}

const sqlValue: fc.Arbitrary<SqlValue> = fc.oneof(
  fc.constant(null),
  fc.bigInt(INT64),
  fc.bigInt({ min: -200n, max: 200n }),
  fc.double({ noNaN: true }),
  fc.uint8Array({ maxLength: 80 }).map((array) => Uint8Array.from(array)),
  fc.uint8Array({ maxLength: 80 }).map((array) => new SqlText(Uint8Array.from(array))),
  fc.string({ unit: "grapheme", maxLength: 40 }).map(text),
);

const name = fc.string({ unit: "grapheme", maxLength: 20 });
const seq = fc.oneof(fc.nat(100), fc.maxSafeNat());

function change(width: number, keyWidth: number): fc.Arbitrary<Change> {
  const op = fc.constantFrom<Op>(OP_INSERT, OP_UPDATE, OP_DELETE);
  return op.chain((op) => {
    const size = op === OP_DELETE ? keyWidth : width;
    const values = fc.array(sqlValue, { minLength: size, maxLength: size });
    return fc.record({ op: fc.constant(op), seq, stamp: fc.bigInt(INT64), values }, { noNullPrototype: true });
  });
}

const tableChanges: fc.Arbitrary<TableChanges> = fc.array(name, { minLength: 1, maxLength: 6 }).chain((columns) => {
  const places = fc.shuffledSubarray(columns.map((_, index) => index), { minLength: 1 });
  const fingerprint = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }).map((n) => n.toString(16).padStart(16, "0"));
  const affinities = fc.oneof(fc.constant("T"), fc.string({ unit: fc.constantFrom(..."BTNR"), maxLength: 9 }));
  return places.chain((key) =>
    fc.record({
      table: name,
      columns: fc.constant(columns),
      key: fc.constant(key),
      fingerprint,
      affinities: fc.array(affinities, { minLength: columns.length, maxLength: columns.length }),
      changes: fc.array(change(columns.length, key.length), { maxLength: 40 }),
    }, { noNullPrototype: true })
  );
});

const frames = fc.array(tableChanges, { maxLength: 4 });

/** Small, with every part of the format in it. */
const smallTables: readonly TableChanges[] = [
  {
    table: "orders",
    columns: ["id", "größe"],
    key: [0],
    fingerprint: "0123456789abcdef",
    affinities: ["N", "T"],
    changes: [
      { op: OP_INSERT, seq: 1, stamp: 1n, values: [7n, text("ab")] },
      { op: OP_UPDATE, seq: 1000, stamp: -2n, values: [-70_000n, 1.5] },
      { op: OP_DELETE, seq: 999, stamp: 3n, values: [bytes(1, 2)] },
    ],
  },
  { table: "empty", columns: [], key: [], fingerprint: FINGERPRINT, affinities: [], changes: [] },
];
const largeTables = [tableOf(
  [null],
  Array.from({ length: 400 }, (_, index): Change => {
    return {
      op: OP_INSERT,
      seq: index + 1,
      stamp: BigInt(index),
      values: [text(`a row of many that look alike, ${index}`)],
    };
  }),
)];

function attempt<T>(read: () => T): T | "refused" {
  try {
    return read();
  } catch (error) {
    if (error instanceof MessageFormatError) return "refused";
    throw error;
  }
}

test("every SQLite value comes back with its class and its bits", () => {
  const [table] = decodeFrame(encodeFrame([tableOf(SAMPLES)]));
  const values = table?.changes[0]?.values ?? [];
  assert.deepStrictEqual(values, SAMPLES);
  const doubles = (all: readonly SqlValue[]) => all.filter((value) => typeof value === "number");
  doubles(SAMPLES).forEach((value, index) => assert.ok(Object.is(doubles(values)[index], value)));
});

test("random frames come back as they were", () => {
  fc.assert(fc.property(frames, (tables) => {
    const frame = encodeFrame(tables);
    assert.deepStrictEqual(decodeFrame(frame), tables);
    const expected = tables.map(({ table, fingerprint, changes }) => {
      return { table, fingerprint, seqs: changes.map(({ seq }) => seq), stamps: changes.map(({ stamp }) => stamp) };
    });
    assert.deepStrictEqual(readFrameSeqs(frame), expected);
  }));
});

test("random messages come back as they were", () => {
  const hex = (size: number) => {
    return fc.uint8Array({ minLength: size, maxLength: size }).map((array) => Buffer.from(array).toString("hex"));
  };
  const number = fc.oneof(fc.nat(300), fc.maxSafeNat());
  const message: fc.Arbitrary<Message> = fc.record({
    origin: hex(16),
    nonce: hex(8),
    epoch: number,
    number,
    base: number,
    part: number,
    last: fc.boolean(),
    continues: fc.boolean(),
    frame: fc.uint8Array({ maxLength: 100 }).map((array) => Uint8Array.from(array)),
  }, { noNullPrototype: true });
  fc.assert(fc.property(message, (message) => {
    const encoded = encodeMessage(message);
    assert.ok(encoded.length <= MAX_HEADER_BYTES + message.frame.length);
    assert.deepStrictEqual(decodeMessage(encoded), message);
  }));
});

test("an encoder is ready for the next frame after finish and after a refused value", () => {
  const encoder = new FrameEncoder();
  assert.deepStrictEqual(encoder.finish(), new Uint8Array(0));
  const table = tableOf([1n]);
  encoder.begin(table);
  assert.throws(() => encoder.add(OP_INSERT, 1, 0n, [NaN]), RangeError);
  encoder.begin(table);
  assert.throws(() => encoder.finish(), RangeError);
  encoder.begin(table);
  assert.throws(() => encoder.begin({ ...table, fingerprint: "" }), RangeError);
  encoder.reset();
  for (const tables of [largeTables, smallTables, []]) {
    for (const each of tables) {
      encoder.begin(each);
      for (const { op, seq, stamp, values } of each.changes) encoder.add(op, seq, stamp, values);
    }
    assert.deepStrictEqual(encoder.finish(), encodeFrame(tables));
    assert.equal(encoder.size, 0);
  }
});

test("what SQLite can't hold, or the contract excludes, is refused when it is encoded", () => {
  const encode = (change: Partial<Change>, shape: Partial<TableChanges> = {}) => () => {
    encodeFrame([{ ...tableOf([1n], [{ op: OP_INSERT, seq: 1, stamp: 0n, values: [1n], ...change }]), ...shape }]);
  };
  const refused = [
    encode({ values: [NaN] }),
    encode({ values: [2n ** 63n] }),
    encode({ values: [-(2n ** 63n) - 1n] }),
    encode({ values: [] }),
    encode({ values: [1n, 2n] }),
    encode({ seq: -1 }),
    encode({ seq: 2 ** 53 }),
    encode({ seq: 1.5 }),
    encode({ stamp: 2n ** 63n }),
    encode({}, { fingerprint: "ABC" }),
    encode({}, { affinities: [] }),
    encode({}, { affinities: ["X"] }),
    encode({}, { key: [1] }),
    encode({}, { table: "\ud800" }),
    encode({}, { table: "x".repeat(1_000_001) }),
    () => encodeMessage({ ...header, origin: "zz", frame: bytes() }),
    () => encodeMessage({ ...header, epoch: -1, frame: bytes() }),
  ];
  for (const refuse of refused) assert.throws(refuse, RangeError);
});

test("the format of a message is the one of version 2", () => {
  const message = { ...header, frame: encodeFrame(smallTables) };
  const golden =
    "022be5cd7f0100112233445566778899aabbccddeefff1e2d3c4b5a6978803ac02959aef3a0101591602030602050f6f7264" +
    "65727369646772c3b6c39f650100efcdab8967452301000603000000110100000000000000a73efeffffffffffffff710300" +
    "00000000000002010505656d70747900ff00000000000000000000000000974261620490eefeff09000000000000f83f0b02" +
    "0102";
  assert.equal(Buffer.from(encodeMessage(message)).toString("hex"), golden);
  assert.deepStrictEqual(decodeFrame(decodeMessage(Buffer.from(golden, "hex")).frame), smallTables);
});

test("a message of version 1 is read: it says no affinities", () => {
  const golden =
    "01b01468510100112233445566778899aabbccddeefff1e2d3c4b5a6978803ac02959aef3a0101561601030602050f6f7264" +
    "65727369646772c3b6c39f650100efcdab896745230103000000110100000000000000a73efeffffffffffffff7103000000" +
    "0000000001010505656d70747900ff000000000000000000000000974261620490eefeff09000000000000f83f0b020102";
  const expected = smallTables.map((table) => ({ ...table, affinities: table.columns.map(() => "") }));
  assert.deepStrictEqual(decodeFrame(decodeMessage(Buffer.from(golden, "hex")).frame), expected);
});

test("a message of another version is refused, naming it and the one that is read", () => {
  const encoded = encodeMessage({ ...header, frame: bytes() });
  encoded[0] = 9;
  const expected = { name: "MessageFormatError", message: /version 9, .* reads version 1 and 2\. Upgrade this node/ };
  assert.throws(() => decodeMessage(encoded), expected);
  assert.throws(() => decodeMessage(bytes(2)), MessageFormatError);
});

test("a message that lost its end or has a flipped bit is refused", () => {
  const encoded = encodeMessage({ ...header, frame: encodeFrame(smallTables) });
  for (let size = 0; size < encoded.length; size++) {
    assert.throws(() => decodeMessage(encoded.subarray(0, size)), MessageFormatError);
  }
  for (let bit = 0; bit < encoded.length * 8; bit++) {
    const flipped = encoded.slice();
    flipped[bit >> 3] = (flipped[bit >> 3] as number) ^ (1 << (bit & 7));
    assert.throws(() => decodeMessage(flipped), MessageFormatError, `bit ${bit}`);
  }
  assert.throws(() => decodeMessage(Buffer.concat([encoded, bytes(0)])), MessageFormatError);
});

test("a frame that lost its end is refused, compressed or not", () => {
  for (const frame of [encodeFrame(smallTables), encodeFrame(largeTables)]) {
    for (let size = 1; size < frame.length; size++) {
      assert.equal(attempt(() => decodeFrame(frame.subarray(0, size))), "refused", `${size} bytes`);
      assert.equal(attempt(() => readFrameSeqs(frame.subarray(0, size))), "refused", `${size} bytes`);
    }
    assert.equal(attempt(() => decodeFrame(Buffer.concat([frame, bytes(0)]))), "refused");
  }
});

test("a damaged frame is refused, or read as some frame, and never fails in another way", () => {
  const damage = fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 4 });
  for (const original of [encodeFrame(smallTables), encodeFrame(largeTables)]) {
    const property = fc.property(damage, (places) => {
      const frame = original.slice();
      for (const [place, value] of places) frame[place % frame.length] = value;
      const tables = attempt(() => decodeFrame(frame));
      attempt(() => readFrameSeqs(frame));
      // Reads of each value must have stayed inside: encoding them again finds nothing odd.
      if (tables !== "refused") encodeFrame(tables);
    });
    fc.assert(property, { numRuns: 2000 });
  }
  fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), (noise) => {
    attempt(() => decodeFrame(noise));
    attempt(() => decodeMessage(noise));
  }));
});

test("sizes that a frame claims, and doesn't have, are refused before anything is allocated", () => {
  const varint = [0xff, 0xff, 0xff, 0xff, 0x07];
  const claims = [
    bytes(1, 1, ...varint, 0),
    bytes(1, ...varint, 0, 0),
    bytes(2, 1, ...varint, 0, 0),
    bytes(1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff),
    // one table named "t" without columns, of 2^32 - 1 changes
    bytes(1, 19, 0, 1, 1, 1, 1, 0x74, 0, ...new Array<number>(8).fill(0), 0xff, 0xff, 0xff, 0xff, 0),
  ];
  for (const frame of claims) assert.equal(attempt(() => decodeFrame(frame)), "refused");
});

test("a compressed frame unfolds to what it says and no further", () => {
  const frame = encodeFrame([tableOf([new Uint8Array(1_000_000)])]);
  assert.ok(frame.length < 1000);
  assert.equal(decodeFrame(frame)[0]?.changes[0]?.values[0] instanceof Uint8Array, true);
  const [, entriesSize, low, middle, high] = frame;
  assert.equal(entriesSize !== undefined && entriesSize < 128 && (high ?? 128) < 128, true);
  for (const [a, b] of [[(low ?? 0) ^ 1, middle ?? 0], [low ?? 0, (middle ?? 0) ^ 1]]) {
    const lying = frame.slice();
    lying[2] = a as number;
    lying[3] = b as number;
    assert.equal(attempt(() => decodeFrame(lying)), "refused");
  }
});

test("values travel compressed only where it pays", () => {
  const noise = crypto.getRandomValues(new Uint8Array(20_000));
  assert.equal(encodeFrame([tableOf([noise])])[0], 1);
  assert.equal(encodeFrame([tableOf([new Uint8Array(500)])])[0], 1);
  assert.equal(encodeFrame([tableOf([new Uint8Array(20_000)])])[0], 2);
});

test("a value larger than what is compressed travels whole", () => {
  const blob = new Uint8Array(COMPRESS_MAX_BYTES + 1);
  blob[COMPRESS_MAX_BYTES] = 9;
  const frame = encodeFrame([tableOf([blob])]);
  assert.equal(frame[0], 1);
  const back = decodeFrame(frame)[0]?.changes[0]?.values[0];
  assert.ok(back instanceof Uint8Array && Buffer.compare(back, blob) === 0);
});

test("a table that comes twice, and one without changes, keep their places", () => {
  const tables = [...smallTables, ...smallTables];
  assert.deepStrictEqual(decodeFrame(encodeFrame(tables)), tables);
  assert.deepStrictEqual(readFrameSeqs(encodeFrame(tables)).map(({ table }) => table), [
    "orders",
    "empty",
    "orders",
    "empty",
  ]);
  assert.deepStrictEqual(decodeFrame(bytes()), []);
  assert.deepStrictEqual(readFrameSeqs(bytes()), []);
});

test("a message inside a larger buffer is read where it lies, and its frame isn't copied", () => {
  const encoded = encodeMessage({ ...header, frame: encodeFrame(smallTables) });
  const around = new Uint8Array(encoded.length + 20).fill(0xee);
  around.set(encoded, 13);
  const message = decodeMessage(around.subarray(13, 13 + encoded.length));
  assert.equal(message.frame.buffer, around.buffer);
  assert.deepStrictEqual(decodeFrame(message.frame), smallTables);
});
