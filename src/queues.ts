/** Messages that wait for apply, of all shards, and the order in which a transaction takes them. */
import type { Delivery } from "./acceptance.ts";

/** By shard, in order; whose turn it is comes first. None is empty. */
export type Queues = ReadonlyMap<number, readonly Delivery[]>;

/** @param turn the shard that comes first, if it has something: a transaction may have time for few */
export function fromTurn(queues: readonly (readonly Delivery[])[], turn: number): Queues {
  const waiting = new Map<number, readonly Delivery[]>();
  for (let place = 0; place < queues.length; place++) {
    const shard = (turn + place) % queues.length;
    if (queues[shard]!.length > 0) waiting.set(shard, queues[shard]!);
  }
  return waiting;
}

/**
 * A message of each shard in turn: what was made together comes together, and is close to each other in the file. Where a
 * batch in several parts ends, and takes effect, it is the first of its transaction, or the shard waits for the next one.
 */
export function* inTurn(queues: Queues): Generator<[shard: number, delivery: Delivery]> {
  const left = new Map(queues);
  let isFirst = true;
  for (let place = 0; left.size > 0; place++) {
    for (const [shard, deliveries] of left) {
      const delivery = deliveries[place];
      if (delivery === undefined || (!isFirst && endsParts(delivery))) {
        left.delete(shard);
        continue;
      }
      yield [shard, delivery];
      isFirst = false;
    }
  }
}

function endsParts({ message, verdict }: Delivery): boolean {
  return verdict.accepted && message.last && message.part > 1;
}
