/** nats-server processes that an earlier Marmot of this database left over, for it was killed. */
import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { EXIT, MarmotError } from "../errors.ts";
import type { Log } from "../runtime.ts";
import type { BrokerFiles } from "./server_files.ts";
import { SHELL } from "./server_process.ts";

const TERM_TIMEOUT_MS = 2_000;
const KILL_TIMEOUT_MS = 2_000;
const POLL_MS = 20;

/** Prints process id and arguments of each process whose arguments mention $1. One may end while it is looked at. */
const LIST_MENTIONS = `for file in $(grep -lsF -- "$1" /proc/[0-9]*/cmdline); do
  pid=\${file#/proc/}
  printf '%s ' "\${pid%/cmdline}"
  tr '\\0' ' ' <"$file"
  echo
done 2>/dev/null`;

const run = promisify(execFile);

/**
 * Ends them. The caller holds the database's lock, so what runs with this configuration has no Marmot any more; two
 * servers on one store would damage it.
 * @throws MarmotError (broker) when one can't be ended
 */
export async function endLeftovers(files: BrokerFiles, log: Log): Promise<void> {
  const found = await processesWith(files);
  if (found.length === 0) return;
  log.warn("Stopping a broker that an earlier Marmot of this database left running", { pids: found.join(" ") });
  for (const [signal, timeout] of [["SIGTERM", TERM_TIMEOUT_MS], ["SIGKILL", KILL_TIMEOUT_MS]] as const) {
    for (const pid of await processesWith(files)) sendSignal(pid, signal);
    const deadline = performance.now() + timeout;
    while (performance.now() < deadline) {
      if ((await processesWith(files)).length === 0) return;
      await sleep(POLL_MS);
    }
  }
  throw stillThere(found);
}

function sendSignal(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    if (code === "EPERM") throw stillThere([pid]);
  }
}

function stillThere(pids: readonly number[]): MarmotError {
  return new MarmotError(
    `Cannot start the embedded broker: the one of an earlier Marmot still runs and can't be stopped (process ${
      pids.join(", ")
    }). Stop it and start again.`,
    EXIT.broker,
  );
}

/** Those that were started with our configuration file, which only Marmot does: `… -c FILE`. */
async function processesWith(files: BrokerFiles): Promise<number[]> {
  const list = process.platform === "linux" ? linuxProcesses : process.platform === "win32" ? pidFileProcess : psList;
  const ours = (arguments_: string) => arguments_.endsWith(` -c ${files.configuration}`);
  const found = await list(files);
  return found.filter(({ pid, command }) => pid !== process.pid && ours(command)).map(({ pid }) => pid);
}

interface FoundProcess {
  readonly pid: number;
  /** program and arguments with blanks between */
  readonly command: string;
}

/** By programs that every Linux has: Deno reads /proc only for who may do everything. */
async function linuxProcesses({ configuration }: BrokerFiles): Promise<FoundProcess[]> {
  const arguments_ = ["-c", LIST_MENTIONS, "marmot", configuration];
  const { stdout } = await run(SHELL, arguments_, { env: { PATH: "/usr/bin:/bin" } }).catch(() => ({ stdout: "" }));
  return parseList(stdout);
}

async function psList(): Promise<FoundProcess[]> {
  const { stdout } = await run("ps", ["-axww", "-o", "pid=,command="], { maxBuffer: 64 * 1024 * 1024 });
  return parseList(stdout);
}

/** Lines of a process id and a command. */
function parseList(text: string): FoundProcess[] {
  return text.split("\n").map((line) => {
    const [, pid = "0", command = ""] = /^\s*(\d+)\s+(.*?) *$/.exec(line) ?? [];
    return { pid: Number(pid), command };
  });
}

/** Listing all processes takes a second on Windows, so only the one in the pid file is looked at. */
async function pidFileProcess(files: BrokerFiles): Promise<FoundProcess[]> {
  const pid = Number.parseInt(await readFile(files.pid, "utf8").catch(() => ""), 10);
  if (!Number.isSafeInteger(pid) || !isAlive(pid)) return [];
  const query = `(Get-CimInstance Win32_Process -Filter 'ProcessId=${pid}').CommandLine`;
  const { stdout } = await run("powershell", ["-NoProfile", "-Command", query]).catch(() => ({ stdout: "" }));
  return [{ pid, command: stdout.trim().replaceAll('"', "") }];
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
