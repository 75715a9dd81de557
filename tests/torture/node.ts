/** A node under torture: a database, a Marmot, a writing and a reading application, each a process that may be killed. */
import assert from "node:assert/strict";
import { copyFile, rename, rm, stat } from "node:fs/promises";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { EXIT } from "../../src/errors.ts";
import { App } from "../support/app.ts";
import { type Program, runProgram, startProgram } from "../support/process.ts";
import type { LimitedDisk } from "../support/disk.ts";
import type { Lapse, Mark } from "./journal.ts";
import type { Link } from "./link.ts";
import { OWN_SUM, prepareSql, PULSES, SHARED_SUM } from "./schema.ts";

const APPLICATION = fileURLToPath(new URL("./application.py", import.meta.url));
const WRITE_PAUSE_S = 0.06;
const READ_PAUSE_S = 0.03;
const SET_UP_ATTEMPTS = 10;
const SET_UP_TIMEOUT_MS = 30_000;
const EMPTY_WAL_MS = 500;
const TELL_TIMEOUT_MS = 240_000;
/** older copies that are kept; another takes the place of the oldest */
const COPIES = 2;

export interface NodeSetup {
  readonly name: string;
  /** for its database */
  readonly folder: string;
  /** for journals and copies */
  readonly keep: string;
  readonly seed: number;
  /** the command line that starts Marmot, without arguments */
  readonly command: readonly string[];
  readonly runtime: string;
  readonly args: readonly string[];
  /** to each broker */
  readonly links: readonly Link[];
  readonly disk: LimitedDisk | undefined;
}

interface Copy {
  readonly path: string;
  readonly mark: Mark;
}

/** How an older copy gets into the place of the database. */
export type Restore = "down" | "file" | "backup";

export class TortureNode {
  /** lives of the writing application so far; each has a journal */
  life = 0;
  readonly lapses: Lapse[] = [];
  /** what its programs said that must never be */
  readonly violations: string[] = [];
  reads = 0;
  writesWithoutRoom = 0;
  #commits = 0;
  #copies: Copy[] = [];
  #copied = 0;
  /** transfers between its own accounts wait until an older copy has caught up */
  #bank = true;
  #marmot: Program | undefined;
  #formerly = "";
  #applications: Program[] = [];

  constructor(readonly setup: NodeSetup) {}

  get name(): string {
    return this.setup.name;
  }

  get path(): string {
    return `${this.setup.folder}/${this.name}.db`;
  }

  get journals(): string[] {
    return Array.from({ length: this.life }, (_, i) => this.#journal(i + 1));
  }

  get log(): string {
    return this.#formerly + (this.#marmot?.output ?? "");
  }

  /** about how many transactions its application has committed */
  get commits(): number {
    const last = (output: string) => reports(output).findLast(({ commits }) => commits !== undefined)?.commits ?? 0;
    return this.#commits + this.#applications.reduce((sum, { output }) => sum + last(output), 0);
  }

  get hasCopy(): boolean {
    return this.#copies.length > 0;
  }

  /** Something was said that must never be. */
  get isViolated(): boolean {
    return this.violations.length > 0 || this.#applications.some(({ output }) => output.includes('"violation"'));
  }

  async prepare(nodes: readonly string[]): Promise<void> {
    await using app = await App.start(this.path);
    await app.script(prepareSql(nodes));
  }

  async startMarmot(): Promise<void> {
    this.#watch(await startProgram([...this.setup.command, "--db-path", this.path, ...this.setup.args]));
  }

  /** The first start, which ends when the brokers' cluster can't make streams yet: tried until it does not. */
  async setUp(): Promise<void> {
    for (let attempt = 1;; attempt++) {
      const marmot = await startProgram([...this.setup.command, "--db-path", this.path, ...this.setup.args]);
      try {
        await marmot.waitFor(/connected/, { timeoutMs: SET_UP_TIMEOUT_MS });
        return this.#watch(marmot);
      } catch (error) {
        await marmot.kill();
        if (attempt >= SET_UP_ATTEMPTS) throw error;
      }
    }
  }

  /** SIGKILL, or SIGTERM */
  async endMarmot(how: "kill" | "stop" = "kill"): Promise<void> {
    const marmot = this.#marmot;
    this.#marmot = undefined;
    await marmot?.[how]();
    this.#formerly += marmot?.output ?? "";
  }

  freeze(): void {
    this.#marmot?.freeze();
  }

  thaw(): void {
    this.#marmot?.signal("SIGCONT");
  }

  async startApplications(): Promise<void> {
    this.life++;
    const common = { path: this.path, ownSum: OWN_SUM, sharedSum: SHARED_SUM };
    await this.#application("write", {
      ...common,
      name: this.name,
      seed: this.setup.seed,
      life: this.life,
      journal: this.#journal(this.life),
      bank: this.#bank,
      pauseS: WRITE_PAUSE_S,
    });
    await this.#application("read", { ...common, pulses: PULSES, pauseS: READ_PAUSE_S });
  }

  /** SIGKILL, in the middle of whatever they do. */
  async killApplications(): Promise<void> {
    const applications = this.#applications;
    this.#applications = [];
    for (const { pid } of applications) process.kill(-pid, "SIGKILL");
    await Promise.all(applications.map(({ exited }) => exited));
    for (const { output } of applications) this.#count(output);
  }

  /** To them and the shells they run. */
  signalApplications(signal: NodeJS.Signals): void {
    for (const { pid } of this.#applications) process.kill(-pid, signal);
  }

  /** Keeps a copy: page by page, in WAL mode as the database is, or rewritten, which gives it a rollback journal. */
  async copy(): Promise<void> {
    const mark = { life: this.life, bytes: await sizeOf(this.#journal(this.life)) };
    const path = `${this.setup.keep}/${this.name}.copy${this.#copied % (COPIES + 1)}`;
    await rm(path, { force: true });
    await using app = await App.start(this.path);
    if (this.#copied++ % 2 === 0) await app.run("VACUUM INTO ?", path);
    else {
      await app.python(`import sqlite3
target = sqlite3.connect(${JSON.stringify(path)})
db.backup(target)
target.close()`);
    }
    this.#copies = [{ path, mark }, ...this.#copies].slice(0, COPIES);
  }

  /** Puts a copy in the place of the database; no application may run. */
  async restore(how: Restore, choice: number): Promise<void> {
    const place = choice % this.#copies.length;
    const copy = this.#copies[place]!;
    // Newer ones are of a past that no longer is: what they hold as pending would be older than what is written now.
    this.#copies = this.#copies.slice(place);
    const pending = await this.#pending();
    if (how === "backup") {
      await using app = await App.start(this.path);
      await app.python(`import sqlite3
source = sqlite3.connect(${JSON.stringify(copy.path)})
source.backup(db)
source.close()`);
    } else {
      await copyFile(copy.path, `${this.path}.restored`);
      for (const suffix of ["-wal", "-shm", "-journal"]) await rm(this.path + suffix, { force: true });
      await rename(`${this.path}.restored`, this.path);
    }
    // With nothing pending all of it is in the stream, and nothing may be lost.
    if (pending) this.lapses.push({ copied: copy.mark, life: this.life + 1 });
    this.#bank = false;
  }

  /** Makes the WAL file empty, so that the next commit needs room; not while somebody reads or writes for long. */
  async emptyWal(): Promise<void> {
    await using app = await App.start(this.path);
    await app.run(`PRAGMA busy_timeout = ${EMPTY_WAL_MS}`);
    await app.run("PRAGMA wal_checkpoint(TRUNCATE)");
  }

  /** Whether an older copy has to catch up before the application may rely on what it reads. */
  get isBehind(): boolean {
    return !this.#bank;
  }

  async caughtUp(): Promise<boolean> {
    const status = await this.#askStatus();
    // somebody who is frozen may hold the lock
    if (status === undefined) return false;
    const { pending, shards } = status;
    return pending.length === 0 && shards.every(({ publisher }) => publisher === "ready");
  }

  /** The application's next life may transfer again. */
  trust(): void {
    this.#bank = true;
  }

  /** What `marmot status` says. */
  async status(): Promise<Status> {
    return await this.#askStatus() ?? assert.fail(`the database of ${this.name} is locked`);
  }

  /** @returns undefined when the database is locked */
  async #askStatus(): Promise<Status | undefined> {
    const command = [...this.setup.command, "status", "--json", "--db-path", this.path];
    const { code, stdout, stderr } = await runProgram(command);
    if (code === EXIT.database && stderr.includes("holds its lock")) return undefined;
    if (code !== 0) throw new Error(`marmot status failed on ${this.name}: ${stderr}`);
    return JSON.parse(stdout);
  }

  /** What each key holds, and what SQLite finds wrong with the file. */
  async tell(): Promise<{ state: Record<string, string>; problems: string[] }> {
    const options = { timeoutMs: TELL_TIMEOUT_MS };
    const command = ["python3", APPLICATION, "tell", JSON.stringify({ path: this.path })];
    const { code, stdout, stderr } = await runProgram(command, options);
    if (code !== 0) throw new Error(`cannot read ${this.name}: ${stderr}`);
    return JSON.parse(stdout);
  }

  async dump(): Promise<Record<string, string>> {
    await using app = await App.start(this.path);
    return await app.dump();
  }

  #watch(marmot: Program): void {
    this.#marmot = marmot;
    void marmot.exited.then((exit) => {
      if (this.#marmot === marmot) this.violations.push(`Marmot ended by itself: ${JSON.stringify(exit)}`);
    });
  }

  async #pending(): Promise<boolean> {
    await using app = await App.start(this.path);
    return Object.keys((await app.facts()).pending).length > 0;
  }

  #journal(life: number): string {
    return `${this.setup.keep}/${this.name}-${life}.journal`;
  }

  async #application(mode: string, options: Record<string, unknown>): Promise<void> {
    const application = await startProgram(["python3", APPLICATION, mode, JSON.stringify(options)]);
    this.#applications.push(application);
    void application.exited.then(({ code }) => {
      if (this.#applications.includes(application)) {
        this.violations.push(`the application that ${mode}s ended with ${code}: ${application.stderr}`);
      }
    });
    await application.waitFor("started");
  }

  #count(output: string): void {
    const told = reports(output);
    this.reads += told.findLast(({ reads }) => reads !== undefined)?.reads ?? 0;
    this.#commits += told.findLast(({ commits }) => commits !== undefined)?.commits ?? 0;
    this.writesWithoutRoom += told.filter(({ full }) => full !== undefined).length;
    this.violations.push(...new Set(told.flatMap(({ violation }) => violation ?? [])));
  }
}

export interface Status {
  readonly running: boolean;
  readonly connected: boolean;
  readonly pending: readonly unknown[];
  readonly parked: readonly unknown[];
  readonly stops: readonly string[];
  readonly shards: readonly { readonly publisher: string; readonly stopped: string | null }[];
}

interface Report {
  readonly reads?: number;
  readonly commits?: number;
  readonly full?: string;
  readonly violation?: string;
}

/** What an application has printed; a last line that is not whole is left out. */
function reports(output: string): Report[] {
  const lines = output.split("\n").slice(0, -1).filter((line) => line.startsWith("{"));
  return lines.map((line) => JSON.parse(line));
}

async function sizeOf(path: string): Promise<number> {
  return await stat(path).then(({ size }) => size, () => 0);
}
