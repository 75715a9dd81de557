import assert from "node:assert/strict";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { test } from "node:test";
import { MarmotError } from "../src/errors.ts";
import { connectAs, eventually, ownAddress, startEmbedded, type TestClient } from "./support/embedded.ts";
import { runProgram } from "./support/process.ts";
import { type SkippableTest, skipTest } from "./support/skip.ts";
import { type TempFolder, tempFolder } from "./support/tmp.ts";

const DISK_BYTES = 32 * 1024 * 1024;
const BALLAST_BYTES = 20 * 1024 * 1024;
const MESSAGE_BYTES = 500_000;

/** A small disk at `<folder>/disk`; undefined, and the test skipped, where one can't be mounted. */
async function smallDisk(
  context: SkippableTest,
  folder: TempFolder,
): Promise<(AsyncDisposable & { path: string }) | undefined> {
  const path = folder.file("disk");
  await mkdir(path);
  const mount = await runProgram(["mount", "-t", "tmpfs", "-o", `size=${DISK_BYTES}`, "tmpfs", path]).catch(String);
  if (typeof mount === "string" || mount.code !== 0) {
    skipTest(context, "a small disk can't be mounted here: that takes Linux and root");
    return undefined;
  }
  return { path, [Symbol.asyncDispose]: async () => void await runProgram(["umount", path]) };
}

/** Publishes until nothing more is acknowledged. @returns how many were */
async function fill({ jetstream }: TestClient): Promise<number> {
  for (let count = 0;; count++) {
    const stored = await jetstream.publish("s", new Uint8Array(MESSAGE_BYTES)).then(() => true, () => false);
    if (!stored) return count;
    assert.ok(count * MESSAGE_BYTES < DISK_BYTES);
  }
}

test("on a full disk the broker says so, and goes on once there is room, with all it acknowledged", async (context) => {
  await using folder = await tempFolder();
  await using disk = await smallDisk(context, folder);
  if (disk === undefined) return;
  const ballast = folder.file("disk", "ballast");
  await writeFile(ballast, new Uint8Array(BALLAST_BYTES));
  await using embedded = await startEmbedded({
    folder: folder.file("disk", "my.db-marmot"),
    listen: await ownAddress(),
  });
  await using client = await connectAs(embedded.server.url, embedded.server.credentialsFile);
  // Larger than the disk: what a stream may hold is no reason to refuse it.
  await client.manager.streams.add({ name: "s", subjects: ["s"], max_bytes: 4 * 1024 * 1024 * 1024 });
  const stored = await fill(client);
  await embedded.log.told(/error The embedded broker cannot store changes\. .* reason=.*no space left/);
  await rm(ballast);
  await embedded.log.told(/info The embedded broker runs again/);
  assert.equal((await eventually(() => client.manager.streams.info("s"))).state.messages, stored);
  assert.equal((await client.jetstream.publish("s", new Uint8Array(MESSAGE_BYTES))).seq, stored + 1);
});

test("a disk that is full at the start is named", async (context) => {
  await using folder = await tempFolder();
  await using disk = await smallDisk(context, folder);
  if (disk === undefined) return;
  await runProgram(["dd", "if=/dev/zero", `of=${folder.file("disk", "ballast")}`, "bs=4096"]);
  await assert.rejects(
    startEmbedded({ folder: folder.file("disk", "my.db-marmot"), listen: await ownAddress() }),
    (error) => {
      assert.ok(error instanceof MarmotError);
      assert.match(
        error.message,
        /^Cannot start the embedded broker: .*disk.* (is full|can't be used: .*no space left)/i,
      );
      return true;
    },
  );
});
