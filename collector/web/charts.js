// A host's charts: figures over time from /api/v1/series and /api/v1/heatmap.

import { bytesPerSecond, count, counted, known, milliseconds, percent, perSecond, printable } from "/format.js";
import { heatPlot, inWords } from "/heat.js";
import { named } from "/model.js";
import { axes, cursor, moment } from "/plot.js";

/// Series that one chart shows; more could not be told apart.
const SERIES_MAX = 8;
const COLORS = ["#0d9488", "#d97706", "#6366f1", "#db2777", "#65a30d", "#0284c7", "#9333ea", "#b45309"];

const CHARTS = [
  { title: "Requests from clients", metric: "requests", role: "downstream", format: perSecond },
  { title: "Answers 5xx to clients", metric: "responses_5xx", role: "downstream", format: perSecond },
  { title: "Time to answer clients, p50", metric: "exchange_duration_p50", role: "downstream", format: milliseconds },
  { title: "Time to answer clients, p99", metric: "exchange_duration_p99", role: "downstream", format: milliseconds },
  { title: "Time to answer clients, all", heat: true, role: "downstream" },
  { title: "Connections of clients", metric: "connections_active", role: "downstream", format: count },
  { title: "Sent to clients", metric: "bytes_sent", role: "downstream", format: bytesPerSecond },
  { title: "Received from clients", metric: "bytes_received", role: "downstream", format: bytesPerSecond },
  { title: "Retransmits to clients", metric: "retransmits", role: "downstream", format: perSecond },
  { title: "Requests to backends", metric: "requests", role: "upstream", format: perSecond },
  { title: "Answers 5xx of backends", metric: "responses_5xx", role: "upstream", format: perSecond },
  { title: "Time of backends to answer, p50", metric: "exchange_duration_p50", role: "upstream", format: milliseconds },
  { title: "Time of backends to answer, p99", metric: "exchange_duration_p99", role: "upstream", format: milliseconds },
  { title: "Time of backends to answer, all", heat: true, role: "upstream" },
  { title: "Connections to backends", metric: "connections_active", role: "upstream", format: count },
  { title: "Failed connections to backends", metric: "connections_failed", role: "upstream", format: perSecond },
  { title: "CPU", metric: "cpu_usage", format: percent },
  { title: "Memory", metric: "memory_usage", format: percent },
  { title: "Disk", metric: "disk_usage", format: percent },
  { title: "Load, 1 min", metric: "load_avg_1", format: (value) => value.toFixed(2) },
  { title: "Network in", metric: "network_in", format: bytesPerSecond },
  { title: "Network out", metric: "network_out", format: bytesPerSecond },
];

async function read(chart, host, range) {
  const query = new URLSearchParams({ host, ...range });
  if (chart.role) query.set("role", chart.role);
  if (chart.metric) query.set("metric", chart.metric);
  const path = chart.heat ? "/api/v1/heatmap" : "/api/v1/series";
  const answer = await fetch(`${path}?${query}`);
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.detail ?? `${path} answered ${answer.status}`);
  return body;
}

const largest = (series) => Math.max(...series.points.map((p) => p.value ?? -1));
const hasValue = (series) => series.points.some((p) => p.value !== null);

/// What a series is called: by the names of its endpoint as far as they are known.
function called(series) {
  if (!series.endpoint) return "host";
  return named([series.upstream, series.backend].filter(Boolean).join("/") || series.name, series.endpoint);
}

/// Times and values as the chart wants them; gaps stay null.
function columns(answer) {
  const shown = answer.series.filter(hasValue)
    .sort((a, b) => largest(b) - largest(a)).slice(0, SERIES_MAX);
  if (shown.length === 0) return null;
  const times = shown[0].points.map((p) => Date.parse(p.time) / 1000);
  return {
    data: [times, ...shown.map((s) => s.points.map((p) => p.value))],
    names: shown.map((s) => printable(called(s))),
    more: answer.series.filter(hasValue).length - shown.length,
  };
}

/// How many steps between the first and the last figure no report covers.
function gaps(answer) {
  const now = Date.now();
  const points = answer.series.filter(hasValue)[0]?.points.filter((p) => Date.parse(p.time) < now) ?? [];
  const first = points.findIndex((p) => p.value !== null);
  const last = points.findLastIndex((p) => p.value !== null);
  return points.slice(first, last + 1).filter((p) => p.coverage === 0).length;
}

function options(chart, names, width) {
  return {
    width,
    height: 180,
    cursor: cursor(),
    scales: { y: { range: (_, __, max) => [0, max > 0 ? max * 1.1 : 1] } },
    axes: axes(chart.format),
    series: [{ value: (_, time) => known(time, moment) }, ...names.map((label, i) => ({
      label,
      stroke: COLORS[i],
      width: 1.6,
      spanGaps: false,
      points: { size: 4 },
      value: (_, value) => known(value, chart.format),
    }))],
  };
}

export class HostCharts {
  constructor(parent) {
    this.parent = parent;
    this.shown = [];
    this.turn = 0;
  }

  /// Builds the figures of a host, then fills them.  The range is what the
  /// API takes: since, and perhaps until.
  show(host, range) {
    this.host = host;
    this.range = range;
    this.clear();
    this.shown = CHARTS.map((chart) => {
      const figure = document.createElement("figure");
      figure.dataset.metric = `${chart.metric ?? "heatmap"} ${chart.role ?? ""}`.trim();
      const caption = document.createElement("figcaption");
      caption.textContent = chart.title;
      const body = document.createElement("div");
      body.className = "plot";
      figure.append(caption, body);
      return { chart, figure, caption, body, plot: null };
    });
    this.parent.replaceChildren(...this.shown.map((s) => s.figure));
    return this.refresh();
  }

  clear() {
    for (const { plot } of this.shown) plot?.destroy();
    this.shown = [];
    this.parent.replaceChildren();
  }

  /// Reads everything anew; an answer that a later one has overtaken is dropped.
  async refresh() {
    this.turn += 1;
    const turn = this.turn;
    await Promise.all(this.shown.map(async (one) => {
      try {
        const answer = await read(one.chart, this.host, this.range);
        if (turn === this.turn) this.fill(one, answer);
      } catch (error) {
        if (turn === this.turn) this.fail(one, error);
      }
    }));
  }

  /// Says why there is no chart; what stood there before would be taken for now.
  fail(one, error) {
    one.plot?.destroy();
    one.plot = null;
    one.body.replaceChildren();
    one.figure.hidden = false;
    const words = `${one.chart.title} – cannot be drawn: ${printable(error.message)}`;
    one.caption.textContent = words;
    one.figure.setAttribute("aria-label", words);
  }

  fill(one, answer) {
    if (one.chart.heat) this.fillHeat(one, answer);
    else this.fillLines(one, answer);
  }

  fillHeat(one, answer) {
    one.figure.hidden = answer.bounds.length === 0;
    if (one.figure.hidden) return;
    one.plot?.destroy();
    one.body.replaceChildren();
    one.plot = heatPlot(answer, one.body.clientWidth, one.body, (error) => this.fail(one, error));
    one.caption.textContent = one.chart.title;
    one.figure.setAttribute("aria-label", `${one.chart.title}: ${inWords(answer)}`);
  }

  fillLines(one, answer) {
    const found = columns(answer);
    one.figure.hidden = found === null;
    if (found === null) return;
    const missing = gaps(answer);
    const notes = [
      missing > 0 ? `${counted(missing, "step", "steps")} without a report` : "",
      answer.partial?.length > 0 ? `partial: ${printable(answer.partial.join("; "))}` : "",
      found.more > 0 ? `the ${SERIES_MAX} largest of ${SERIES_MAX + found.more}` : "",
    ].filter(Boolean);
    one.caption.textContent = [one.chart.title, ...notes].join(" – ");
    const width = one.body.clientWidth;
    if (one.plot && one.names.join() === found.names.join()) {
      one.plot.setData(found.data);
    } else {
      one.plot?.destroy();
      one.plot = new window.uPlot(options(one.chart, found.names, width), found.data, one.body);
      one.names = found.names;
    }
    const latest = found.data.slice(1).map((values) => values.findLast((v) => v !== null));
    const words = found.names.map((name, i) => `${name}: ${known(latest[i], one.chart.format)}`);
    one.figure.setAttribute("aria-label", `${one.chart.title}, newest ${words.join(", ")}`);
  }

  resize() {
    for (const { plot, body } of this.shown) plot?.setSize({ width: body.clientWidth, height: 180 });
  }
}
