/** Every entry that an application's transaction made, as it stood in the change log when it was committed. */
import { Violation } from "./violation.ts";

export interface Entry {
  readonly stamp: string;
  readonly table: string;
  /** as in the change log: 3 deletes */
  readonly op: number;
  /** of a delete only the key's, but where the table is a changing one */
  readonly columns: readonly string[];
  /** SQL literals; none where the table is a changing one, until a message tells them */
  readonly values: readonly string[];
  /** the transaction that made it; 0 for what Marmot itself logged */
  readonly transaction: number;
  /** place among all entries of the history */
  readonly order: number;
}

export class Entries {
  private readonly byStamp = new Map<string, Entry>();
  private readonly expected = new Set<string>();

  /** Marmot's own statement logs a row with this stamp. */
  expect(stamp: string): void {
    this.expected.add(stamp);
  }

  isExpected(stamp: string): boolean {
    return this.expected.has(stamp);
  }

  has(stamp: string): boolean {
    return this.byStamp.has(stamp);
  }

  of(stamp: string): Entry {
    return this.byStamp.get(stamp)!;
  }

  record(entry: Omit<Entry, "order">): Entry {
    const known = this.byStamp.get(entry.stamp);
    const recorded = { ...entry, order: known?.order ?? this.byStamp.size };
    this.byStamp.set(entry.stamp, recorded);
    return recorded;
  }

  /** An entry as a message carries it. */
  travelled(stamp: string, op: number, columns: readonly string[], values: readonly string[]): Entry {
    const entry = this.byStamp.get(stamp);
    if (entry === undefined) throw new Violation("I5: a message holds an entry that no application made");
    if (entry.values.length === 0) return { ...entry, op, columns, values };
    const as = (names: readonly string[], some: readonly string[]) =>
      names.map((name, i) => `${name}=${some[i]}`).sort();
    const [sent, made] = [as(columns, values).join(), as(entry.columns, entry.values).join()];
    if (entry.op !== op || sent !== made) {
      throw new Violation(`a change travels as another: ${sent} instead of ${made}`);
    }
    return entry;
  }
}
