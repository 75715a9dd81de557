import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import { chmod, mkdir, readdir, readFile, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { env } from "node:process";
import { test } from "node:test";
import { EXIT, MarmotError } from "../src/errors.ts";
import { type EmbeddedProgram, unpackNatsServer } from "../src/nats/server_embedded.ts";
import { tempFolder } from "./support/tmp.ts";

/** Says that it is a nats-server, which is all that is asked of it here. */
function program(text = "#!/bin/sh\necho 'nats-server: v2.14.5'\n"): EmbeddedProgram {
  const bytes = new TextEncoder().encode(text);
  const sha256 = createHash("sha256").update(bytes).digest("hex");
  return { version: "2.14.5", sha256, bytes: () => Promise.resolve(bytes) };
}

/** Unpacks with this folder as the user's cache. */
async function unpack(cache: string, beside: string, embedded = program()): Promise<string> {
  const before = env.XDG_CACHE_HOME;
  env.XDG_CACHE_HOME = cache;
  try {
    return (await unpackNatsServer(embedded, beside)).path;
  } finally {
    if (before === undefined) delete env.XDG_CACHE_HOME;
    else env.XDG_CACHE_HOME = before;
  }
}

test("the nats-server inside is unpacked once, for its owner only", async () => {
  await using folder = await tempFolder();
  const path = await unpack(folder.file("cache"), folder.file("beside"));
  assert.ok(path.startsWith(folder.file("cache", "marmot", "nats-server-2.14.5-")), path);
  assert.equal((await stat(path)).mode & 0o777, 0o700);
  assert.equal((await stat(dirname(path))).mode & 0o777, 0o700);
  const { ino } = await stat(path);
  assert.equal(await unpack(folder.file("cache"), folder.file("beside")), path);
  assert.equal((await stat(path)).ino, ino);
  assert.deepEqual(await readdir(dirname(path)), ["nats-server"]);
});

test("a nats-server in the cache that is not the one inside is replaced before it runs", async () => {
  await using folder = await tempFolder();
  const path = await unpack(folder.file("cache"), folder.file("beside"));
  await writeFile(path, "#!/bin/sh\necho 'nats-server: v2.14.5'\ntouch ran\n");
  assert.equal(await unpack(folder.file("cache"), folder.file("beside")), path);
  assert.deepEqual(await readFile(path), Buffer.from(await program().bytes()));
});

test("a cache that others may write to becomes its owner's alone", async () => {
  await using folder = await tempFolder();
  const path = await unpack(folder.file("cache"), folder.file("beside"));
  for (const open of [dirname(path), dirname(dirname(path))]) {
    await chmod(open, 0o777);
    await unpack(folder.file("cache"), folder.file("beside"));
    assert.equal((await stat(open)).mode & 0o777, 0o700, open);
  }
});

test("many starts at once all get a whole nats-server, and leave nothing else behind", async () => {
  await using folder = await tempFolder();
  const starts = Array.from({ length: 20 }, () => unpack(folder.file("cache"), folder.file("beside")));
  const paths = new Set(await Promise.all(starts));
  assert.equal(paths.size, 1);
  const [path = ""] = paths;
  assert.deepEqual(await readdir(dirname(path)), ["nats-server"]);
});

test("where the cache can't be used, the nats-server goes beside the database", async () => {
  await using folder = await tempFolder();
  await writeFile(folder.file("file"), "");
  const path = await unpack(folder.file("file"), folder.file("beside"));
  assert.ok(path.startsWith(folder.file("beside", "nats-server-2.14.5-")), path);
});

test("where nothing can be used, the error names each place, what is wrong there, and what to do", async () => {
  await using folder = await tempFolder();
  await writeFile(folder.file("file"), "");
  await mkdir(folder.file("noexec"));
  const unusable = program("#!/bin/sh\nexit 126\n");
  await assert.rejects(unpack(folder.file("noexec"), folder.file("file", "beside"), unusable), (error) => {
    assert.ok(error instanceof MarmotError && error.exitCode === EXIT.broker);
    const places = `${join(folder.file("noexec"), "marmot")}: programs can't be run from there (mounted noexec?); ` +
      `${folder.file("file", "beside")}: a part of the path is a file`;
    assert.ok(error.message.includes(`(${places})`), error.message);
    assert.match(error.message, /Set XDG_CACHE_HOME to .* --nats-server PATH\.$/);
    return true;
  });
});

test("a Marmot whose nats-server was damaged does not run it", async () => {
  await using folder = await tempFolder();
  const damaged = { ...program(), sha256: "0".repeat(64) };
  await assert.rejects(unpack(folder.file("cache"), folder.file("beside"), damaged), /is damaged: download it again/);
});
