import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { plain, withTables } from "../scripts/proof.ts";
import { PROJECT } from "./support/runtime.ts";

test("docs/PROOF.md says what the runs wrote", () => {
  const page = readFileSync(`${PROJECT}docs/PROOF.md`, "utf8");
  assert.equal(plain(withTables(page)), plain(page), "deno task proof writes it");
});
