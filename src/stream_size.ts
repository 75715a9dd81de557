/** Warns when a stream is nearly as large as it may be: then its oldest messages go. */
import type { ChangeStream } from "./change_stream.ts";
import type { Runtime } from "./runtime.ts";

/** The stream's size is compared with its limit this often, ms */
const CHECK_MS = 60_000;
const WARNING_SHARE = 0.8;

/** Runs until aborted. */
export async function watchSizes(
  streams: readonly ChangeStream[],
  { clock, log }: Runtime,
  signal: AbortSignal,
): Promise<void> {
  const warned = new Set<string>();
  while (!signal.aborted) {
    for (const stream of streams) {
      try {
        const { bytes, maxBytes } = await stream.state();
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
