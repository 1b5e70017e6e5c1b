// A heat map: how many exchanges took how long, step by step.

import { count, milliseconds } from "/format.js";
import { axes, color, cursor, guarded } from "/plot.js";

/// More cells than a chart has pixels would say nothing, and take long.
const CELLS_MAX = 200000;

/// How strongly a count shows next to the largest: small ones stay visible.
const strength = (n, largest) => 0.12 + 0.88 * Math.log1p(n) / Math.log1p(largest);

/// Draws the cells below uPlot's axes and cursor.
function drawCells(plot, answer) {
  const { ctx } = plot;
  const { bounds, columns, step_s: step } = answer;
  const largest = Math.max(1, ...columns.map((c) => Math.max(0, ...(c.counts ?? []))));
  const ys = bounds.map((bound) => plot.valToPos(bound * 1000, "y", true));
  const { left, top, width, height } = plot.bbox;
  ctx.save();
  ctx.beginPath();
  ctx.rect(left, top, width, height);
  ctx.clip();
  for (const column of columns) {
    const time = Date.parse(column.time) / 1000;
    const from = plot.valToPos(time, "x", true);
    const to = plot.valToPos(time + step, "x", true);
    if (column.counts === null) {
      // Nothing was measured: not the same as nothing happened.
      ctx.globalAlpha = 1;
      ctx.fillStyle = color("--track");
      ctx.fillRect(from, top, to - from, height);
      continue;
    }
    ctx.fillStyle = color("--accent");
    column.counts.forEach((n, i) => {
      if (n === 0) return;
      ctx.globalAlpha = strength(n, largest);
      ctx.fillRect(from, ys[i + 1], Math.max(1, to - from - 1), Math.max(1, ys[i] - ys[i + 1] - 1));
    });
  }
  ctx.restore();
}

/// What lies under the cursor, in words.
function under(answer, plot) {
  const { idx, top } = plot.cursor;
  if (idx === null || idx === undefined || top < 0) return "";
  const { counts } = answer.columns[idx];
  if (counts === null) return "no report";
  const ms = plot.posToVal(top, "y");
  const i = answer.bounds.findIndex((bound) => bound * 1000 >= ms) - 1;
  if (i < 0) return "";
  const [low, high] = [answer.bounds[i], answer.bounds[i + 1]].map((bound) => milliseconds(bound * 1000));
  return `${low} to ${high}: ${count(counts[i] ?? 0)}`;
}

/// What a screen reader says: where most exchanges were.
export function inWords(answer) {
  const sums = answer.bounds.slice(1).map((_, i) =>
    answer.columns.reduce((sum, c) => sum + (c.counts?.[i] ?? 0), 0));
  const all = sums.reduce((a, b) => a + b, 0);
  const most = sums.indexOf(Math.max(...sums));
  const [low, high] = [answer.bounds[most], answer.bounds[most + 1]].map((bound) => milliseconds(bound * 1000));
  return `${count(all)} in all, most between ${low} and ${high}`;
}

/// What has no shape that can be drawn is an error, before anything is drawn.
function check({ bounds, columns }) {
  const rises = bounds.every((bound, i) => bound > (i === 0 ? 0 : bounds[i - 1]) && Number.isFinite(bound));
  if (bounds.length < 2 || !rises) throw new Error("the buckets' boundaries do not rise");
  if (bounds.length * columns.length > CELLS_MAX) throw new Error("too many buckets to draw: choose a shorter range");
}

/// Makes the plot.
export function heatPlot(answer, width, body, failed) {
  check(answer);
  const times = answer.columns.map((c) => Date.parse(c.time) / 1000);
  const range = [answer.bounds[0] * 1000, answer.bounds.at(-1) * 1000];
  const shown = document.createElement("p");
  shown.className = "under";
  const options = {
    width,
    height: 180,
    cursor: cursor(),
    legend: { show: false },
    scales: { y: { distr: 3, log: 10, range } },
    axes: axes(milliseconds, { logarithmic: true }),
    series: [{}, { show: true, stroke: "transparent", points: { show: false } }],
    hooks: {
      drawClear: [guarded((plot) => drawCells(plot, answer), failed)],
      setCursor: [guarded((plot) => {
        shown.textContent = under(answer, plot);
      }, failed)],
    },
  };
  const plot = new window.uPlot(options, [times, times.map(() => null)], body);
  body.append(shown);
  return plot;
}
