/** "Did you mean": the known name closest to a misspelt one. */

/** Edits up to a third of the word still look like a slip of the hand. */
const EDITS_PER_LETTER = 1 / 3;

/** @returns the closest candidate, or undefined when none is close; dashes, underscores and case don't count */
export function suggest(word: string, candidates: Iterable<string>): string | undefined {
  const wanted = bare(word);
  let best: string | undefined;
  let fewest = Math.max(1, Math.floor(wanted.length * EDITS_PER_LETTER)) + 1;
  for (const candidate of candidates) {
    const known = bare(candidate);
    const edits = wanted.length > 1 && known.startsWith(wanted) ? 1 : editDistance(wanted, known);
    if (edits < fewest) [best, fewest] = [candidate, edits];
  }
  return best;
}

/** " Did you mean X?", or nothing: the end of a message about an unknown name. */
export function didYouMean(word: string, candidates: Iterable<string>): string {
  const found = suggest(word, candidates);
  return found === undefined ? "" : ` Did you mean ${found}?`;
}

function bare(word: string): string {
  return word.toLowerCase().replace(/[-_ ]/g, "");
}

/** Insertions, deletions, replacements and swaps of neighbours that lead from `a` to `b`. */
function editDistance(a: string, b: string): number {
  let beforeLast: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let row = 1; row <= a.length; row++) {
    const current = [row];
    for (let column = 1; column <= b.length; column++) {
      const replaced = at(last, column - 1) + (a[row - 1] === b[column - 1] ? 0 : 1);
      const swapped = row > 1 && column > 1 && a[row - 1] === b[column - 2] && a[row - 2] === b[column - 1]
        ? at(beforeLast, column - 2) + 1
        : Infinity;
      current.push(Math.min(at(last, column) + 1, at(current, column - 1) + 1, replaced, swapped));
    }
    [beforeLast, last] = [last, current];
  }
  return at(last, b.length);
}

function at(row: readonly number[], index: number): number {
  return row[index] ?? Infinity;
}
