/** A rule that is broken in a copy of src/, to show that the simulation notices. */

export interface Mutant {
  readonly name: string;
  /** what holds when it is not broken */
  readonly rule: string;
  readonly file: string;
  /** stands in the file exactly once */
  readonly from: string;
  readonly to: string;
}

export function mutant(name: string, rule: string, file: string, from: string, to: string): Mutant {
  return { name, rule, file: `src/${file}.ts`, from, to };
}
