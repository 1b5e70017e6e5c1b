// Charts of a host, a listener, an upstream or a backend: figures over time from /api/v1/series and /api/v1/heatmap.

import { FIGURES } from "/figures.js";
import { bytesPerSecond, count, counted, known, milliseconds, percent, perSecond, printable } from "/format.js";
import { heatPlot, inWords } from "/heat.js";
import { named } from "/model.js";
import { axes, cursor, moment } from "/plot.js";

/// Series that one chart shows; more could not be told apart.
const SERIES_MAX = 8;
const COLORS = ["#0d9488", "#d97706", "#6366f1", "#db2777", "#65a30d", "#0284c7", "#9333ea", "#b45309"];

/// The figures of endpoints that have a chart, by whom they are of.
const OF_ENDPOINTS = [
  ["requests", "downstream", "from clients"],
  ["responses_5xx", "downstream", "to clients"],
  ["exchange_duration_p50", "downstream", "clients"],
  ["exchange_duration_p99", "downstream", "clients"],
  ["exchange_duration", "downstream", "clients"],
  ["connections_active", "downstream", "of clients"],
  ["bytes_sent", "downstream", "to clients"],
  ["bytes_received", "downstream", "from clients"],
  ["retransmits", "downstream", "to clients"],
  ["requests_without_response", "downstream", "to clients"],
  ["closed_reset_received", "downstream", "from clients"],
  ["requests", "upstream", "to backends"],
  ["responses_5xx", "upstream", "of backends"],
  ["exchange_duration_p50", "upstream", "of backends"],
  ["exchange_duration_p99", "upstream", "of backends"],
  ["exchange_duration", "upstream", "of backends"],
  ["connections_active", "upstream", "to backends"],
  ["connections_failed", "upstream", "to backends"],
  ["requests_without_response", "upstream", "of backends"],
  ["closed_reset_received", "upstream", "from backends"],
  ["connect_duration_p99", "upstream", "to backends"],
  ["retransmits", "upstream", "to backends"],
];
const OF_HOSTS = ["cpu_usage", "memory_usage", "disk_usage", "load_avg_1", "network_in", "network_out"];

/// How values of a series are written: counters are rates there.
function format({ kind, unit }) {
  if (kind === "counter") return unit === "By" ? bytesPerSecond : perSecond;
  const formats = { "%": percent, "By/s": bytesPerSecond, s: milliseconds, "{process}": (value) => value.toFixed(2) };
  return formats[unit] ?? count;
}

/// A chart of a series, which may be a part of a figure: a quantile, a class; of all
/// of a histogram it is a heat map.
function chart([metric, role, whom]) {
  const [, name, part] = metric.match(/^(.*?)(?:_(p\d+|\dxx))?$/);
  const figure = FIGURES[name];
  const heat = figure.kind === "histogram" && part === undefined;
  const words = [figure.title, part?.endsWith("xx") ? part : "", whom].filter(Boolean).join(" ");
  const title = figure.kind === "histogram" ? `${words}, ${part ?? "all"}` : words;
  return { title, metric: heat ? undefined : metric, heat, role, format: format(figure) };
}

const CHARTS = [...OF_ENDPOINTS, ...OF_HOSTS.map((metric) => [metric])].map(chart);

/// Reads what a chart shows of a subject: its host, its role, its names, as far as it has
/// them, and of what is answered those series that it takes.
async function read(chart, subject, range) {
  const query = new URLSearchParams(range);
  if (subject.host) query.set("host", subject.host);
  if (chart.role) query.set("role", chart.role);
  for (const name of ["listener", "upstream", "backend"]) if (subject[name]) query.set(name, subject[name]);
  if (chart.metric) query.set("metric", chart.metric);
  const path = chart.heat ? "/api/v1/heatmap" : "/api/v1/series";
  const answer = await fetch(`${path}?${query}`);
  // What stands between may answer with a page of its own.
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(body.detail ?? `${path} answered ${answer.status}`);
  if (body.series && subject.takes) body.series = body.series.filter(subject.takes);
  return body;
}

const largest = (series) => Math.max(...series.points.map((p) => p.value ?? -1));
const hasValue = (series) => series.points.some((p) => p.value !== null);

/// What a series is called: by the names of its endpoint as far as they are known, and
/// by its host where there are several.
function called(series, severalHosts) {
  const host = series.host.name || series.host.id;
  if (!series.endpoint) return host;
  const endpoint = named([series.upstream, series.backend].filter(Boolean).join("/") || series.name, series.endpoint);
  return severalHosts ? `${endpoint} on ${host}` : endpoint;
}

/// Times and values as the chart wants them; gaps stay null.
function columns(answer) {
  const shown = answer.series.filter(hasValue)
    .sort((a, b) => largest(b) - largest(a)).slice(0, SERIES_MAX);
  if (shown.length === 0) return null;
  const severalHosts = new Set(shown.map((s) => s.host.id)).size > 1;
  const times = shown[0].points.map((p) => Date.parse(p.time) / 1000);
  return {
    data: [times, ...shown.map((s) => s.points.map((p) => p.value))],
    names: shown.map((s) => printable(called(s, severalHosts))),
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

function options(chart, names, width, colorOf) {
  return {
    width,
    height: 180,
    cursor: cursor(),
    scales: { y: { range: (_, __, max) => [0, max > 0 ? max * 1.1 : 1] } },
    axes: axes(chart.format),
    series: [{ value: (_, time) => known(time, moment) }, ...names.map((label) => ({
      label,
      stroke: colorOf(label),
      width: 1.6,
      spanGaps: false,
      points: { size: 4 },
      value: (_, value) => known(value, chart.format),
    }))],
  };
}

export class Charts {
  constructor(parent) {
    this.parent = parent;
    this.shown = [];
    this.turn = 0;
    this.reading = false;
  }

  /// Builds the figures of a subject, then fills them.  The range is what the
  /// API takes: since, and perhaps until.
  show(subject, range) {
    this.subject = subject;
    this.range = range;
    this.colors = new Map();
    this.clear();
    // A heat map has no series to take some of.
    const ofSubject = ({ role, heat }) => subject.role === undefined || (role === subject.role && (!heat || subject.takes === undefined));
    this.shown = CHARTS.filter(ofSubject).map((chart) => {
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

  /// A thing has one colour in all charts, whatever its rank is.
  colorOf(name) {
    if (!this.colors.has(name)) this.colors.set(name, COLORS[this.colors.size % COLORS.length]);
    return this.colors.get(name);
  }

  /// Takes all away; what was asked for is not drawn any more.
  clear() {
    this.turn += 1;
    this.reading = false;
    for (const { plot } of this.shown) plot?.destroy();
    this.shown = [];
    this.parent.replaceChildren();
  }

  /// Reads everything anew; an answer that a later one has overtaken is dropped.  A
  /// collector that is slow is not asked for the same again meanwhile.
  async refresh() {
    this.turn += 1;
    const turn = this.turn;
    this.reading = true;
    await Promise.all(this.shown.map(async (one) => {
      try {
        const answer = await read(one.chart, this.subject, this.range);
        if (turn === this.turn) this.fill(one, answer);
      } catch (error) {
        if (turn === this.turn) this.fail(one, error);
      }
    }));
    if (turn === this.turn) this.reading = false;
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
      one.plot = new window.uPlot(options(one.chart, found.names, width, (name) => this.colorOf(name)), found.data, one.body);
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
