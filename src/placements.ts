/** Agrees, once for each table and the whole cluster, whether its rows are spread over the shards, and by which name. */
import type { Agreement, Placement, Registry } from "./broker.ts";
import { BrokerUnreachableError } from "./errors.ts";
import type { Log } from "./runtime.ts";
import type { Installed } from "./sqlite/install.ts";
import { fold } from "./sqlite/quote.ts";
import type { Table } from "./sqlite/schema.ts";

/** Failures in a row, with the broker there, after which they are said */
const FAILURES_SAID = 8;

export class Placements {
  private readonly agreed = new Map<string, Agreement>();
  private asking = false;
  private failures = 0;
  /** the last that was found to fit what is agreed */
  private fitting: Installed | undefined;
  /** why nothing is published: tables that can't be placed, or not as the cluster has agreed */
  trouble: string | undefined;

  constructor(private readonly shards: number, private readonly log: Log) {}

  /** by folded name, of the tables that are agreed about */
  get all(): ReadonlyMap<string, Agreement> {
    return this.agreed;
  }

  /**
   * May rows be published: is it known of all tables where they go, and does that fit them as they are now? Where there is
   * one shard there is nothing to agree about.
   */
  fits(installed: Installed): boolean {
    if (this.shards === 1 || this.fitting === installed) return true;
    const spread = [...installed.captured].find(([name, table]) =>
      this.agreed.get(name)?.placement === "rows" && placementOf(table) === "whole"
    );
    if (spread !== undefined) {
      this.stop(
        `table ${spread[1].name} has a UNIQUE constraint or a collation that needs one shard, but the cluster ` +
          `spreads its rows over ${this.shards}: nothing is published. Drop the constraint, or exclude the table on every node.`,
      );
      return false;
    }
    if ([...installed.logs].some((name) => !this.agreed.has(name))) return false;
    this.fitting = installed;
    this.trouble = undefined;
    return true;
  }

  /** Asks for those that are missing. @returns whether something is agreed that was not before */
  async ask(registry: Registry, installed: Installed): Promise<boolean> {
    if (this.asking) return false;
    this.asking = true;
    const known = this.agreed.size;
    try {
      for (const name of installed.logs) {
        if (!this.agreed.has(name)) await this.agree(registry, name, installed);
      }
      this.failures = 0;
      return this.agreed.size > known;
    } catch (error) {
      const passes = error instanceof BrokerUnreachableError && ++this.failures < FAILURES_SAID;
      if (!passes) this.stop(`${error instanceof Error ? error.message : error} Nothing is published until then.`);
      throw error;
    } finally {
      this.asking = false;
    }
  }

  private async agree(registry: Registry, name: string, { captured, names }: Installed): Promise<void> {
    const table = captured.get(name);
    // of one that is gone only the entries are left: in one shard they are right, whatever it was
    const placement = table === undefined ? "whole" : placementOf(table);
    const home = fold(names.homeOf(name));
    const first = await registry.agreePlacement(home, { placement, home });
    // a node that did not see the rename gets the home of those that did
    this.agreed.set(name, name === home ? first : await registry.agreePlacement(name, first));
  }

  private stop(reason: string): void {
    if (reason !== this.trouble) this.log.error("nothing is published", { reason });
    this.trouble = reason;
  }
}

/** Rows that can displace each other, or keys that are equal in other bytes, must meet in one shard. */
function placementOf(table: Table): Placement {
  const binary = table.collations.every((collation) => fold(collation) === "binary");
  return table.uniques.length === 0 && binary ? "rows" : "whole";
}
