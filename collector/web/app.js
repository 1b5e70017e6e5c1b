// The page: draws the fleet, and draws it again when a report comes.
// Labels come from other machines: they are only ever set as text.

import { HostCharts, RANGES } from "/charts.js";
import { age, bytesPerSecond, count, known, milliseconds, percent, perSecond, printable } from "/format.js";
import { Fleet, overview, row } from "/model.js";

const SVG = "http://www.w3.org/2000/svg";
const fleet = new Fleet();
const byId = (id) => document.getElementById(id);
let clockAheadMs = 0;

function element(name, className, ...children) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

function svg(name, attributes, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/// A foreign text: cut to fit, whole in its title.
function label(text) {
  const made = element("span", "label", printable(text));
  made.title = printable(text);
  return made;
}

function badge(word, tone) {
  return element("span", `badge ${tone}`, word);
}

function gauge(name, percentValue) {
  const bar = svg("svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("rect", { width: 100, height: 10, rx: 3 }));
  if (percentValue !== null) {
    const width = Math.min(100, Math.max(0, percentValue));
    bar.append(svg("rect", { class: "value", width, height: 10, rx: 3 }));
  }
  return element("div", "gauge", element("span", "", name), bar, known(percentValue, percent));
}

function figure(name, text) {
  return element("div", "gauge", element("span", "", name), text);
}

function spark(values) {
  const top = Math.max(...values, 1e-9);
  const step = values.length > 1 ? 100 / (values.length - 1) : 0;
  const path = values.map((value, i) => `${i ? "L" : "M"}${(i * step).toFixed(2)} ${(29 - 28 * value / top).toFixed(2)}`);
  return svg("svg", { class: "spark", viewBox: "0 0 100 30", preserveAspectRatio: "none", role: "img", "aria-label": "requests per second of the last reports" },
    svg("path", { d: path.join("") }));
}

const COLUMNS = ["Role", "Endpoint", "Requests", "5xx", "In", "Out", "Active", "p50", "p99"];

function endpointTable(report) {
  const head = element("tr", "", ...COLUMNS.map((name) => {
    const cell = element("th", "", name);
    cell.scope = "col";
    return cell;
  }));
  const rows = report.endpoints.map((endpoint) => {
    const r = row(endpoint, report);
    const cells = [
      known(r.requests, perSecond), known(r.errors, count), bytesPerSecond(r.received),
      bytesPerSecond(r.sent), count(r.active), known(r.p50, milliseconds), known(r.p99, milliseconds),
    ].map((text) => element("td", "", text));
    if (r.errors > 0) cells[1].className = "alarm";
    const made = element("tr", "", element("td", "", r.role), element("td", "", label(r.label)), ...cells);
    made.dataset.endpoint = r.address;
    return made;
  });
  const table = element("table", "", element("thead", "", head), element("tbody", "", ...rows));
  return element("div", "scroll", table);
}

function notes(report) {
  const lost = Object.entries(report.losses).filter(([, n]) => n > 0)
    .map(([reason, n]) => `${reason}: ${n}`);
  return printable([...report.incomplete_reasons, ...lost].join(" · "));
}

function hostCard(host, nowMs) {
  const { report, health } = host;
  const m = report.host_metrics;
  const last = (g) => g?.last ?? null;
  const link = element("a", "", label(report.host.name || report.host.id));
  link.href = address({ host: report.host.id });
  link.dataset.focus = `host ${report.host.id}`;
  const title = element("h3", "", link);
  const seen = `report ${report.sequence}, ${age((nowMs - host.seenAtMs) / 1000)} ago, level ${report.agent.level}`;
  const id = element("span", "id", label(report.host.id));
  const bar = element("div", "bar", title, badge(health.word, health.tone), id, element("span", "id", seen));
  if (host.history.length > 1) bar.append(spark(host.history));
  const gauges = element("div", "gauges",
    gauge("CPU", last(m.cpu_usage)), gauge("Memory", last(m.memory_usage)), gauge("Disk", last(m.disk_usage)),
    figure("Load", known(last(m.load_avg_1), (v) => v.toFixed(2))),
    figure("Network in", known(last(m.network_in), bytesPerSecond)),
    figure("out", known(last(m.network_out), bytesPerSecond)));
  const card = element("article", "host", bar, gauges);
  card.dataset.host = report.host.id;
  const note = notes(report);
  if (note) card.append(element("p", "note", note));
  if (report.endpoints.length > 0) card.append(endpointTable(report));
  return card;
}

function tiles(hosts) {
  const o = overview(hosts);
  return [
    ["Hosts healthy", `${o.healthy} of ${o.hosts}`],
    ["Requests", known(o.requests, perSecond)],
    ["Received", bytesPerSecond(o.received)],
    ["Sent", bytesPerSecond(o.sent)],
    ["Connections", count(o.active)],
  ].map(([name, value]) => element("div", "", element("dt", "", name), element("dd", "", value)));
}

function matches(host, words) {
  const text = [host.id, host.report.host.name, ...host.report.endpoints.flatMap((e) => [e.address, e.name])]
    .join("\n").toLowerCase();
  return words.every((word) => text.includes(word));
}

function draw() {
  const nowMs = Date.now() + clockAheadMs;
  const hosts = fleet.sorted(nowMs);
  const chosen = url.searchParams.get("host");
  const words = byId("find").value.toLowerCase().split(/\s+/).filter(Boolean);
  byId("fleet").replaceChildren(...tiles(hosts));
  const shown = hosts.filter((h) => (chosen === null ? matches(h, words) : h.id === chosen));
  const focused = document.activeElement?.dataset?.focus;
  byId("hosts").replaceChildren(...shown.map((h) => hostCard(h, nowMs)));
  // What is drawn anew must not take the keyboard's place away.
  if (focused) document.querySelector(`[data-focus="${CSS.escape(focused)}"]`)?.focus();
  byId("empty").hidden = hosts.length > 0;
}

/// Draws at most once a frame, however many reports come.
let drawing = false;
function drawSoon() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    draw();
  });
}

function connection(word, tone) {
  const shown = byId("connection");
  if (shown.textContent === word) return;
  shown.textContent = word;
  shown.className = `badge ${tone}`;
}

async function load() {
  const [hosts, reports] = await Promise.all(["/api/v1/hosts", "/api/v1/reports?latest=true"]
    .map(async (path) => {
      const answer = await fetch(path);
      if (!answer.ok) throw new Error(`${path} answered ${answer.status}`);
      const date = Date.parse(answer.headers.get("date"));
      if (!Number.isNaN(date)) clockAheadMs = date - Date.now();
      return answer.json();
    }));
  const seen = new Map(hosts.hosts.map((h) => [h.host.id, Date.parse(h.last_seen)]));
  for (const report of reports.reports) fleet.add(report, seen.get(report.host.id) ?? 0);
  drawSoon();
}

function watch() {
  const events = new EventSource("/api/v1/live");
  const reload = () => load().catch(() => connection("no answer", "bad"));
  events.addEventListener("open", () => {
    connection("live", "good");
    reload();
  });
  events.addEventListener("error", () => connection("reconnecting", "warn"));
  events.addEventListener("skipped", reload);
  events.addEventListener("report", (event) => {
    fleet.add(JSON.parse(event.data), Date.now() + clockAheadMs);
    drawSoon();
  });
}

// The URL is the state: which host, which range, what is looked for.

let url = new URL(location.href);
const charts = new HostCharts(byId("charts"));
const range = () => (RANGES.includes(url.searchParams.get("range")) ? url.searchParams.get("range") : "1h");

/// This page with other parameters; null takes one away.
function address(changes) {
  const next = new URL(url);
  for (const [name, value] of Object.entries(changes)) {
    if (value === null) next.searchParams.delete(name);
    else next.searchParams.set(name, value);
  }
  return next.pathname + next.search;
}

function rangeLinks() {
  return RANGES.map((name) => {
    const link = element("a", "", name);
    link.href = address({ range: name });
    if (name === range()) link.setAttribute("aria-current", "true");
    return link;
  });
}

/// Shows what the URL says.
function route() {
  url = new URL(location.href);
  const host = url.searchParams.get("host");
  byId("find").value = url.searchParams.get("find") ?? "";
  byId("find").parentElement.hidden = host !== null;
  byId("back").hidden = host === null;
  byId("back").firstElementChild.href = address({ host: null, range: null });
  byId("hosts-title").textContent = host === null ? "Hosts" : "Host";
  byId("history").hidden = host === null;
  byId("ranges").replaceChildren(...rangeLinks());
  if (host === null) charts.clear();
  else charts.show(host, range());
  drawSoon();
}

/// Links within the page change the URL without loading it anew.
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[href]");
  const plain = event.button === 0 && !event.ctrlKey && !event.metaKey && !event.shiftKey;
  if (!link || !plain || new URL(link.href).pathname !== "/") return;
  event.preventDefault();
  history.pushState(null, "", link.href);
  route();
});
addEventListener("popstate", route);
addEventListener("resize", () => charts.resize());
byId("find").addEventListener("input", () => {
  history.replaceState(null, "", address({ find: byId("find").value || null }));
  url = new URL(location.href);
  drawSoon();
});

/// Short ranges follow the reports, long ones change slowly.
let refreshed = Date.now();
setInterval(() => {
  drawSoon();
  const every = ["5m", "1h"].includes(range()) ? 5000 : 60000;
  if (!byId("history").hidden && Date.now() - refreshed >= every) {
    refreshed = Date.now();
    charts.refresh();
  }
}, 1000);
route();
watch();
