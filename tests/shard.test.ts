import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { test } from "node:test";
import fc from "fast-check";
import { SqlText, type SqlValue } from "../src/change.ts";
import { canonicalKey, hashKey, shardOf } from "../src/shard.ts";

const COLLATIONS = ["BINARY", "NOCASE", "RTRIM"] as const;
const BINARY = ["BINARY"];

function text(value: string): SqlText {
  return new SqlText(new TextEncoder().encode(value));
}

/** Few letters, so that equal texts come up: both cases, spaces, NUL, bytes that fold only outside ASCII, punctuation. */
const keyText = fc.array(fc.constantFrom(0x41, 0x61, 0x5a, 0x7a, 0x20, 0x00, 0xc3, 0xa4, 0x84, 0x40, 0x60), {
  maxLength: 5,
}).map((bytes) => Uint8Array.from(bytes));

const borders = [0n, 1n, -1n, 2n ** 31n, 2n ** 53n, 2n ** 53n + 1n, -(2n ** 53n) - 1n, 2n ** 63n - 1n, -(2n ** 63n)];
const integer = fc.oneof(fc.constantFrom(...borders), fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }));
const reals = [0, -0, 1, -1, 0.5, 2 ** 31, 2 ** 53, 2 ** 53 + 2, 2 ** 63, -(2 ** 63), 1e300, Infinity, -Infinity];
const keyValue: fc.Arbitrary<SqlValue> = fc.oneof(
  fc.constant(null),
  integer,
  fc.constantFrom(...reals),
  fc.double({ noNaN: true }),
  integer.map(Number),
  keyText,
  keyText.map((bytes) => new SqlText(bytes)),
);

/** A pair of values that is often equal, or nearly so. */
const pair = fc.oneof(
  fc.tuple(keyValue, keyValue),
  integer.map((value): [SqlValue, SqlValue] => [value, Number(value)]),
  keyText.map((bytes): [SqlValue, SqlValue] => [new SqlText(bytes), new SqlText(bytes.map((byte) => byte ^ 0x20))]),
  fc.tuple(keyText, keyText).map(([a, b]): [SqlValue, SqlValue] => [new SqlText(a), new SqlText(b)]),
  fc.tuple(keyText, fc.nat(3)).map(([bytes, spaces]): [SqlValue, SqlValue] => {
    return [new SqlText(bytes), new SqlText(Uint8Array.from([...bytes, ...new Array<number>(spaces).fill(0x20)]))];
  }),
);

/** SQLite's own answer, for stored values of columns without affinity. NULL equals NULL, as IS has it. */
function openComparison(): { equal(a: SqlValue, b: SqlValue, collation: string): boolean; close(): void } {
  const database = new DatabaseSync(":memory:");
  const place = (column: string) => `CASE WHEN ${column}_text THEN CAST(${column} AS TEXT) ELSE ${column} END`;
  const statements = new Map(COLLATIONS.map((collation) => {
    const sql = `WITH given(a, a_text, b, b_text) AS (VALUES (?, ?, ?, ?)), typed(a, b) AS MATERIALIZED
      (SELECT ${place("a")}, ${place("b")} FROM given) SELECT (a IS b COLLATE ${collation}) AS same FROM typed`;
    return [collation as string, database.prepare(sql)];
  }));
  const bind = (value: SqlValue) => value instanceof SqlText ? value.bytes : value;
  const isText = (value: SqlValue) => value instanceof SqlText ? 1 : 0;
  return {
    equal: (a, b, collation) => {
      const row = statements.get(collation)?.get(bind(a), isText(a), bind(b), isText(b));
      return row?.["same"] === 1;
    },
    close: () => database.close(),
  };
}

test("keys that SQLite compares equal hash alike and are one canonical key, and only those", () => {
  const sqlite = openComparison();
  let equals = 0;
  const property = fc.property(pair, fc.constantFrom(...COLLATIONS), ([a, b], collation) => {
    const equal = sqlite.equal(a, b, collation);
    if (equal) equals++;
    assert.equal(canonicalKey([a], [collation]) === canonicalKey([b], [collation]), equal);
    assert.equal(hashKey("t", [a], [collation]) === hashKey("t", [b], [collation]), equal);
    const [left, right] = [[1n, a, null], [1, b, null]];
    const collations = ["BINARY", collation, "BINARY"];
    assert.equal(canonicalKey(left, collations) === canonicalKey(right, collations), equal);
    assert.equal(hashKey("t", left, collations) === hashKey("t", right, collations), equal);
  });
  fc.assert(property, { numRuns: 5000 });
  sqlite.close();
  assert.ok(equals > 500, `only ${equals} equal pairs were tried`);
});

// The values come from another implementation of murmur3 over the form that writeForm documents.
test("the hash of a key is the same in every version", () => {
  const golden: [string, SqlValue[], string[], number][] = [
    ["t", [], [], 0x5b2a82e3],
    ["t", [1n], BINARY, 0xf6cdee41],
    ["orders", [1n], BINARY, 0xfb3e7186],
    ["orders", [-(2n ** 63n)], BINARY, 0xc67ee05e],
    ["orders", [1.5], BINARY, 0xe4a673c5],
    ["orders", [null], BINARY, 0x691dd80c],
    ["orders", [text("Grüße, Welt")], BINARY, 0x57ee8038],
    ["orders", [text("ABC")], ["NOCASE"], 0x2738a4fa],
    ["orders", [text("ABC  ")], ["RTRIM"], 0xc72aa8fc],
    ["orders", [Uint8Array.of(1, 2, 3)], BINARY, 0x729adbbf],
    ["größe", [1n, text("a"), null], [], 0x1a279ad9],
    ["orders", [text("x".repeat(10_000))], BINARY, 0xb9c99cfb],
  ];
  for (const [table, key, collations, hash] of golden) assert.equal(hashKey(table, key, collations), hash);
});

test("one table has one hash, however its name's ASCII letters are written", () => {
  assert.equal(hashKey("Orders", [1n], BINARY), hashKey("oRDERS", [1n], BINARY));
  assert.notEqual(hashKey("größe", [1n], BINARY), hashKey("grÖße", [1n], BINARY));
  assert.notEqual(hashKey("orders", [1n], BINARY), hashKey("order", [1n], BINARY));
});

test("a collation's name is read in any case, and an unknown one as BINARY", () => {
  const [upper, lower] = [[text("ABC")], [text("abc")]];
  assert.equal(hashKey("t", upper, ["nocase"]), hashKey("t", lower, ["NoCase"]));
  assert.equal(canonicalKey(upper, ["nocase"]), canonicalKey(lower, ["NOCASE"]));
  assert.equal(hashKey("t", upper, ["german"]), hashKey("t", upper, BINARY));
  assert.equal(canonicalKey(upper, ["german"]), canonicalKey(upper, []));
  assert.notEqual(canonicalKey(upper, ["german"]), canonicalKey(lower, ["german"]));
});

test("the borders between a key's columns count", () => {
  const none: string[] = [];
  const pairs: [SqlValue[], SqlValue[]][] = [
    [[text("ab"), text("c")], [text("a"), text("bc")]],
    [[1n, 23n], [12n, 3n]],
    [[null, null], [null]],
    [[text("a,t1:b")], [text("a"), text("b")]],
    [[text("")], [Uint8Array.of()]],
    [[text("1")], [1n]],
  ];
  for (const [a, b] of pairs) {
    assert.notEqual(canonicalKey(a, none), canonicalKey(b, none));
    assert.notEqual(hashKey("t", a, none), hashKey("t", b, none));
  }
});

test("long texts are told apart, also after a longer one", () => {
  const long = text("A".repeat(3_000_000));
  assert.equal(hashKey("t", [long], ["NOCASE"]), hashKey("t", [text("a".repeat(3_000_000))], BINARY));
  assert.notEqual(hashKey("t", [long], BINARY), hashKey("t", [text("a".repeat(3_000_000))], BINARY));
  assert.equal(canonicalKey([long], ["NOCASE"]), canonicalKey([text("a".repeat(3_000_000))], BINARY));
  assert.equal(hashKey("t", [text("b")], BINARY), hashKey("t", [text("b")], BINARY));
});

test("keys spread evenly over any number of shards", () => {
  const keys = 20_000;
  for (const shards of [1, 2, 3, 8, 16]) {
    const counts = new Array<number>(shards).fill(0);
    for (let id = 0; id < keys; id++) {
      const shard = shardOf(hashKey("t", [BigInt(id)], BINARY), shards);
      counts[shard] = (counts[shard] ?? 0) + 1;
    }
    const even = keys / shards;
    for (const count of counts) assert.ok(Math.abs(count - even) < even * 0.15, `${shards} shards: ${counts}`);
  }
});
