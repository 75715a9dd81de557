/** What Linux tells of processes: CPU time, memory, and how much of the machine others used meanwhile. */
import { readdir, readFile } from "node:fs/promises";

/** of /proc/PID/stat and /proc/stat: USER_HZ, the same on every Linux that Deno and Bun run on */
const TICKS_PER_SECOND = 100;
const NS_PER_SECOND = 1e9;
const KB_PER_MB = 1024;
/** in /proc/PID/stat after the name, which may hold spaces */
const UTIME = 11;
const STIME = 12;
/** in the first line of /proc/stat */
const IDLE_FIELDS = [3, 4];
/** guests are in user and nice already */
const COUNTED_FIELDS = 8;

/** User and system seconds, of threads that have ended too; in steps of 10 ms. */
export async function cpuSeconds(pid: number): Promise<number> {
  const stat = await readFile(`/proc/${pid}/stat`, "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[UTIME]) + Number(fields[STIME])) / TICKS_PER_SECOND;
}

/** Seconds of each thread that runs now, by its id, in steps of nanoseconds: for a process that does next to nothing. */
export async function threadSeconds(pid: number): Promise<ReadonlyMap<string, number>> {
  const tasks = await readdir(`/proc/${pid}/task`);
  return new Map(
    await Promise.all(tasks.map(async (task): Promise<[string, number]> => {
      const text = await readFile(`/proc/${pid}/task/${task}/schedstat`, "utf8").catch(() => "0");
      return [task, Number(text.split(" ")[0]) / NS_PER_SECOND];
    })),
  );
}

/** What threads used between two readings; one that ended meanwhile is left out. */
export function secondsBetween(before: ReadonlyMap<string, number>, after: ReadonlyMap<string, number>): number {
  return [...after].reduce((sum, [task, seconds]) => sum + seconds - (before.get(task) ?? 0), 0);
}

export interface Memory {
  /** MB that it has now */
  readonly resident: number;
  /** the most it ever had */
  readonly peak: number;
}

export async function memoryOf(pid: number): Promise<Memory> {
  const status = await readFile(`/proc/${pid}/status`, "utf8");
  const megabytes = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(status)?.[1]) / KB_PER_MB;
  return { resident: megabytes("VmRSS"), peak: megabytes("VmHWM") };
}

/** CPU seconds that all processes and the kernel used since the machine started. */
export async function machineCpuSeconds(): Promise<number> {
  const [line = ""] = (await readFile("/proc/stat", "utf8")).split("\n");
  const fields = line.split(/\s+/).slice(1, 1 + COUNTED_FIELDS).map(Number);
  const busy = fields.filter((_, place) => !IDLE_FIELDS.includes(place));
  return busy.reduce((sum, ticks) => sum + ticks, 0) / TICKS_PER_SECOND;
}
