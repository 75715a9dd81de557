/** The embedded broker's files beside the database: its folder, its state, the credentials, and its configuration. */
import { randomBytes } from "node:crypto";
import { chmod, mkdir, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { nkeys } from "@nats-io/transport-node";
import * as v from "valibot";
import { EXIT, MarmotError } from "../errors.ts";

const FOLDER_MODE = 0o700;
const FILE_MODE = 0o600;
const SECRET_BYTES = 24;
const NAME_BYTES = 4;
const NKEY_SEED = /^SU[A-Z2-7]{56}$/m;
const SECRET = /^[\w-]{16,}$/;

/** How a broker's streams are kept: by itself, by a cluster, or at the hub of a leaf node. */
export type BrokerMode = "single" | "cluster" | "leaf";

const stateSchema = v.object({
  serverName: v.string(),
  mode: v.picklist(["single", "cluster", "leaf"]),
  /** where clients were served last; undefined when the address was asked for */
  port: v.optional(v.number()),
  /** JetStream domain of a leaf node's hub */
  hubDomain: v.optional(v.string()),
});

/** What has to be the same at the next start. */
export type BrokerState = v.InferOutput<typeof stateSchema>;

export interface BrokerFiles {
  /** `<database>-marmot/nats` */
  readonly folder: string;
  readonly configuration: string;
  readonly state: string;
  /** JetStream's, which names that folder itself */
  readonly store: string;
  readonly log: string;
  readonly pid: string;
  /** nkey seed of the one user that the broker knows; clients and other nodes use it */
  readonly credentials: string;
  /** shared by the brokers of a cluster */
  readonly clusterSecret: string;
}

/** @param folder `<database>-marmot`, absolute */
export function brokerFiles(folder: string): BrokerFiles {
  const broker = join(folder, "nats");
  return {
    folder: broker,
    configuration: join(broker, "nats-server.conf"),
    state: join(broker, "broker.json"),
    store: join(broker, "jetstream"),
    log: join(broker, "nats-server.log"),
    pid: join(broker, "nats-server.pid"),
    credentials: join(folder, "credentials"),
    clusterSecret: join(folder, "cluster-secret"),
  };
}

/** Makes the folders, for their owner only. */
export async function makeFolders(folder: string, files: BrokerFiles): Promise<void> {
  for (const path of [folder, files.folder]) {
    await mkdir(path, { recursive: true, mode: FOLDER_MODE });
    await chmod(path, FOLDER_MODE);
  }
}

/** What the last start left. @throws MarmotError (broker) when it can't be understood */
export async function readState(files: BrokerFiles): Promise<BrokerState | undefined> {
  const text = await readIfThere(files.state);
  if (text === undefined) return undefined;
  try {
    return v.parse(stateSchema, JSON.parse(text));
  } catch (cause) {
    throw new MarmotError(
      `Cannot start the embedded broker: ${files.state} is damaged. Put back a copy of it, or remove it if this ` +
        "broker is not part of a cluster.",
      EXIT.broker,
      { cause },
    );
  }
}

export async function writeState(files: BrokerFiles, state: BrokerState): Promise<void> {
  await replaceFile(files.state, `${JSON.stringify(state)}\n`);
}

/** A name that no other broker has. */
export function newServerName(): string {
  return `marmot-${randomBytes(NAME_BYTES).toString("hex")}`;
}

/** Streams that a broker keeps here; they are of the mode it ran in. */
export async function hasStreams(files: BrokerFiles): Promise<boolean> {
  const streams = await readdir(join(files.store, "$G", "streams")).catch(() => []);
  return streams.length > 0;
}

/**
 * The public key of the broker's user; the first time makes its seed.
 * @throws MarmotError (broker) when the file holds no nkey user seed
 */
export async function userPublicKey(files: BrokerFiles): Promise<string> {
  const text = await readIfThere(files.credentials);
  if (text === undefined) {
    const user = nkeys.createUser();
    await replaceFile(files.credentials, `${new TextDecoder().decode(user.getSeed())}\n`);
    return user.getPublicKey();
  }
  await chmod(files.credentials, FILE_MODE);
  try {
    const seed = NKEY_SEED.exec(text)?.[0] ?? "";
    return nkeys.fromSeed(new TextEncoder().encode(seed)).getPublicKey();
  } catch {
    throw new MarmotError(
      `Cannot start the embedded broker: ${files.credentials} holds no nkey user seed (SU…). ` +
        "Put back the file that was there; if it is lost, remove it, and give the new one to all nodes.",
      EXIT.broker,
    );
  }
}

/**
 * The secret by which the brokers of a cluster know each other; the first time makes it.
 * @returns whether it was made now, so that the user can be told to share it
 * @throws MarmotError (broker) when the file holds something else
 */
export async function clusterSecret(files: BrokerFiles): Promise<{ secret: string; made: boolean }> {
  const text = await readIfThere(files.clusterSecret);
  if (text === undefined) {
    const secret = randomBytes(SECRET_BYTES).toString("base64url");
    await replaceFile(files.clusterSecret, `${secret}\n`);
    return { secret, made: true };
  }
  await chmod(files.clusterSecret, FILE_MODE);
  const secret = text.trim();
  if (SECRET.test(secret)) return { secret, made: false };
  throw new MarmotError(
    `Cannot start the embedded broker: ${files.clusterSecret} holds no cluster secret (one line of 16 or more letters, ` +
      "digits, dashes and underscores). Copy the file of another node of this cluster.",
    EXIT.broker,
  );
}

export async function writeConfiguration(files: BrokerFiles, text: string): Promise<void> {
  await replaceFile(files.configuration, text);
}

/** In one step, readable by its owner only, from its first byte on. */
async function replaceFile(path: string, text: string): Promise<void> {
  const temporary = `${path}.new`;
  await rm(temporary, { force: true });
  await writeFile(temporary, text, { mode: FILE_MODE, flag: "wx", flush: true });
  await rename(temporary, path);
}

async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
    throw error;
  }
}
