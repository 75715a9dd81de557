/** nats-server processes that an earlier Marmot of this database left over, for it was killed. */
import { execFile } from "node:child_process";
import { readdir, readFile } from "node:fs/promises";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { EXIT, MarmotError } from "../errors.ts";
import type { Log } from "../runtime.ts";
import type { BrokerFiles } from "./server_files.ts";

const TERM_TIMEOUT_MS = 2_000;
const KILL_TIMEOUT_MS = 2_000;
const POLL_MS = 20;

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
    const deadline = Date.now() + timeout;
    while (Date.now() < deadline) {
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

async function linuxProcesses(): Promise<FoundProcess[]> {
  const pids = (await readdir("/proc").catch(() => [])).filter((name) => /^\d+$/.test(name));
  return await Promise.all(pids.map(async (pid) => {
    // A process may end while it is looked at; the command line of a dead one is empty.
    const command = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
    return { pid: Number(pid), command: command.replace(/\0$/, "").replaceAll("\0", " ") };
  }));
}

async function psList(): Promise<FoundProcess[]> {
  const { stdout } = await run("ps", ["-axww", "-o", "pid=,command="], { maxBuffer: 64 * 1024 * 1024 });
  return stdout.split("\n").map((line) => {
    const [, pid = "0", command = ""] = /^\s*(\d+)\s+(.*)$/.exec(line) ?? [];
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
