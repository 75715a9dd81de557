/** The JetStream streams of a cluster: one for each shard, made when missing, compared when there, changed only when told. */
import {
  DiscardPolicy,
  type JetStreamManager,
  RetentionPolicy,
  StorageType,
  type StreamConfig,
  type StreamInfo,
} from "@nats-io/jetstream";
import { nanos } from "@nats-io/transport-node";
import {
  DEFAULT_REPLICAS,
  DEFAULT_RETENTION_AGE_MS,
  DEFAULT_RETENTION_BYTES,
  DEFAULT_SHARDS,
  DEFAULT_STREAM_PREFIX,
  DEFAULT_SUBJECT_PREFIX,
} from "../defaults.ts";
import { EXIT, MarmotError } from "../errors.ts";
import type { Log, LogFields } from "../runtime.ts";
import { JETSTREAM, jetStreamCode, jetStreamFailure } from "./failure.ts";

const NANOS_PER_SECOND = 1e9;
const UNLIMITED = -1;
const UPDATE_FLAG = "--update-streams";

export interface StreamsOptions {
  readonly streamPrefix: string;
  readonly subjectPrefix: string;
  readonly shards: number;
  readonly replicas: number;
  readonly retentionAgeMs: number;
  /** of all streams together: each gets an equal part */
  readonly retentionBytes: number;
  /** change existing streams that differ */
  readonly updateStreams: boolean;
}

export const STREAM_DEFAULTS: StreamsOptions = {
  streamPrefix: DEFAULT_STREAM_PREFIX,
  subjectPrefix: DEFAULT_SUBJECT_PREFIX,
  shards: DEFAULT_SHARDS,
  replicas: DEFAULT_REPLICAS,
  retentionAgeMs: DEFAULT_RETENTION_AGE_MS,
  retentionBytes: DEFAULT_RETENTION_BYTES,
  updateStreams: false,
};

/** What one stream should be. */
export interface StreamPlan {
  readonly name: string;
  readonly subject: string;
  readonly replicas: number;
  readonly retentionAgeMs: number;
  readonly retentionBytes: number;
}

/** A setting of an existing stream that is not as asked. */
interface Difference {
  readonly setting: string;
  readonly found: string;
  readonly wanted: string;
  /** the guarantees don't hold with it, so it is not enough to warn */
  readonly harmful: boolean;
  /** what an update changes; undefined when JetStream can't change it */
  readonly change: Partial<StreamConfig> | undefined;
}

/** The plans, shard 1 first. */
export function planStreams(options: StreamsOptions): StreamPlan[] {
  return Array.from({ length: options.shards }, (_, index) => ({
    name: `${options.streamPrefix}-${index + 1}`,
    subject: `${options.subjectPrefix}-${index + 1}`,
    replicas: options.replicas,
    retentionAgeMs: options.retentionAgeMs,
    retentionBytes: Math.floor(options.retentionBytes / options.shards),
  }));
}

/**
 * Makes what is missing and compares what is there. With `update`, differences are put right; without, those that only
 * concern retention and replicas are warned of.
 * @throws MarmotError (refused) for a stream that can't hold what Marmot promises, naming setting, values and flag;
 * MarmotError (broker) or BrokerUnreachableError when JetStream can't make one
 */
export async function ensureStreams(
  manager: JetStreamManager,
  plans: readonly StreamPlan[],
  update: boolean,
  log: Log,
): Promise<void> {
  for (const plan of plans) {
    const existing = await findStream(manager, plan.name) ?? await createStream(manager, plan, log);
    if (existing !== undefined) await reconcile(manager, existing, plan, update, log);
  }
}

/** @returns undefined when there is none */
export async function findStream(manager: JetStreamManager, name: string): Promise<StreamInfo | undefined> {
  try {
    return await manager.streams.info(name);
  } catch (error) {
    if (jetStreamCode(error) === JETSTREAM.streamNotFound) return undefined;
    throw jetStreamFailure(`look up the stream ${name}`, error);
  }
}

/** @returns undefined, or the stream that another node made meanwhile in another way */
async function createStream(manager: JetStreamManager, plan: StreamPlan, log: Log): Promise<StreamInfo | undefined> {
  try {
    await manager.streams.add(configOf(plan));
    log.info("Stream created", { stream: plan.name, subject: plan.subject, replicas: plan.replicas });
    return undefined;
  } catch (error) {
    const code = jetStreamCode(error);
    if (code === JETSTREAM.nameInUse) return await findStream(manager, plan.name);
    if (code === JETSTREAM.subjectOverlap) {
      throw new MarmotError(
        `Cannot create the stream ${plan.name}: its subject ${plan.subject} belongs to another stream already. ` +
          "Give another --subject-prefix, or take the subject from that stream.",
        EXIT.refused,
        { cause: error },
      );
    }
    throw jetStreamFailure(`create the stream ${plan.name}`, error);
  }
}

/** max_age 0 is JetStream's unlimited; what matters is that the oldest go first and nothing else removes messages. */
function configOf(plan: StreamPlan): Partial<StreamConfig> & { name: string } {
  return {
    name: plan.name,
    subjects: [plan.subject],
    storage: StorageType.File,
    retention: RetentionPolicy.Limits,
    discard: DiscardPolicy.Old,
    max_age: nanos(plan.retentionAgeMs),
    max_bytes: plan.retentionBytes,
    max_msgs: UNLIMITED,
    num_replicas: plan.replicas,
    allow_direct: true,
  };
}

async function reconcile(
  manager: JetStreamManager,
  info: StreamInfo,
  plan: StreamPlan,
  update: boolean,
  log: Log,
): Promise<void> {
  const differences = compareStream(info.config, plan);
  for (const difference of differences) {
    if (difference.harmful && (!update || difference.change === undefined)) throw refusal(plan.name, difference);
  }
  if (differences.length === 0) return;
  if (!update) {
    for (const difference of differences) {
      log.warn("Stream differs from what was asked for, and stays as it is", {
        ...fieldsOf(plan.name, difference),
        flag: UPDATE_FLAG,
      });
    }
    return;
  }
  const change: Partial<StreamConfig> = Object.assign({}, ...differences.map((difference) => difference.change));
  try {
    await manager.streams.update(plan.name, change);
  } catch (error) {
    throw jetStreamFailure(`update the stream ${plan.name}`, error);
  }
  for (const difference of differences) log.info("Stream updated", fieldsOf(plan.name, difference));
}

function fieldsOf(stream: string, { setting, found, wanted }: Difference): LogFields {
  return { stream, setting, found, wanted };
}

function refusal(stream: string, { setting, found, wanted, change }: Difference): MarmotError {
  const advice = change === undefined
    ? "JetStream can't change this: give another --stream-prefix, or delete the stream if nothing needs it."
    : `Give ${UPDATE_FLAG} to change it, or another --stream-prefix.`;
  return new MarmotError(
    `Cannot use the stream ${stream}: its ${setting} is ${found}, and ${wanted} is needed. ${advice}`,
    EXIT.refused,
  );
}

/** How an existing stream differs, harmful differences first. */
export function compareStream(config: StreamConfig, plan: StreamPlan): Difference[] {
  return [...harmfulDifferences(config, plan), ...retentionDifferences(config, plan)];
}

function harmfulDifferences(config: StreamConfig, plan: StreamPlan): Difference[] {
  const differences: Difference[] = [];
  const need = (setting: string, found: string, wanted: string, change: Partial<StreamConfig> | undefined): void => {
    if (found !== wanted) differences.push({ setting, found, wanted, harmful: true, change });
  };
  const { discard } = config;
  need("subject", (config.subjects ?? []).join(", ") || "none", plan.subject, { subjects: [plan.subject] });
  need("retention policy", config.retention, RetentionPolicy.Limits, undefined);
  need("storage", config.storage, StorageType.File, undefined);
  need("discard policy", discard, DiscardPolicy.Old, { discard: DiscardPolicy.Old });
  need("no_ack", String(config.no_ack ?? false), "false", { no_ack: false });
  need("max_msg_size", bytes(config.max_msg_size), bytes(UNLIMITED), { max_msg_size: UNLIMITED });
  need("sealed", String(config.sealed ?? false), "false", undefined);
  need("mirror", config.mirror?.name ?? "none", "none", undefined);
  need("sources", config.sources?.map((source) => source.name).join(", ") || "none", "none", { sources: [] });
  need("subject transform", config.subject_transform?.dest ?? "none", "none", undefined);
  return differences;
}

function retentionDifferences(config: StreamConfig, plan: StreamPlan): Difference[] {
  const differences: Difference[] = [];
  const compare = (setting: string, found: string, wanted: string, change: Partial<StreamConfig>): void => {
    if (found !== wanted) differences.push({ setting, found, wanted, harmful: false, change });
  };
  const maxAge = nanos(plan.retentionAgeMs);
  compare("max_age", seconds(config.max_age), seconds(maxAge), { max_age: maxAge });
  compare("max_bytes", bytes(config.max_bytes), bytes(plan.retentionBytes), { max_bytes: plan.retentionBytes });
  compare("max_msgs", messages(config.max_msgs), messages(UNLIMITED), { max_msgs: UNLIMITED });
  compare("max_msgs_per_subject", messages(config.max_msgs_per_subject), messages(UNLIMITED), {
    max_msgs_per_subject: UNLIMITED,
  });
  compare("replicas", String(config.num_replicas), String(plan.replicas), { num_replicas: plan.replicas });
  return differences;
}

function seconds(ns: number): string {
  return ns > 0 ? `${ns / NANOS_PER_SECOND} s` : "unlimited";
}

function bytes(count: number): string {
  return count > 0 ? `${count} bytes` : "unlimited";
}

function messages(count: number | undefined): string {
  return count !== undefined && count > 0 ? `${count} messages` : "unlimited";
}
