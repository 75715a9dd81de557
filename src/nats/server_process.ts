/** One run of a nats-server as a child process that ends with us, however we end. */
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { readdir, readFile, rm } from "node:fs/promises";
import { constants } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { bareEnvironment } from "./server_binary.ts";
import type { BrokerFiles } from "./server_files.ts";

const READY_TIMEOUT_MS = 60_000;
const READY_POLL_MS = 10;
/** Marmot has 2 s for all of its stop; a broker that syncs each write loses nothing when it is killed */
const STOP_TIMEOUT_MS = 600;
const OUTPUT_KEPT = 8_192;
/** how long the last output may lag behind the end */
const OUTPUT_TIMEOUT_MS = 200;
export const SHELL = "/bin/sh";

/**
 * Runs "$@" and stops it when standard input closes, which happens when Marmot ends in any way, kill -9 included. The
 * exit code is the server's. Only what every sh has built in is used, since there is no PATH.
 */
const GUARD = `exec 3<&0 </dev/null
"$@" 3<&- &
server=$!
(read -r _ <&3; kill -TERM "$server") 2>/dev/null &
guard=$!
exec 3<&-
wait "$server"
code=$?
kill "$guard" 2>/dev/null
exit "$code"`;

export interface ServerEnd {
  /** such as "exit code 1" or "signal SIGKILL" */
  readonly how: string;
}

export class ServerProcess {
  /** what it printed outside of its log: a panic, or that its configuration is wrong */
  output = "";
  readonly ended: Promise<ServerEnd>;
  /** aborted at its end: for those who wait for something else meanwhile */
  readonly gone: AbortSignal;
  #end: ServerEnd | undefined;

  private constructor(private readonly child: ChildProcess, private readonly guarded: boolean) {
    child.stdin?.on("error", () => {/* it is gone, which `ended` tells */});
    child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      this.output = (this.output + text).slice(-OUTPUT_KEPT);
    });
    const gone = new AbortController();
    this.gone = gone.signal;
    const closed = new Promise<void>((resolve) => child.once("close", () => resolve()));
    this.ended = new Promise((resolve) => {
      const end = (how: string) => {
        this.#end ??= { how };
        const done = this.#end;
        void Promise.race([closed, sleep(OUTPUT_TIMEOUT_MS)]).then(() => {
          resolve(done);
          gone.abort();
        });
      };
      child.once("error", (error) => end(error.message));
      child.once("exit", (code, signal) => end(describeEnd(code, signal)));
    });
  }

  /** Starts it; `ready` tells when it serves. Its environment is empty, and its arguments are one path. */
  static start(program: string, files: BrokerFiles): ServerProcess {
    const guarded = process.platform !== "win32" && existsSync(SHELL);
    const command = [program, "-c", files.configuration];
    const [file = "", ...args] = guarded ? [SHELL, "-c", GUARD, "marmot-broker", ...command] : command;
    const child = spawn(file, args, {
      cwd: files.folder,
      env: bareEnvironment(),
      stdio: ["pipe", "ignore", "pipe"],
      // A group of its own: Ctrl-C is for Marmot, which still has something to publish then.
      detached: process.platform !== "win32",
      windowsHide: true,
    });
    return new ServerProcess(child, guarded);
  }

  get running(): boolean {
    return this.#end === undefined;
  }

  /**
   * Waits until it accepts clients; JetStream of a single server is ready by then.
   * @returns its process id
   * @throws Error when it ended instead, or takes too long
   */
  async ready(files: BrokerFiles, signal: AbortSignal): Promise<number> {
    const deadline = performance.now() + READY_TIMEOUT_MS;
    while (this.running && performance.now() < deadline) {
      const pid = Number.parseInt(await readFile(files.pid, "utf8").catch(() => ""), 10);
      if (pid > 0 && await portsWritten(files, pid)) return pid;
      await sleep(READY_POLL_MS, undefined, { signal });
    }
    if (!this.running) throw new Error(`it ended with ${(await this.ended).how}`);
    throw new Error(`it was not ready within ${READY_TIMEOUT_MS / 1000} s`);
  }

  /** Ends it, by force if it takes too long. */
  async stop(): Promise<void> {
    if (!this.running) return;
    if (this.guarded) this.child.stdin?.end();
    else this.#signal("SIGTERM");
    const timer = setTimeout(() => this.#signal("SIGKILL"), STOP_TIMEOUT_MS);
    await this.ended;
    clearTimeout(timer);
  }

  /** To the whole group. Not child.kill: after a signal sent with it, Deno does not notice the end. */
  #signal(signal: NodeJS.Signals): void {
    const pid = this.child.pid;
    if (pid === undefined || !this.running) return;
    try {
      process.kill(process.platform === "win32" ? pid : -pid, signal);
    } catch {
      // it ended by itself
    }
  }
}

/** A shell tells a signal as an exit code above 128. */
function describeEnd(code: number | null, signal: string | null): string {
  const name = Object.entries(constants.signals).find(([, number]) => number + 128 === code)?.[0];
  const ending = signal ?? name;
  return ending === undefined ? `exit code ${code}` : `signal ${ending}`;
}

/** The server writes its ports when it listens: `<program>_<pid>.ports`. */
async function portsWritten(files: BrokerFiles, pid: number): Promise<boolean> {
  const names = await readdir(files.folder);
  const name = names.find((found) => found.endsWith(`_${pid}.ports`));
  return name !== undefined && (await readFile(join(files.folder, name), "utf8").catch(() => "")).includes("nats://");
}

/** What a run that was killed left: the next one must not be taken for ready because of it. */
export async function removeRunFiles(files: BrokerFiles): Promise<void> {
  await rm(files.pid, { force: true });
  const names = await readdir(files.folder);
  for (const name of names.filter((found) => found.endsWith(".ports"))) {
    await rm(join(files.folder, name), { force: true });
  }
}
