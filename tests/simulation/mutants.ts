/** All rules that are broken, one at a time. */
import { type Mutant, mutant } from "./mutant.ts";
import { APPLY } from "./mutants_apply.ts";
import { MIGRATIONS } from "./mutants_migrations.ts";
import { PUBLISH } from "./mutants_publish.ts";
import { SCHEMA } from "./mutants_schema.ts";

/** Mended because the simulation, or the making of it, showed them. */
const MENDED: readonly Mutant[] = [
  mutant(
    "half a guard taken for a whole one",
    "a table is guarded once both of its guards are there",
    "sqlite/trigger_policy",
    `    for (const event of ["UPDATE", "DELETE"]) {\n      const name`,
    `    this.guarded.add(folded);\n    for (const event of ["UPDATE", "DELETE"]) {\n      const name`,
  ),
  mutant(
    "time of a message not compared",
    "the message at the cursor has the same time, too",
    "subscribe",
    " || identity.time !== cursor.time",
    "",
  ),
  mutant(
    "start does not wait for a lock",
    "a start waits for a lock that is in the way of anything it reads",
    "marmot",
    "await this.possible(() => this.requireShards(db));",
    "this.requireShards(db);",
  ),
];

export const MUTANTS: readonly Mutant[] = [...PUBLISH, ...APPLY, ...SCHEMA, ...MIGRATIONS, ...MENDED];
