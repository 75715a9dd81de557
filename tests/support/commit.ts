/** Which source a long run ran on. */
import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";

const PROJECT = fileURLToPath(new URL("../../", import.meta.url));

/** A commit, and whether files of these folders are not as it has them; "unknown" without git. */
export function commitOf(...folders: readonly string[]): string {
  const git = (...args: string[]) =>
    execFileSync("git", args, { cwd: PROJECT, encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trim();
  try {
    const changed = git("status", "--porcelain", "--untracked-files=no", "--", ...folders);
    return git("rev-parse", "--short", "HEAD") + (changed === "" ? "" : " and changes");
  } catch {
    return "unknown";
  }
}
