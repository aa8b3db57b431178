export interface Bar {
  readonly label: string;
  readonly value: number;
  /** Drawn as a line across the bar. */
  readonly target?: number;
}

export interface BarChart {
  readonly title: string;
  readonly scale: 'linear' | 'logarithmic';
  readonly bars: readonly Bar[];
}

const width = 720;
const left = 170;
const right = 100;
const top = 44;
const rowHeight = 30;
const barHeight = 18;

/**
 * Draws horizontal bars, with values beside them and targets across them. The same chart is always the same text.
 * Text follows the reader's light or dark background (CSS media queries, level 5); bars are visible on both.
 */
export function drawBars({ title, scale, bars }: BarChart): string {
  const height = top + bars.length * rowHeight + 28;
  const values = bars.flatMap(({ value, target }) => (target === undefined ? [value] : [value, target]));
  const most = Math.max(...values, Number.MIN_VALUE);
  // A logarithmic scale begins at the power of ten below the least value, so that every bar has a length.
  const least = 10 ** (Math.floor(Math.log10(Math.max(Math.min(...values), 1e-6))) - 1);
  const share = (value: number) =>
    scale === 'linear'
      ? Math.max(value, 0) / most
      : Math.max(Math.log(Math.max(value, least) / least) / Math.log(most / least), 0);
  const at = (value: number) => round(left + share(value) * (width - left - right));
  const rows = bars.map(({ label, value, target }, index) => {
    const y = top + index * rowHeight;
    const middle = y + barHeight / 2 + 5;
    return [
      `<text x="${left - 10}" y="${middle}" text-anchor="end">${escapeXml(label)}</text>`,
      `<rect class="bar" x="${left}" y="${y}" width="${round(at(value) - left)}" height="${barHeight}" rx="2"/>`,
      `<text x="${Math.max(at(value), at(target ?? 0)) + 8}" y="${middle}">${formatNumber(value)}</text>`,
      ...(target === undefined
        ? []
        : [
            `<line class="target" x1="${at(target)}" x2="${at(target)}" y1="${y - 4}" y2="${y + barHeight + 4}"/>`,
          ]),
    ].join('\n  ');
  });
  const legend = bars.some(({ target }) => target !== undefined)
    ? `\n  <line class="target" x1="${left}" x2="${left}" y1="${height - 24}" y2="${height - 8}"/>\n  <text x="${left + 8}" y="${height - 11}">target</text>`
    : '';
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img" aria-label="${escapeXml(title)}">
  <style>
    text { font: 13px system-ui, sans-serif; fill: #24292f; }
    .title { font-weight: 600; font-size: 15px; }
    .bar { fill: #4184c4; }
    .target { stroke: #d1661f; stroke-width: 2; }
    @media (prefers-color-scheme: dark) { text { fill: #e6edf3; } }
  </style>
  <text class="title" x="${left}" y="22">${escapeXml(title)}</text>
  ${rows.join('\n  ')}${legend}
</svg>
`;
}

const round = (value: number) => Math.round(value * 10) / 10;

/** With separators for thousands, the same in every locale. */
export const formatNumber = (value: number) => value.toLocaleString('en-US', { maximumFractionDigits: 4 });

const escapeXml = (text: string) =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');
