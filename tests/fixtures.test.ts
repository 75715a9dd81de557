import assert from "node:assert/strict";
import { test } from "node:test";
import { VERSION } from "../src/version.ts";
import { allRows, fixtureVersions, leftFacts, readExpected, takeUp, unpackFixture } from "./support/fixture.ts";
import { haveProgram } from "./support/skip.ts";

const VERSIONS = await fixtureVersions();

test("there is a fixture of what this version writes", () => {
  assert.ok(VERSIONS.includes(VERSION), `make it: deno run --allow-all scripts/fixture.ts`);
});

for (const version of VERSIONS) {
  test(`databases and streams of ${version}, with changes pending, parked and unseen, are taken up`, async (context) => {
    if (!await haveProgram(context, ["python3", "--version"])) return;
    const expected = await readExpected(version);
    assert.equal(expected.marmot, version);
    await using cluster = await unpackFixture(version);
    const left = await Promise.all(cluster.nodes.map(leftFacts));
    assert.deepEqual(left, expected.left);
    for (const { pending } of left) assert.ok(Object.keys(pending).length > 0);
    assert.ok(left[0]!.parked > 0);
    assert.notDeepEqual(left[0]!.cursors, left[1]!.cursors);

    await takeUp(cluster);
    assert.deepEqual(await allRows(cluster.a), expected.rows);
    assert.deepEqual(await allRows(cluster.b), expected.rows);
    for (const { log } of cluster.nodes) assert.doesNotMatch(log, / ERROR /);
  });
}
