/**
 * Gets the applications that tests use, into this user's cache: Django from PyPI; Knex and better-sqlite3 from npm, with
 * a Node that can run them where the one in PATH can't. Versions and digests are pinned beside the tests.
 *
 *     deno run --allow-all scripts/applications.ts
 *
 * prints where they are.
 */
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { access, copyFile, mkdir, readFile, rename, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { arch, env, pid, platform, stderr, stdout } from "node:process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { cacheFolder } from "../src/nats/server_binary.ts";

const INSTALL_TIMEOUT_MS = 300_000;
/** better-sqlite3 crashes older ones */
const NODE_MINIMUM = 22;
const DJANGO_PINS = fileURLToPath(new URL("../tests/applications/django/requirements.txt", import.meta.url));
const NPM_PINS = ["package.json", "package-lock.json"].map((name) => {
  return fileURLToPath(new URL(`../tests/applications/knex/${name}`, import.meta.url));
});

/** How to start a program that uses an application. */
export interface Installed {
  /** the interpreter */
  readonly program: string;
  /** variables it needs to find the application's packages */
  readonly env: Readonly<Record<string, string>>;
}

const run = promisify(execFile);

/** Django, for the Python in PATH. @throws Error that says what is missing */
export async function ensureDjango(say: (line: string) => void): Promise<Installed> {
  // python3 in PATH may be a script that looks for the real one at each start.
  const facts = "import sys; print('%d.%d' % sys.version_info[:2], sys.executable)";
  const [, version, program = "python3"] = /^(\S+) (.+)/.exec((await run("python3", ["-c", facts])).stdout) ?? [];
  const folder = await installed(`django-python${version}`, [DJANGO_PINS], say, async (target) => {
    const options = [
      "--quiet",
      "--disable-pip-version-check",
      "--no-input",
      "--retries=1",
      "--require-hashes",
      "--no-deps",
    ];
    await command([program, "-m", "pip", "install", ...options, "--target", target, "-r", DJANGO_PINS]);
  });
  return { program, env: { PYTHONPATH: folder, PYTHONDONTWRITEBYTECODE: "1" } };
}

/** Knex and better-sqlite3, and a Node for them. @throws Error that says what is missing */
export async function ensureKnex(say: (line: string) => void): Promise<Installed> {
  const fits = await nodeVersion().then((major) => major >= NODE_MINIMUM, () => false);
  const folder = await installed(fits ? "knex" : "knex-with-node", NPM_PINS, say, async (target) => {
    const [from, lock] = NPM_PINS;
    await copyFile(from ?? "", join(target, "package.json"));
    await copyFile(lock ?? "", join(target, "package-lock.json"));
    const options = [
      "--ignore-scripts",
      "--fetch-retries=1",
      "--no-audit",
      "--no-fund",
      ...(fits ? ["--omit=optional"] : []),
    ];
    await command(["npm", "ci", "--prefix", target, ...options]);
  });
  const modules = join(folder, "node_modules");
  const program = fits ? "node" : join(modules, `node-${platform}-${arch}`, "bin", "node");
  if (!fits && !await exists(program)) throw new Error(`there is no Node ${NODE_MINIMUM} or newer in PATH`);
  return { program, env: { NODE_PATH: modules } };
}

async function nodeVersion(): Promise<number> {
  const { stdout: version } = await run("node", ["--version"]);
  return Number(/^v(\d+)/.exec(version)?.[1]);
}

/** The folder of an application with these pins; made by `install` in one that takes its name only once it is whole. */
async function installed(
  name: string,
  pins: readonly string[],
  say: (line: string) => void,
  install: (target: string) => Promise<void>,
): Promise<string> {
  const digest = createHash("sha256");
  for (const file of pins) digest.update(await readFile(file));
  const folder = join(
    cacheFolder() ?? tmpdir(),
    "marmot",
    "test-applications",
    `${name}-${digest.digest("hex").slice(0, 12)}`,
  );
  if (await exists(folder)) return folder;
  say(`installing ${name} into ${folder}`);
  const target = `${folder}.${pid}`;
  await rm(target, { recursive: true, force: true });
  await mkdir(target, { recursive: true });
  try {
    await install(target);
    // Another test process may have been faster.
    await rename(target, folder).catch(async (error) => {
      if (!await exists(folder)) throw error;
    });
  } finally {
    await rm(target, { recursive: true, force: true });
  }
  return folder;
}

function exists(path: string): Promise<boolean> {
  return access(path).then(() => true, () => false);
}

async function command([program = "", ...args]: readonly string[]): Promise<void> {
  // On Windows npm is a script, which only a shell starts.
  const options = { env, timeout: INSTALL_TIMEOUT_MS, shell: platform === "win32" };
  await run(program, args, options).catch((error: { stderr?: string; message: string }) => {
    const told = error.stderr?.split("\n").filter((line) => /^(ERROR:|npm error) ?\S/.test(line)).slice(0, 3).join(" ");
    const reason = told || error.message;
    throw new Error(`${program} ${args.slice(0, 3).join(" ")} failed: ${reason}`);
  });
}

if (import.meta.main) {
  const say = (line: string) => void stderr.write(`${line}\n`);
  for (const { program, env: variables } of [await ensureDjango(say), await ensureKnex(say)]) {
    stdout.write(`${program} ${JSON.stringify(variables)}\n`);
  }
}
