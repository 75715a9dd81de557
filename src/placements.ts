/** Agrees, once for each table and the whole cluster, whether its rows are spread over the shards, and by which name. */
import type { Agreement, Placement, Registry } from "./broker.ts";
import type { Installed } from "./sqlite/install.ts";
import { fold } from "./sqlite/quote.ts";
import type { Table } from "./sqlite/schema.ts";

export class Placements {
  private readonly agreed = new Map<string, Agreement>();
  private asking = false;
  /** capture has not taken up all that is agreed: it may not hash a row before */
  isNews = false;
  /** why nothing is published: tables that can't be placed as the cluster has agreed */
  trouble: string | undefined;

  constructor(private readonly shards: number) {}

  /** by folded name, of the tables that are agreed about */
  get all(): ReadonlyMap<string, Agreement> {
    return this.agreed;
  }

  /** Are all of them known? Where there is one shard there is nothing to agree about. */
  complete(installed: Installed): boolean {
    return this.shards === 1 || [...installed.logs].every((name) => this.agreed.has(name));
  }

  /** Asks for those that are missing. @returns whether something may be published that could not be before */
  async ask(registry: Registry, installed: Installed): Promise<boolean> {
    if (this.asking) return false;
    this.asking = true;
    try {
      for (const name of installed.logs) {
        const table = installed.captured.get(name);
        const proposal = table === undefined ? "rows" : placementOf(table);
        const answer = this.agreed.get(name) ?? await this.agree(registry, name, installed, proposal);
        if (answer.placement === "rows" && proposal === "whole") {
          this.trouble =
            `table ${table!.name} has a UNIQUE constraint or a collation that needs one shard, but the cluster ` +
            `spreads its rows over ${this.shards}: nothing is published. Drop the constraint, or exclude the table on every node.`;
          return false;
        }
      }
      this.trouble = undefined;
      return true;
    } finally {
      this.asking = false;
    }
  }

  private async agree(
    registry: Registry,
    name: string,
    { names }: Installed,
    proposal: Placement,
  ): Promise<Agreement> {
    const home = fold(names.homeOf(name));
    const first = await registry.agreePlacement(home, { placement: proposal, home });
    // a node that did not see the rename gets the home of those that did
    const answer = name === home ? first : await registry.agreePlacement(name, first);
    this.agreed.set(name, answer);
    this.isNews = true;
    return answer;
  }
}

/** Rows that can displace each other, or keys that are equal in other bytes, must meet in one shard. */
function placementOf(table: Table): Placement {
  const binary = table.collations.every((collation) => fold(collation) === "binary");
  return table.uniques.length === 0 && binary ? "rows" : "whole";
}
