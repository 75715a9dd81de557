/** Rules that are broken one at a time, in a copy of src/, to show that the simulation notices each. */

export interface Mutant {
  readonly name: string;
  /** what holds when it is not broken */
  readonly rule: string;
  readonly file: string;
  /** stands in the file exactly once */
  readonly from: string;
  readonly to: string;
}

const mutant = (name: string, rule: string, file: string, from: string, to: string): Mutant => {
  return { name, rule, file: `src/${file}.ts`, from, to };
};

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
    "await this.compareIdentity();",
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

export const APPLY: readonly Mutant[] = [
  mutant(
    "cursor in a transaction of its own",
    "the cursor moves in the transaction of the rows",
    "apply",
    "        this.cursors.write(shard, cursor);\n        for (const [origin, accepted]",
    "        for (const [origin, accepted]",
  ),
  mutant(
    "own skipped",
    "an own batch is applied again where something came between",
    "apply",
    "write = !own || appliedAt > message.base;",
    "write = !own;",
  ),
  mutant(
    "reapply not counted",
    "an own batch that was applied again counts as applied",
    "apply",
    "if (this.take(shard, delivery, tables, work, seen, appliedAt)) appliedAt = delivery.sequence;",
    "if (this.take(shard, delivery, tables, work, seen, appliedAt) && delivery.message.origin !== this.options.nodeId) appliedAt = delivery.sequence;",
  ),
  mutant(
    "ack by number",
    "an earlier process's message acknowledges an entry only if the stamp is equal",
    "apply",
    "else seqs.forEach((seq, i) => log.deleteIfSame(seq, stamps[i]!));",
    "else log.deleteSeqs(seqs);",
  ),
  mutant(
    "earlier process taken as this one",
    "a batch of an earlier process is applied like a foreign one",
    "apply",
    "const own = message.nonce === this.options.nonce;",
    "const own = true;",
  ),
  mutant(
    "neighbours acknowledged",
    "a message acknowledges its own entries only",
    "sqlite/change_log",
    "while (to + 1 < seqs.length && seqs[to + 1] === seqs[to]! + 1) to++;",
    "to = seqs.length - 1;",
  ),
  mutant(
    "ack at each part",
    "a batch acknowledges at its last part",
    "apply",
    "    if (!message.last) {\n",
    "    if (!message.last) {\n      if (message.origin === this.options.nodeId && message.part === 1 && !message.continues) this.acknowledge(message.frame, message.nonce === this.options.nonce, work);\n",
  ),
  mutant(
    "applied at first part",
    "a batch counts as applied at its last part",
    "apply",
    "appliedAt)) appliedAt = delivery.sequence;",
    "appliedAt)) appliedAt = delivery.sequence - delivery.message.part + 1;",
  ),
  mutant(
    "own parts in memory",
    "own parts are stored with the cursor, too",
    "apply",
    "      this.cursors.storePart(shard, message.origin, message);\n",
    "      if (message.origin !== this.options.nodeId) this.cursors.storePart(shard, message.origin, message);\n",
  ),
  mutant(
    "parts kept over epoch",
    "a higher epoch voids the origin's stored parts",
    "apply",
    "if (verdict.newEpoch) this.cursors.dropParts(shard, message.origin);",
    "",
  ),
  mutant(
    "each part applied by itself",
    "a batch becomes visible in one transaction",
    "apply",
    "    if (!message.last) {\n",
    "    if (!message.last && !message.continues && message.part === 1 && message.origin !== this.options.nodeId) {\n      this.applyTables(decodeFrame(message.frame), true, work, message.origin);\n    }\n    if (!message.last) {\n",
  ),
  mutant(
    "no rebase",
    "pending entries are laid over what was applied",
    "apply",
    "    laying.rebase();\n",
    "    void laying;\n",
  ),
  mutant(
    "rebase last only",
    "with UNIQUE values all entries that touch each other are laid again, in order",
    "sqlite/laying",
    "const entries = local.table.uniques.length > 0\n        ? local.pending.closure(touched.hashes)\n        : ",
    "const entries = ",
  ),
  mutant(
    "rebase by key only",
    "the closure follows UNIQUE values, too",
    "sqlite/pending_index",
    "if (!key.includes(null)) hashes.push(hashKey(`${place}`, key, collations));",
    "",
  ),
  mutant(
    "displaced rows not touched",
    "rows that were displaced are touched as well",
    "sqlite/laying",
    "(row) => touched !== undefined && touchRow(touched, row),",
    "() => {},",
  ),
  mutant(
    "values before not touched",
    "the UNIQUE values that a row had are touched as well",
    "sqlite/laying",
    "if (before !== undefined) touchRow(touched, before);",
    "",
  ),
  mutant(
    "pending index not moved back",
    "numbers above the highest entry that is left are indexed again",
    "sqlite/pending_index",
    "this.position = Math.min(this.position, highest);",
    "",
  ),
  mutant(
    "NULL keys never equal",
    "NULL equals NULL in a key",
    "sqlite/row_writer",
    "`${term} IS ${marks[i]}`",
    "`${term} = ${marks[i]}`",
  ),
  mutant(
    "key's own bytes not written",
    "the key of an upsert is written as well: 'A' takes the place of 'a'",
    "sqlite/row_writer",
    `this.table.collations[i]!.toUpperCase() === "BINARY";`,
    "i >= 0;",
  ),
  mutant(
    "wrong row displaced",
    "the other rows that hold a UNIQUE value go, all of them",
    "sqlite/row_writer",
    "for (const key of this.twin.conflicts(row)) {",
    "for (const key of this.twin.conflicts(row).slice(0, 1)) {",
  ),
  mutant(
    "older file not noticed",
    "a cursor that is not where this process left it means another file",
    "apply",
    "return this.shards.every(({ cursor }, shard) => this.cursors.read(shard).sequence === cursor.sequence);",
    "return true;",
  ),
  mutant(
    "commit forgotten at a lock",
    "a commit that was seen is scanned, whatever is in the way of the next statement",
    "replication",
    "if (observation.committed(now)) [this.scanWanted, this.isChecked] = [true, false];",
    "const seen = observation.committed(now) && this.applier!.isSameFile(); this.scanWanted ||= seen;",
  ),
  mutant(
    "new file not noticed",
    "a path that leads to another file means another file",
    "observation",
    "return inodeOf(this.db.path) !== this.inode;",
    "return false;",
  ),
];

export const SCHEMA: readonly Mutant[] = [
  mutant(
    "old key after new row",
    "a key that changes is the old key's delete before the new row",
    "sqlite/triggers",
    `    trigger("update", "UPDATE", table.cascadesOnUpdate ? upsertFromRow(table) : upsert(OP_UPDATE)),
    trigger("key", setsKey, deleteOld(table), \` WHEN \${keyChanged}\`),`,
    `    trigger("key", setsKey, deleteOld(table), \` WHEN \${keyChanged}\`),
    trigger("update", "UPDATE", table.cascadesOnUpdate ? upsertFromRow(table) : upsert(OP_UPDATE)),`,
  ),
  mutant(
    "key change not logged",
    "an UPDATE that changes the key is a delete and an upsert",
    "sqlite/triggers",
    "` WHEN ${keyChanged}`",
    '" WHEN 0"',
  ),
  mutant(
    "stale image after a cascade",
    "where a foreign key has an action for UPDATE, the image is read from the row",
    "sqlite/schema",
    "for (const row of rows.values()) row.cascades = parents.has(fold(row.name));",
    "parents.clear();",
  ),
  mutant(
    "triggers not put last",
    "Marmot's triggers are the last of their table",
    "sqlite/install",
    "const overtaken = ours.length > 0 && isOvertaken(ours, theirs);",
    "const overtaken = false;",
  ),
  mutant(
    "stale images kept",
    "rows with entries made before the triggers were last again are logged anew",
    "sqlite/install",
    "this.logs.refresh(table, this.request.scanned(table.name));",
    "",
  ),
  mutant(
    "echo",
    "what a trigger inserts into a replicated table or a change log is left out on the applying connection",
    "sqlite/trigger_policy",
    "if (action === SQLITE_INSERT && (this.arrives(first) || this.silenced.has(trigger))) return SQLITE_IGNORE;",
    "",
  ),
  mutant(
    "triggers insert twice",
    "what a trigger inserted at the origin is not inserted again",
    "sqlite/trigger_policy",
    "return table !== null && (fold(table).startsWith(PREFIX) || this.captured.has(fold(table)));",
    "return table !== null && fold(table).startsWith(PREFIX);",
  ),
  mutant(
    "triggers update and delete twice",
    "what a trigger changed at the origin is not changed again",
    "sqlite/trigger_policy",
    "for (const target of learned.changes) this.guard(target);",
    "",
  ),
  mutant(
    "validation twice",
    "a trigger that refuses a change ran at the origin",
    "sqlite/trigger_policy",
    "if (parts !== undefined && !this.mute.has(name)) this.silenceSelects(trigger!, parts, silenced);",
    "",
  ),
  mutant(
    "all triggers silent",
    "what a trigger writes outside of replication happens on each node",
    "sqlite/trigger_policy",
    "if (silenced) this.silenced.add(name);",
    "this.silenced.add(name);",
  ),
  mutant(
    "clone with pending entries handed out",
    "a clone is handed out once its source has read back what is pending in it",
    "clone",
    "await readBack(source, marks, () => isRunning(place), options);",
    "void marks; void readBack;",
  ),
  mutant(
    "clone keeps identity",
    "a clone is a node of its own",
    "clone",
    "      forgetIdentity(copy);\n",
    "",
  ),
  mutant(
    "trouble parks a table",
    "a lock or a full disk passes: it parks nothing",
    "sqlite/targets",
    `      if (sqliteProblem(error) !== "other") throw error;\n      return error instanceof Error`,
    "      return error instanceof Error",
  ),
];

/** Mended because the simulation, or the making of it, showed them. */
export const MENDED: readonly Mutant[] = [
  mutant(
    "half a guard taken for a whole one",
    "a table is guarded once both of its guards are there",
    "sqlite/trigger_policy",
    `    for (const event of ["UPDATE", "DELETE"]) {\n      const name`,
    `    this.guarded.add(folded);\n    for (const event of ["UPDATE", "DELETE"]) {\n      const name`,
  ),
  mutant(
    "older copy with the same cursor not noticed",
    "a log that lacks what was read from it means another file",
    "replication",
    "if (!this.capture.holdsWhatWasRead()) throw new ReplacedError(WENT_BACK);",
    "",
  ),
  mutant(
    "time of a message not compared",
    "the message at the cursor has the same time, too",
    "subscribe",
    " || identity.time !== this.at.time",
    "",
  ),
  mutant(
    "renamed table not scanned anew",
    "what was marked under a name that is another now is marked anew",
    "replication",
    "[this.placed, this.scanWanted] = [false, true];",
    "this.placed = false;",
  ),
];

export const MUTANTS: readonly Mutant[] = [...PUBLISH, ...APPLY, ...SCHEMA, ...MENDED];
