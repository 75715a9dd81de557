/** A disk that can be full: a tmpfs of limited size, where this user may mount one. */
import { spawnSync } from "node:child_process";
import { mkdir, open, rm, statfs } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";

const CHUNK_BYTES = 1024 * 1024;
const LAST_BYTES = 4096;

export class LimitedDisk implements AsyncDisposable {
  private constructor(readonly path: string, private readonly unmount: () => void) {}

  /** undefined: no file system can be mounted here */
  static async mount(path: string, bytes: number): Promise<LimitedDisk | undefined> {
    await mkdir(path, { recursive: true });
    for (const rights of [[], ["sudo", "-n"]]) {
      const run = (...command: string[]) => {
        const [program = "", ...args] = [...rights, ...command];
        return spawnSync(program, args, { stdio: "ignore" }).status === 0;
      };
      const owner = `uid=${process.getuid?.() ?? 0},mode=700`;
      if (!run("mount", "-t", "tmpfs", "-o", `size=${bytes},${owner}`, "tmpfs", path)) continue;
      const unmount = () => void run("umount", "-l", path);
      // A run that is broken off leaves no file system behind.
      process.once("exit", unmount);
      return new LimitedDisk(path, unmount);
    }
    return undefined;
  }

  /** Takes all room that is left. */
  async fill(): Promise<void> {
    await using file = await open(this.#ballast, "a");
    for (let size = CHUNK_BYTES; size >= LAST_BYTES;) {
      const { bavail, bsize } = await statfs(this.path);
      if (bavail * bsize < size) size = size === CHUNK_BYTES ? LAST_BYTES : 0;
      else if (!await file.write(new Uint8Array(size)).then(() => true, () => false)) size = 0;
    }
  }

  async free(): Promise<void> {
    await rm(this.#ballast, { force: true });
  }

  [Symbol.asyncDispose](): Promise<void> {
    process.off("exit", this.unmount);
    this.unmount();
    return Promise.resolve();
  }

  get #ballast(): string {
    return join(this.path, "ballast");
  }
}
