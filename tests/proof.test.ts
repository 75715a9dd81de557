import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { plain, withTables } from "../scripts/proof.ts";
import { MUTANTS } from "./simulation/mutants.ts";
import type { Found } from "./simulation/mutation.ts";
import { PROJECT } from "./support/runtime.ts";

test("each rule that docs/PROOF.md says was broken is one that can be, and showed", () => {
  const { mutants }: { mutants: readonly Found[] } = JSON.parse(
    readFileSync(`${PROJECT}docs/proof/mutants.json`, "utf8"),
  );
  const rules = new Map(MUTANTS.map(({ name, rule }) => [name, rule]));
  for (const { name, rule, histories } of mutants) {
    assert.equal(rules.get(name), rule);
    assert.notEqual(histories, null, name);
  }
});

test("docs/PROOF.md says what the runs wrote", () => {
  const page = readFileSync(`${PROJECT}docs/PROOF.md`, "utf8");
  assert.equal(plain(withTables(page)), plain(page), "deno task proof writes it");
});
