/** What the applications of a node say they wrote, and which of it may be gone. */
import { readFile } from "node:fs/promises";

/** What a key may hold, as far as this node's writes go: null is "no row". */
export interface LastWrites {
  readonly values: readonly (string | null)[];
  /** one of the values is that of a write which must have reached all nodes */
  readonly sure: boolean;
}

/** A moment of the journals: a file, and how much of it was there. */
export interface Mark {
  readonly life: number;
  readonly bytes: number;
}

/** What was committed between a copy of the database and the moment it was put back. */
export interface Lapse {
  readonly copied: Mark;
  /** the first life of the application on the older copy */
  readonly life: number;
}

export interface JournalCounts {
  commits: number;
  rows: number;
  rolledBack: number;
  /** the application died between its BEGIN and its COMMIT */
  interrupted: number;
  /** COMMIT was called, and its end is not known */
  unanswered: number;
  /** committed, and perhaps lost when the node's database went back to an older copy */
  lapsed: number;
}

type Line =
  | { readonly begin: string }
  | { readonly tx: string; readonly do: Readonly<Record<string, string | null>> }
  | { readonly ok: string }
  | { readonly no: string; readonly sure: boolean };

interface Transaction {
  readonly writes: Readonly<Record<string, string | null>>;
  state: "unanswered" | "committed" | "rolled back";
  /** of its answer */
  bytes: number;
}

/** All journals of one node. */
export class Journal {
  readonly counts: JournalCounts = { commits: 0, rows: 0, rolledBack: 0, interrupted: 0, unanswered: 0, lapsed: 0 };
  readonly last = new Map<string, LastWrites>();

  /** @param files journals of the application's lives, the first is life 1 */
  static async read(files: readonly string[], lapses: readonly Lapse[]): Promise<Journal> {
    const journal = new Journal();
    for (const [place, file] of files.entries()) {
      journal.#life(place + 1, await readFile(file, "utf8").catch(() => ""), lapses);
    }
    return journal;
  }

  #life(life: number, text: string, lapses: readonly Lapse[]): void {
    for (const { writes, state, bytes } of this.#transactions(text)) {
      if (state === "rolled back") continue;
      const lapsed = lapses.some(({ copied, life: until }) =>
        life < until && (life > copied.life || (life === copied.life && bytes > copied.bytes))
      );
      if (state === "unanswered") this.counts.unanswered++;
      else this.counts.commits++;
      if (lapsed) this.counts.lapsed++;
      this.counts.rows += Object.keys(writes).length;
      for (const [key, value] of Object.entries(writes)) this.#write(key, value, state === "committed" && !lapsed);
    }
  }

  #write(key: string, value: string | null, sure: boolean): void {
    if (sure) this.last.set(key, { values: [value], sure });
    else {
      const before = this.last.get(key) ?? { values: [], sure: false };
      this.last.set(key, { values: [...before.values, value], sure: before.sure });
    }
  }

  #transactions(text: string): Transaction[] {
    const all = new Map<string, Transaction>();
    let bytes = 0;
    let open: string | undefined;
    // What has no end of line was being written when the application was killed: its COMMIT was not called.
    for (const line of text.split("\n").slice(0, -1)) {
      bytes += line.length + 1;
      const told: Line = JSON.parse(line);
      if ("begin" in told) open = told.begin;
      else if ("tx" in told) all.set(told.tx, { writes: told.do, state: "unanswered", bytes: Infinity });
      else if ("ok" in told) {
        open = undefined;
        Object.assign(all.get(told.ok)!, { state: "committed", bytes });
      } else {
        open = undefined;
        if (told.sure) {
          this.counts.rolledBack++;
          all.delete(told.no);
        }
      }
    }
    if (open !== undefined && !all.has(open)) this.counts.interrupted++;
    return [...all.values()];
  }
}
