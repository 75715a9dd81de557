/** Looks at the streams from time to time: how far they go, and whether one is nearly as large as it may be. */
import type { ChangeStream } from "./change_stream.ts";
import type { Runtime } from "./runtime.ts";

/** The stream's size is compared with its limit this often, ms */
const CHECK_MS = 60_000;
const WARNING_SHARE = 0.8;

/**
 * Warns of a stream that is nearly full: its oldest messages will go. Runs until aborted.
 * @param ends gets the last sequence of each stream
 */
export async function watchSizes(
  streams: readonly ChangeStream[],
  ends: Map<ChangeStream, number>,
  { clock, log }: Runtime,
  signal: AbortSignal,
): Promise<void> {
  const warned = new Set<string>();
  while (!signal.aborted) {
    for (const stream of streams) {
      try {
        const { lastSequence, bytes, maxBytes } = await stream.state();
        ends.set(stream, lastSequence);
        const full = maxBytes > 0 && bytes > maxBytes * WARNING_SHARE;
        if (full && !warned.has(stream.name)) {
          log.warn(
            "stream is nearly full: its oldest messages will be dropped, and a node that has not read them must be cloned anew",
            {
              stream: stream.name,
              bytes,
              maxBytes,
            },
          );
        }
        if (full) warned.add(stream.name);
        else warned.delete(stream.name);
      } catch (error) {
        log.debug("stream size is not known", { stream: stream.name, error: String(error) });
      }
    }
    await clock.sleep(CHECK_MS, signal).catch(() => {});
  }
}
