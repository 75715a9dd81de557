/** One run: a cluster is built, written to and tortured for a while, comes back, and is compared with what was written. */
import { copyFile, writeFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { App } from "../support/app.ts";
import { Random } from "../support/random.ts";
import { tempFolder } from "../support/tmp.ts";
import { Brokers } from "./brokers.ts";
import { LimitedDisk } from "../support/disk.ts";
import { Journal } from "./journal.ts";
import { judge, type Verdict } from "./laws.ts";
import { Link } from "./link.ts";
import { Nemesis } from "./nemesis.ts";
import { TortureNode } from "./node.ts";
import { nodeRuntimes } from "./runtimes.ts";

const MOST_NODES = 5;
const LEAST_NODES = 3;
const MOST_SHARDS = 3;
const REPLICAS = 3;
/** after the last fault all nodes must be equal within this */
const CONVERGED_TIMEOUT_MS = 120_000;
const POLL_MS = 200;
const TICK_MS = 5_000;
const LAST_WRITES = 20;
/** Of the last node, for its database and an older copy of it: it is all written when the disk is to be full */
const DISK_BYTES = 256 * 1024 * 1024;
const DISK_BYTES_A_MINUTE = 20 * 1024 * 1024;

export interface TortureOptions {
  readonly seconds: number;
  readonly seed: number;
  /** default: 3 to 5, by the seed */
  readonly nodes?: number | undefined;
  /** leave databases, journals and logs behind in any case */
  readonly keep?: boolean | undefined;
  readonly say: (line: string) => void;
}

export interface TortureResult {
  readonly seed: number;
  readonly seconds: number;
  /** name, and what it runs on */
  readonly nodes: readonly string[];
  readonly shards: number;
  readonly commits: number;
  readonly rows: number;
  readonly reads: number;
  readonly rolledBack: number;
  readonly interrupted: number;
  readonly unanswered: number;
  readonly lapsed: number;
  readonly writesWithoutRoom: number;
  readonly faults: Readonly<Record<string, number>>;
  readonly convergedMs: number;
  readonly keys: number;
  readonly lost: number;
  readonly differences: number;
  /** in words; empty when all promises were kept */
  readonly violations: readonly string[];
  /** where databases, journals and logs are, if they are */
  readonly kept: string | undefined;
}

export async function torture(options: TortureOptions): Promise<TortureResult> {
  const run = await TortureRun.build(options);
  try {
    return await run.go();
  } finally {
    await run.close();
  }
}

class TortureRun {
  readonly violations: string[] = [];
  #closing: AsyncDisposable[] = [];
  #kept = false;
  /** nodes that have not heard of everything can't be compared */
  #late = false;

  private constructor(
    private readonly options: TortureOptions,
    private readonly random: Random,
    private readonly folder: string,
    private readonly brokers: Brokers,
    private readonly nodes: readonly TortureNode[],
    private readonly shards: number,
  ) {}

  static async build(options: TortureOptions): Promise<TortureRun> {
    const random = new Random(options.seed);
    const count = options.nodes ?? LEAST_NODES + random.below(MOST_NODES - LEAST_NODES + 1);
    const shards = 1 + random.below(MOST_SHARDS);
    const folder = await tempFolder();
    const brokers = await Brokers.start();
    const nodes: TortureNode[] = [];
    const run = new TortureRun(options, random, folder.path, brokers, nodes, shards);
    run.#closing = [brokers];
    const bytes = DISK_BYTES + Math.ceil(options.seconds / 60) * DISK_BYTES_A_MINUTE;
    const disk = await LimitedDisk.mount(folder.file("disk"), bytes);
    const runtimes = await nodeRuntimes();
    for (let place = 0; place < count; place++) {
      const name = "abcde".charAt(place);
      const links = await linksOf(name, brokers);
      const last = place === count - 1;
      const { name: runtime, command } = runtimes[place % runtimes.length]!;
      nodes.push(
        new TortureNode({
          name,
          folder: last && disk !== undefined ? disk.path : folder.path,
          keep: folder.path,
          seed: options.seed,
          runtime,
          command,
          args: [
            ...["--shards", String(shards), "--replicas", String(REPLICAS), "--log-level", "debug"],
            ...links.ports.flatMap((port) => ["--nats-url", `nats://127.0.0.1:${port}`]),
          ],
          links: links.links,
          disk: last ? disk : undefined,
        }),
      );
      run.#closing.push(...links.links);
    }
    run.#closing.push({
      [Symbol.asyncDispose]: async () => {
        await disk?.[Symbol.asyncDispose]();
        if (!run.#kept) await folder[Symbol.asyncDispose]();
      },
    });
    return run;
  }

  async go(): Promise<TortureResult> {
    const { nodes, options: { say } } = this;
    say(`nodes ${this.#nodeNames().join(", ")}; shards ${this.shards}; files in ${this.folder}`);
    const names = nodes.map(({ name }) => name);
    await Promise.all(nodes.map((node) => node.prepare(names)));
    const initial = (await nodes[0]!.tell()).state;
    for (const node of nodes) await node.setUp();
    await Promise.all(nodes.map((node) => node.startApplications()));
    const faults = await this.#hurt();
    await Promise.all(nodes.map((node) => node.killApplications()));
    const healedAt = performance.now();
    const settled = await this.#settled();
    const convergedMs = Math.round(performance.now() - healedAt);
    say(`${settled ? "settled" : "NOT settled"} ${convergedMs} ms after the last fault`);
    const verdict = await this.#judge(initial);
    if (this.violations.length === 0) await this.#lastWrites();
    await this.#statuses();
    for (const node of nodes) this.violations.push(...node.violations.map((text) => `${node.name}: ${text}`));
    return await this.#result(faults, convergedMs, verdict);
  }

  async close(): Promise<void> {
    for (const node of this.nodes) {
      await node.killApplications();
      await node.endMarmot();
    }
    for (const closing of this.#closing) await closing[Symbol.asyncDispose]();
  }

  async #hurt(): Promise<Record<string, number>> {
    const { nodes, brokers, random, options: { seconds, say } } = this;
    const end = new AbortController();
    const nemesis = new Nemesis({ nodes, brokers, random, say });
    const started = performance.now();
    const elapsed = () => (performance.now() - started) / 1_000;
    const timer = setTimeout(() => end.abort(), seconds * 1_000);
    const ticker = setInterval(() => {
      const sum = (of: (node: TortureNode) => number) => nodes.reduce((total, node) => total + of(node), 0);
      say(`after ${elapsed().toFixed(0)} s: ${sum(({ commits }) => commits)} commits`);
      if (nodes.some((node) => node.isViolated)) end.abort();
    }, TICK_MS);
    try {
      await nemesis.run(end.signal);
    } finally {
      clearTimeout(timer);
      clearInterval(ticker);
    }
    return nemesis.counts;
  }

  /** Everything was published and applied everywhere, and the tables are equal by storage class and bytes. */
  async #settled(): Promise<boolean> {
    const apps = await Promise.all(this.nodes.map(({ path }) => App.start(path)));
    try {
      const limit = performance.now() + CONVERGED_TIMEOUT_MS;
      for (;;) {
        const facts = await Promise.all(apps.map((app) => app.facts()));
        const cursors = JSON.stringify(facts[0]?.cursors);
        const done = facts.every(({ pending, parked, cursors: own }) =>
          Object.keys(pending).length === 0 && parked === 0 && JSON.stringify(own) === cursors
        );
        if (done) break;
        if (performance.now() > limit) {
          this.violations.push(`not settled within ${CONVERGED_TIMEOUT_MS} ms: ${JSON.stringify(facts)}`);
          this.#late = true;
          return false;
        }
        await sleep(POLL_MS);
      }
      const dumps = await Promise.all(apps.map((app) => app.dump()));
      for (const [place, dump] of dumps.entries()) {
        if (JSON.stringify(dump) === JSON.stringify(dumps[0])) continue;
        const [here, there] = [this.nodes[0]!.name, this.nodes[place]!.name];
        this.violations.push(`${here} and ${there} differ: ${JSON.stringify(dumps[0])} ${JSON.stringify(dump)}`);
      }
      return this.violations.length === 0;
    } finally {
      await Promise.all(apps.map((app) => app[Symbol.asyncDispose]()));
    }
  }

  async #judge(initial: Record<string, string>): Promise<Judged> {
    const journals = new Map<string, Journal>();
    for (const node of this.nodes) journals.set(node.name, await Journal.read(node.journals, node.lapses));
    const verdicts: Verdict[] = [];
    for (const node of this.#late ? [] : this.nodes) {
      const { state, problems } = await node.tell();
      const verdict = judge(state, initial, journals);
      verdicts.push(verdict);
      this.violations.push(...[...problems, ...verdict.problems].map((text) => `${node.name}: ${text}`));
    }
    return { journals: [...journals.values()], verdicts };
  }

  /** After all of it a cluster must be as good as new: one write after the other, each the last of its row. */
  async #lastWrites(): Promise<void> {
    const apps = await Promise.all(this.nodes.map(({ path }) => App.start(path)));
    try {
      for (let k = 0; k < LAST_WRITES; k++) {
        await this.random.pick(apps).run("INSERT OR REPLACE INTO register VALUES (?, ?)", k, `last ${k}`);
      }
    } finally {
      await Promise.all(apps.map((app) => app[Symbol.asyncDispose]()));
    }
    await this.#settled();
    const { state } = await this.nodes[0]!.tell();
    for (let k = 0; k < LAST_WRITES; k++) {
      const found = state[`register/${k}`];
      if (found !== `('last ${k}',)`) this.violations.push(`register ${k} holds ${found} after its last write`);
    }
  }

  async #statuses(): Promise<void> {
    for (const node of this.nodes) {
      const { running, connected, parked, stops, shards } = await node.status();
      const stopped = shards.flatMap((shard) => shard.stopped ?? []);
      if (running && connected && parked.length + stops.length + stopped.length === 0) continue;
      this.violations.push(
        `${node.name}: status says ${JSON.stringify({ running, connected, parked, stops, stopped })}`,
      );
    }
  }

  async #result(
    faults: Readonly<Record<string, number>>,
    convergedMs: number,
    { journals, verdicts }: Judged,
  ): Promise<TortureResult> {
    const { nodes, violations, options: { seed, seconds } } = this;
    const sum = <T>(some: readonly T[], of: (one: T) => number) => some.reduce((total, one) => total + of(one), 0);
    const counts = (name: keyof Journal["counts"]) => sum(journals, (journal) => journal.counts[name]);
    if (violations.length > 0 || this.options.keep) await this.#keep();
    return {
      seed,
      seconds,
      nodes: this.#nodeNames(),
      shards: this.shards,
      commits: counts("commits"),
      rows: counts("rows"),
      reads: sum(nodes, (node) => node.reads),
      rolledBack: counts("rolledBack"),
      interrupted: counts("interrupted"),
      unanswered: counts("unanswered"),
      lapsed: counts("lapsed"),
      writesWithoutRoom: sum(nodes, (node) => node.writesWithoutRoom),
      faults,
      convergedMs,
      keys: verdicts[0]?.keys ?? 0,
      lost: sum(verdicts, ({ lost }) => lost),
      differences: sum(verdicts, ({ stale }) => stale),
      violations,
      kept: this.#kept ? this.folder : undefined,
    };
  }

  /** Leaves everything for whoever looks into it. */
  async #keep(): Promise<void> {
    this.#kept = true;
    for (const node of this.nodes) {
      await node.endMarmot();
      await writeFile(`${this.folder}/${node.name}.log`, node.log);
      if (node.setup.disk === undefined) continue;
      const files = ["", "-wal"].map((suffix) => `${node.path}${suffix}`);
      for (const file of files) await copyFile(file, `${this.folder}/${file.split("/").at(-1)}`).catch(() => {});
    }
    for (const place of this.brokers.servers.keys()) {
      await writeFile(`${this.folder}/n${place + 1}.log`, this.brokers.log(place));
    }
  }

  #nodeNames(): string[] {
    return this.nodes.map(({ name, setup }) => `${name} (${setup.runtime})`);
  }
}

interface Judged {
  readonly journals: readonly Journal[];
  readonly verdicts: readonly Verdict[];
}

async function linksOf(node: string, brokers: Brokers): Promise<{ links: Link[]; ports: number[] }> {
  const links = brokers.servers.map((_, place) => new Link(`${node}~n${place + 1}`));
  const ports: number[] = [];
  for (const [place, link] of links.entries()) ports.push(await link.open(brokers.servers[place]!.port));
  return { links, ports };
}
