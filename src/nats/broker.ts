/** A NATS server with JetStream as the cluster's broker. */
import { jetstreamManager } from "@nats-io/jetstream";
import type { Broker } from "../broker.ts";
import { EXIT, MarmotError } from "../errors.ts";
import type { Log } from "../runtime.ts";
import { JetStreamChangeStream } from "./change_stream.ts";
import { connectNats, type NatsLink, type NatsOptions } from "./connect.ts";
import { openRegistry } from "./registry.ts";
import { ensureStreams, planStreams, STREAM_DEFAULTS, type StreamsOptions } from "./streams.ts";

/** how long JetStream's API may take to make a stream */
const SETUP_TIMEOUT_MS = 5_000;
/** and for what a running node asks: when a stream's leader died the answer is lost, and the next attempt finds another */
const API_TIMEOUT_MS = 3_000;
/** a stream that is smaller than a message loses it as soon as it has it, and stops every node */
const MIN_STREAM_BYTES = 1024 * 1024;
const STREAM_NAME = /^[-\w]+$/;
const SUBJECT = /^[-\w]+(\.[-\w]+)*$/;

/** What is left out is as on the command line: one stream, marmot-changes-1, kept for 7 days and 4 GiB. */
export interface BrokerOptions extends NatsOptions, Partial<StreamsOptions> {}

/**
 * Connects, agrees on the count of shards, and only then makes what streams are missing.
 * @throws BrokerUnreachableError when trying again may help; otherwise MarmotError: usage for options that can't be
 * right, broker for a server that refuses, refused for streams or a shard count that don't fit
 */
export async function connectBroker(given: BrokerOptions, log: Log): Promise<Broker> {
  const options = { ...STREAM_DEFAULTS, ...given };
  requireNames(options);
  requireRoom(options);
  const link = await connectNats(options, log);
  try {
    const setup = await jetstreamManager(link.connection, { checkAPI: false, timeout: SETUP_TIMEOUT_MS });
    const registry = await openRegistry(link, setup, options, log);
    await registry.agreeShards(options.shards);
    const plans = planStreams(options);
    await ensureStreams(setup, plans, options.updateStreams, log);
    const manager = await jetstreamManager(link.connection, { checkAPI: false, timeout: API_TIMEOUT_MS });
    const streams = plans.map(({ name, subject }) => new JetStreamChangeStream(link, manager, name, subject));
    return {
      streams,
      registry,
      description: link.description,
      onConnection: (listener) => follow(link, listener),
      close: () => link.close(),
    };
  } catch (error) {
    await link.close();
    throw error;
  }
}

function follow(link: NatsLink, listener: (connected: boolean) => void): () => void {
  const off = link.onChange(listener);
  listener(link.connected);
  return off;
}

function requireRoom({ shards, retentionBytes }: StreamsOptions): void {
  if (retentionBytes >= shards * MIN_STREAM_BYTES) return;
  throw new MarmotError(
    `Cannot keep ${retentionBytes} bytes in ${shards} streams: each gets an equal part, and ${MIN_STREAM_BYTES} are wanted ` +
      `at least. Give --retention-bytes ${shards}MiB or more.`,
    EXIT.usage,
  );
}

function requireNames({ streamPrefix, subjectPrefix }: StreamsOptions): void {
  if (!STREAM_NAME.test(streamPrefix)) {
    throw new MarmotError(
      `Cannot use the stream prefix ${JSON.stringify(streamPrefix)}: it may hold letters, digits, - and _ only. ` +
        "Give another --stream-prefix.",
      EXIT.usage,
    );
  }
  if (!SUBJECT.test(subjectPrefix)) {
    throw new MarmotError(
      `Cannot use the subject prefix ${JSON.stringify(subjectPrefix)}: it may hold letters, digits, -, _ and dots ` +
        "between them. Give another --subject-prefix.",
      EXIT.usage,
    );
  }
}
