/** What a publisher, the acceptance rule, capture and the placement of rows promise, broken one at a time. */
import { type Mutant, mutant } from "./mutant.ts";

export const PUBLISH: readonly Mutant[] = [
  mutant(
    "no marker",
    "a publisher starts with a marker, and waits for it",
    "publish",
    `this.state = { kind: "marking", epoch: (seen?.epoch ?? 0) + 1, sentAt: undefined };`,
    `this.state = { kind: "ready", epoch: (seen?.epoch ?? 0) + 1, number: 0 }; this.part = 0; this.options.rewind();`,
  ),
  mutant(
    "start before the stream's end",
    "a publisher lets apply reach the stream's end before it starts",
    "publish",
    "this.state.end !== undefined && cursor >= this.state.end",
    "this.state.end !== undefined",
  ),
  mutant(
    "gap not noticed",
    "a message that everyone drops because one before it is missing makes its publisher start again",
    "publish",
    "if (seen?.epoch !== epoch || message.number > seen.number) this.restart(",
    "if (seen === null) this.restart(",
  ),
  mutant(
    "failed publish taken as sent",
    "a publish that failed is published again",
    "publish",
    `else this.restart("a publish failed");`,
    "",
  ),
  mutant(
    "any higher number accepted",
    "a message counts only if it is the next of its epoch",
    "acceptance",
    "message.number === last.number + 1",
    "message.number > last.number",
  ),
  mutant(
    "doubles accepted",
    "a message counts once",
    "acceptance",
    "message.number === last.number + 1",
    "message.number <= last.number + 1",
  ),
  mutant(
    "accepted numbers not kept",
    "what was accepted is kept beside the cursor",
    "apply",
    "for (const [origin, accepted] of seen) this.cursors.writeSeen(shard, origin, accepted);",
    "",
  ),
  mutant(
    "stream's identity not compared",
    "the message at the cursor is compared before reading on",
    "subscribe",
    "await this.compareIdentity(this.at);",
    "",
  ),
  mutant(
    "transactions cut between parts",
    "a batch ends where a snapshot ended",
    "capture",
    "const last = [...batch.ends].every(([table, end]) =>\n      (reader.position.get(table) ?? 0) >= end || !this.sources.has(table)\n    );",
    "const last = true;",
  ),
  mutant(
    "position kept",
    "when the highest entries are gone, capture reads their numbers again",
    "apply",
    "this.options.acknowledged(name, highest, lowest);",
    "",
  ),
  mutant(
    "rows of UNIQUE tables spread",
    "a table with another UNIQUE constraint goes to one shard as a whole",
    "placements",
    `return table.uniques.length === 0 && binary ? "rows" : "whole";`,
    `return binary ? "rows" : "whole";`,
  ),
  mutant(
    "rows of NOCASE keys spread",
    "a table whose key compares otherwise than by its bytes goes to one shard as a whole",
    "shard",
    "return { compared: nul < 0 ? size : nul + 1, size, fold: true };",
    "return { compared: size, size, fold: false };",
  ),
];
