import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { plain, withTables } from "../scripts/proof.ts";
import { MUTANTS } from "./simulation/mutants.ts";
import type { Found } from "./simulation/mutation.ts";
import { PROJECT } from "./support/runtime.ts";

test("each rule that can be broken is one that docs/PROOF.md says showed", () => {
  const { mutants }: { mutants: readonly Found[] } = JSON.parse(
    readFileSync(`${PROJECT}docs/proof/mutants.json`, "utf8"),
  );
  const named = (some: readonly { name: string; rule: string }[]) => some.map(({ name, rule }) => `${name}: ${rule}`);
  assert.deepEqual(named(mutants), named(MUTANTS));
  for (const { name, histories } of mutants) assert.notEqual(histories, null, name);
});

test("docs/PROOF.md says what the runs wrote", () => {
  const page = readFileSync(`${PROJECT}docs/PROOF.md`, "utf8");
  assert.equal(plain(withTables(page)), plain(page), "deno task proof writes it");
});
