/** Marmot broke a promise. */
export class Violation extends Error {
  override name = "Violation";
}
