/** What apply and the rebase promise, broken one at a time. */
import { type Mutant, mutant } from "./mutant.ts";

export const APPLY: readonly Mutant[] = [
  mutant(
    "cursor in a transaction of its own",
    "the cursor moves in the transaction of the rows",
    "apply",
    `        this.moveCursors(work);
        work.readLeft(this.targets);
        return undefined;
      }, tries);
`,
    `        work.readLeft(this.targets);
        return undefined;
      }, tries);
      if (obstacle === undefined) this.moveCursors(work);
`,
  ),
  mutant(
    "acknowledged before the rebase",
    "pending entries are laid over what came before an own batch acknowledges them",
    "apply",
    "      if (!again && work.laying.isDue) work.rebase();\n",
    "",
  ),
  mutant(
    "ack by number",
    "an earlier process's message acknowledges an entry only if the stamp is equal",
    "apply",
    "else seqs.forEach((seq, i) => log.deleteIfSame(seq, stamps[i]!));",
    "else log.deleteSeqs(seqs);",
  ),
  mutant(
    "ack by content",
    "an earlier process's message acknowledges an entry by its number and stamp, not by what it says",
    "apply",
    "else seqs.forEach((seq, i) => log.deleteIfSame(seq, stamps[i]!));",
    `else {
        const bytes = (value: unknown) => value instanceof Uint8Array ? value : (value as { bytes: Uint8Array }).bytes;
        const textOf = (value: unknown) => value instanceof Object ? value.constructor.name + bytes(value) : typeof value + value;
        const said = ({ op, values }: Change) => [op, ...values.map(textOf)].join(";");
        const sent = decodeFrame(frame).filter((other) => other.table === table).flatMap(({ changes }) => changes);
        const contents = new Set(sent.map(said));
        for (const entry of [...log.read(0, Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER)]) {
          if (contents.has(said(entry))) log.deleteIfSame(entry.seq, entry.stamp);
        }
        seqs.forEach((seq, i) => log.deleteIfSame(seq, stamps[i]!));
      }`,
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
    "if (run !== undefined && run[1] === seq - 1) run[1] = seq;",
    "if (run !== undefined) run[1] = seq;",
  ),
  mutant(
    "ack at each part",
    "a batch acknowledges at its last part",
    "apply",
    "    if (!message.last) {\n",
    "    if (!message.last) {\n      if (message.origin === this.options.nodeId && message.part === 1 && !message.continues) this.acknowledge(message.frame, message.nonce === this.options.nonce, work);\n",
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
    "sqlite/work",
    "    this.laying.rebase();\n",
    "",
  ),
  mutant(
    "index behind when rows are touched",
    "what is pending is known when rows are touched",
    "sqlite/laying",
    "      while (!local.pending.step());\n      this.touched.set",
    "      this.touched.set",
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
    "return this.cursors.standAt(this.shards);",
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
    "return inodeOf(this.db.path) !== this.db.inode;",
    "return false;",
  ),
];
