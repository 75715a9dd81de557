/**
 * Every option there is, once: the flags, the MARMOT_* variables, the keys of the TOML file, docs/config.toml, --help and
 * `marmot config` are all made from this schema. To add an option, add an entry; `marmot config --template` then writes
 * docs/config.toml.
 */
import * as v from "valibot";
import {
  type About,
  boolean,
  choice,
  duration,
  type Form,
  hostPort,
  matching,
  option,
  size,
  string,
  strings,
  urls,
  wholeNumber,
} from "./config/kinds.ts";
import { formatDuration, formatSize } from "./config/values.ts";
import {
  DEFAULT_REPLICAS,
  DEFAULT_RETENTION_AGE_MS,
  DEFAULT_RETENTION_BYTES,
  DEFAULT_SHARDS,
  DEFAULT_STREAM_PREFIX,
  DEFAULT_SUBJECT_PREFIX,
} from "./defaults.ts";

const DEFAULT_CLUSTER_NAME = "marmot";

const MAX_SHARDS = 256;
/** JetStream's own limit */
const MAX_REPLICAS = 5;
/** shorter, and a node that restarts falls out of the stream */
const MIN_RETENTION_AGE = "1m";
const MAX_RETENTION_AGE = "3650d";
const MIN_RETENTION_BYTES = "1MiB";
const MAX_RETENTION_BYTES = "8000TiB";

export const VARIABLE_PREFIX = "MARMOT_";

const DATABASE = "Database";
const TABLES = "Which tables are replicated";
const STREAMS = "Streams (the same on all nodes)";
const EXTERNAL = "A NATS server of your own";
const EMBEDDED = "The embedded broker, which runs when no nats_url is given";
const OUTPUT = "Log and configuration";

export const configSchema = v.object({
  dbPath: option(string("FILE"), {
    group: DATABASE,
    help: "the SQLite database to replicate",
    example: "my.db",
    path: true,
  }),
  create: option(boolean(), {
    group: DATABASE,
    help: "start with an empty database where there is no file (otherwise that is an error)",
  }),
  wal: option(boolean(), {
    group: DATABASE,
    help: "switch the database to WAL mode, in which readers and writers don't wait for each other",
  }),
  backfill: option(boolean(), {
    group: DATABASE,
    help: "publish the rows the database already has; for the first node only, on its first start",
  }),
  rowidTables: option(boolean(), {
    group: TABLES,
    shared: true,
    help: "replicate tables without a primary key too, by rowid: rows of two nodes can take each other's place",
  }),
  include: option(strings("PATTERN"), {
    group: TABLES,
    shared: true,
    help: "only tables that match one of these patterns (* is any text, ? is one character)",
    example: ["users", "order_*"],
  }),
  exclude: option(strings("PATTERN"), {
    group: TABLES,
    shared: true,
    help: "no tables that match one of these patterns",
    example: ["cache_*"],
  }),
  shards: option(wholeNumber(1, MAX_SHARDS, DEFAULT_SHARDS), {
    group: STREAMS,
    shared: true,
    help: "how many streams share the rows; 1 keeps every transaction whole on all nodes",
  }),
  replicas: option(wholeNumber(1, MAX_REPLICAS, DEFAULT_REPLICAS), {
    group: STREAMS,
    shared: true,
    help: "how many servers of a NATS cluster store each stream",
  }),
  streamPrefix: option(
    matching("NAME", /^[\w-]{1,32}$/, "1 to 32 letters, digits, dashes or underscores", DEFAULT_STREAM_PREFIX),
    { group: STREAMS, shared: true, help: "streams are named NAME-1, NAME-2, …" },
  ),
  subjectPrefix: option(
    matching(
      "NAME",
      /^[\w-]+(\.[\w-]+)*$/,
      "words of letters, digits, dashes and underscores, with dots between",
      DEFAULT_SUBJECT_PREFIX,
    ),
    { group: STREAMS, shared: true, help: "subjects are named NAME-1, NAME-2, …" },
  ),
  retentionAge: option(duration(MIN_RETENTION_AGE, MAX_RETENTION_AGE, formatDuration(DEFAULT_RETENTION_AGE_MS)), {
    group: STREAMS,
    shared: true,
    help: "how long changes are kept; a node that was away for longer needs a fresh clone",
  }),
  retentionBytes: option(size(MIN_RETENTION_BYTES, MAX_RETENTION_BYTES, formatSize(DEFAULT_RETENTION_BYTES)), {
    group: STREAMS,
    shared: true,
    help:
      "how large all streams together may become: each drops its oldest changes when it has its part, 1MiB at least",
  }),
  updateStreams: option(boolean(), {
    group: STREAMS,
    help: "change existing streams to the settings above, instead of only comparing them",
  }),
  natsUrl: option(urls("nats", "tls"), {
    group: EXTERNAL,
    shared: true,
    help: "a server's address; several for a cluster",
    example: ["nats://nats.example:4222"],
    url: true,
    commas: true,
  }),
  natsUser: option(string("USER"), { group: EXTERNAL, shared: true, help: "user name", example: "marmot" }),
  natsPassword: option(string("PASSWORD"), {
    group: EXTERNAL,
    help: "the user's password",
    example: "a secret",
    secret: true,
    noFlag: true,
  }),
  natsPasswordFile: option(string("FILE"), {
    group: EXTERNAL,
    shared: true,
    help: "file that holds the user's password",
    example: "nats.password",
    path: true,
  }),
  natsToken: option(string("TOKEN"), {
    group: EXTERNAL,
    help: "token, instead of a user",
    example: "a secret",
    secret: true,
    noFlag: true,
  }),
  natsTokenFile: option(string("FILE"), {
    group: EXTERNAL,
    shared: true,
    help: "file that holds the token",
    example: "nats.token",
    path: true,
  }),
  natsCredentials: option(string("FILE"), {
    group: EXTERNAL,
    shared: true,
    help: "credentials file: NATS .creds, or an nkey seed as the embedded broker of another node makes it",
    example: "marmot.creds",
    path: true,
  }),
  natsCa: option(string("FILE"), {
    group: EXTERNAL,
    shared: true,
    help: "certificate of the authority that signed the servers' certificates (PEM)",
    example: "ca.pem",
    path: true,
  }),
  natsCert: option(string("FILE"), {
    group: EXTERNAL,
    shared: true,
    help: "client certificate (PEM), with nats_key",
    example: "client.pem",
    path: true,
  }),
  natsKey: option(string("FILE"), {
    group: EXTERNAL,
    shared: true,
    help: "key of the client certificate (PEM)",
    example: "client-key.pem",
    path: true,
  }),
  natsServer: option(string("PATH"), {
    group: EMBEDDED,
    help: "the nats-server program to run",
    unset: "the one in PATH or in this user's cache, if its version fits",
    example: "/usr/local/bin/nats-server",
    path: true,
  }),
  listen: option(hostPort(), {
    group: EMBEDDED,
    help: "where other nodes connect",
    unset: "127.0.0.1:4222, or a free port when that one is busy; the same again at each start",
    example: "0.0.0.0:4222",
  }),
  clusterName: option(
    matching("NAME", /^[\w-]{1,64}$/, "1 to 64 letters, digits, dashes or underscores", DEFAULT_CLUSTER_NAME),
    { group: EMBEDDED, help: "name of the cluster that the embedded brokers form" },
  ),
  clusterAddr: option(hostPort(), {
    group: EMBEDDED,
    help: "where the embedded brokers of other nodes connect to form a cluster",
    example: "0.0.0.0:6222",
  }),
  clusterPeers: option(urls("nats", "nats-route", "tls"), {
    group: EMBEDDED,
    help: "cluster addresses of the other embedded brokers",
    example: ["nats://node-b:6222", "nats://node-c:6222"],
    url: true,
    commas: true,
  }),
  leafAddr: option(hostPort(), {
    group: EMBEDDED,
    help: "where the embedded brokers of other nodes connect as leaf nodes, which store nothing themselves",
    example: "0.0.0.0:7422",
  }),
  leafUrl: option(urls("nats", "nats-leaf", "tls", "ws", "wss"), {
    group: EMBEDDED,
    help: "be a leaf node of the NATS server at this address, with nats_credentials, and use its streams",
    example: ["nats-leaf://hub.example:7422"],
    url: true,
    commas: true,
  }),
  logFormat: option(choice("FORMAT", "text", ["text", "json"]), {
    group: OUTPUT,
    help: "text or json, on stderr",
  }),
  logLevel: option(choice("LEVEL", "info", ["debug", "info", "warn", "error"]), {
    group: OUTPUT,
    help: "debug, info, warn or error: this and what is graver",
  }),
  config: option(string("FILE"), {
    group: OUTPUT,
    help: "read this TOML file; variables and flags win over it",
    path: true,
    noFile: true,
  }),
});

export type Config = v.InferOutput<typeof configSchema>;
export type OptionKey = keyof Config;

/** An entry of the schema with the names it has elsewhere. */
export interface ConfigOption extends Form, About {
  readonly key: OptionKey;
  /** `db-path` */
  readonly flag: string;
  /** `MARMOT_DB_PATH` */
  readonly variable: string;
  /** `db_path` */
  readonly tomlKey: string;
  /** as it would be written in the file; undefined when there is none */
  readonly default: unknown;
  readonly schema: v.GenericSchema;
}

/** All options, in the order of the schema. */
export const OPTIONS: readonly ConfigOption[] = Object.entries(configSchema.entries).map(([key, schema]) => {
  const words = key.replace(/[A-Z]/g, (capital) => ` ${capital.toLowerCase()}`);
  return {
    key: key as OptionKey,
    flag: words.replaceAll(" ", "-"),
    variable: VARIABLE_PREFIX + words.replaceAll(" ", "_").toUpperCase(),
    tomlKey: words.replaceAll(" ", "_"),
    default: v.getDefault(schema),
    schema,
    ...v.getMetadata(schema),
  };
});
