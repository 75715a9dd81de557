/** What holds when nothing else is asked for: the same for the library and the command line. */

export const DEFAULT_SHARDS = 1;
export const DEFAULT_REPLICAS = 1;
export const DEFAULT_STREAM_PREFIX = "marmot-changes";
export const DEFAULT_SUBJECT_PREFIX = "marmot.changes";
/** 7 days */
export const DEFAULT_RETENTION_AGE_MS = 7 * 24 * 60 * 60 * 1000;
/** 4 GiB */
export const DEFAULT_RETENTION_BYTES = 4 * 2 ** 30;
