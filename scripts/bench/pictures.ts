/** Bar charts as SVG, made of the figures of results. */
import { type FigureName, FIGURES, median, type Result } from "./results.ts";
import { format, unitShown } from "./tables.ts";

const WIDTH = 760;
const LABEL_WIDTH = 300;
const VALUE_WIDTH = 90;
const BAR_HEIGHT = 16;
const BAR_GAP = 4;
const GROUP_GAP = 14;
const TITLE_HEIGHT = 34;
const CHARACTER_WIDTH = 6.6;
/** told apart without colour vision too; readable on white and on black */
const COLOURS = ["#4477aa", "#cc6677", "#228833", "#aa8800"];
const INK = "#808080";

export interface Chart {
  readonly title: string;
  readonly figures: readonly FigureName[];
  /** draws the bars by their logarithm, from this value on */
  readonly logarithmicFrom?: number;
}

/** A bar for each figure of each result, with a line from the lowest to the highest round. */
export function barChart({ title, figures, logarithmicFrom }: Chart, results: readonly Result[]): string {
  const groups = results.map((result) => ({
    label: `${result.variant} · ${result.system.replace(/^Marmot, /, "")}`,
    bars: figures.flatMap((name, place) => {
      const values = result.figures[name];
      return values === undefined ? [] : [{ name, place, values }];
    }),
  })).filter(({ bars }) => bars.length > 0);
  const highest = Math.max(...groups.flatMap(({ bars }) => bars.flatMap(({ values }) => values)));
  const scale = scaleTo(highest, logarithmicFrom);
  const parts: string[] = [text(0, 16, title, "bold")];
  let y = TITLE_HEIGHT;
  for (const { label, bars } of groups) {
    parts.push(text(0, y + BAR_HEIGHT - 4, label));
    for (const bar of bars) {
      parts.push(...barParts(bar.values, bar.name, COLOURS[bar.place % COLOURS.length] ?? INK, y, scale));
      y += BAR_HEIGHT + BAR_GAP;
    }
    y += GROUP_GAP;
  }
  if (figures.length > 1) {
    let x = 0;
    for (const [place, name] of figures.entries()) {
      const legend = FIGURES[name].legend;
      parts.push(
        `<rect x="${x.toFixed(1)}" y="${y}" width="12" height="12" fill="${COLOURS[place % COLOURS.length]}"/>`,
      );
      parts.push(text(x + 18, y + 11, legend));
      x += 36 + legend.length * CHARACTER_WIDTH;
    }
    y += BAR_HEIGHT + BAR_GAP;
  }
  const head = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${y}" width="${WIDTH}" height="${y}" ` +
    `font-family="sans-serif" font-size="12" role="img" aria-label="${escaped(title)}">`;
  return `${head}\n${parts.join("\n")}\n</svg>\n`;
}

function scaleTo(highest: number, logarithmicFrom: number | undefined): (value: number) => number {
  const width = WIDTH - LABEL_WIDTH - VALUE_WIDTH;
  if (logarithmicFrom === undefined) return (value) => (value / highest) * width;
  const decades = Math.log10(highest / logarithmicFrom);
  return (value) => Math.max(0, Math.log10(Math.max(value, logarithmicFrom) / logarithmicFrom) / decades) * width;
}

function barParts(
  values: readonly number[],
  name: FigureName,
  colour: string,
  y: number,
  scale: (value: number) => number,
): string[] {
  const value = median(values);
  const [low, high] = [Math.min(...values), Math.max(...values)].map((end) => (LABEL_WIDTH + scale(end)).toFixed(1));
  const middle = y + BAR_HEIGHT / 2;
  const { unit } = FIGURES[name];
  return [
    `<rect x="${LABEL_WIDTH}" y="${y}" width="${scale(value).toFixed(1)}" height="${BAR_HEIGHT}" fill="${colour}"/>`,
    `<line x1="${low}" x2="${high}" y1="${middle}" y2="${middle}" stroke="${INK}" stroke-width="2"/>`,
    text(
      LABEL_WIDTH + scale(Math.max(...values)) + 6,
      y + BAR_HEIGHT - 4,
      `${format(value, unit)} ${unitShown(unit)}`,
    ),
  ];
}

function text(x: number, y: number, content: string, weight = "normal"): string {
  return `<text x="${x.toFixed(1)}" y="${y}" fill="${INK}" font-weight="${weight}">${escaped(content)}</text>`;
}

function escaped(content: string): string {
  return content.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll('"', "&quot;");
}
