// What every plot of a host shares: colours, axes, and one cursor.

import { linearTicks, logTicks } from "/ticks.js";

export const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hour12: false });
const day = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });
const whole = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium", hour12: false });
export const moment = (time) => whole.format(new Date(time * 1000));

/// The time of day, and at midnight the day.
function tick(time) {
  const date = new Date(time * 1000);
  return date.getHours() === 0 && date.getMinutes() === 0 ? day.format(date) : clock.format(date);
}

const PIXELS_A_TICK = 40;

/// Times below, figures to the left.
export function axes(format, { logarithmic = false } = {}) {
  const axis = { stroke: color("--dim"), grid: { stroke: color("--line"), width: 1 }, ticks: { show: false } };
  const ticks = logarithmic ? logTicks : linearTicks;
  return [
    { ...axis, space: 70, values: (_, times) => times.map(tick) },
    {
      ...axis,
      size: 74,
      splits: (plot, _, min, max) => ticks(min, max, plot.height / PIXELS_A_TICK),
      filter: (_, values) => values,
      values: (_, values) => values.map(format),
    },
  ];
}

/// A hook of a plot: where it fails, that plot says so and the others live.
export const guarded = (hook, failed) => (plot) => {
  try {
    hook(plot);
  } catch (error) {
    failed(error);
  }
};

/// The cursor of one plot moves those of all others.
export const cursor = () => ({ sync: { key: "host" } });
