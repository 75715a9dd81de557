/** What the Go linker writes into each program: version of Go, modules, settings of the build. */
import { Buffer } from "node:buffer";

const MAGIC = "\xff Go buildinf:";
/** magic, pointer size, flags and padding */
const HEADER_BYTES = 32;
/** around the modules' text */
const SENTINEL_BYTES = 16;

export interface GoModule {
  readonly path: string;
  readonly version: string;
}

export interface GoBuildInfo {
  /** such as "go1.26.8" */
  readonly go: string;
  /** the program's own module first */
  readonly modules: readonly GoModule[];
  /** such as CGO_ENABLED → 0 */
  readonly settings: ReadonlyMap<string, string>;
}

/** @returns undefined when it is no program of Go */
export function goBuildInfo(program: Uint8Array): GoBuildInfo | undefined {
  const bytes = Buffer.from(program.buffer, program.byteOffset, program.length);
  const at = bytes.indexOf(Buffer.from(MAGIC, "latin1"));
  if (at < 0) return undefined;
  const go = readString(bytes, at + HEADER_BYTES);
  const text = readString(bytes, go.end);
  const lines = text.value.subarray(SENTINEL_BYTES, -SENTINEL_BYTES).toString("utf8").split("\n");
  const fields = lines.map((line) => line.split("\t"));
  const modules = fields.filter(([kind]) => kind === "mod" || kind === "dep");
  const settings = fields.filter(([kind]) => kind === "build").map(([, setting = ""]) => {
    const equals = setting.indexOf("=");
    return [setting.slice(0, equals), setting.slice(equals + 1)] as const;
  });
  return {
    go: go.value.toString("utf8"),
    modules: modules.map(([, path = "", version = ""]) => ({ path, version })),
    settings: new Map(settings),
  };
}

/** A length as a varint, then as many bytes. */
function readString(bytes: Buffer, start: number): { value: Buffer; end: number } {
  let length = 0;
  let at = start;
  for (let shift = 0;; shift += 7) {
    const byte = bytes[at++] ?? 0;
    length |= (byte & 0x7f) << shift;
    if (byte < 0x80) break;
  }
  return { value: bytes.subarray(at, at + length), end: at + length };
}
