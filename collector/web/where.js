// Where traffic goes: listeners, and upstreams with their backends, of one host or of
// all.

import { element, label, table } from "/dom.js";
import { FIGURES } from "/figures.js";
import { counted, bytesPerSecond, count, known, microseconds, milliseconds, percent } from "/format.js";
import { listenerAt, listeners, ORDERS, perHost, rate, upstreams } from "/model.js";
import { duration, handshakes, requests, seen } from "/unseen.js";

/// Rows of a table; more would be too many to read, and to draw again and again.
const ROWS_MAX = 100;
/// Backends below their upstream where all upstreams are shown.
const BACKENDS_MAX = 8;

const alarm = (value, content) => ({ className: value > 0 ? "alarm" : "", content: [content] });

/// The columns that listeners and backends share, by the figure that orders them.
const COLUMNS = [
  { order: "requests", head: FIGURES.requests.title, cell: requests },
  { order: "errorPercent", head: "5xx", cell: (r) => alarm(r.errorPercent, seen(r, r.errorPercent, percent)) },
  { order: "unanswered", head: "Unanswered", cell: (r) => alarm(r.unanswered, seen(r, r.unanswered, count)) },
  { order: "failed", head: "Failed", cell: (r) => alarm(r.failed, known(r.failed, count)) },
  { order: "resets", head: "Reset by peer", cell: (r) => known(r.resets, count) },
  { order: "p50", head: "p50", cell: (r) => duration(r, r.p50) },
  { order: "p99", head: "p99", cell: (r) => duration(r, r.p99) },
  { order: "active", head: "Active", cell: (r) => known(r.active, count) },
];
const OF_BACKENDS = [
  { minor: true, head: "Connect p99", cell: (r) => known(r.connect, milliseconds) },
  { minor: true, head: "RTT", cell: (r) => known(r.rtt, microseconds) },
  { minor: true, head: FIGURES.retransmits.title, cell: (r) => known(r.retransmits, count) },
];
/// Shown where a row has had TLS handshakes.
const TLS = [
  { tls: true, minor: true, head: "TLS failed", cell: (r) => alarm(r.tlsFailed, handshakes(r)) },
  { tls: true, minor: true, head: "TLS p50", cell: (r) => known(r.tlsP50, milliseconds) },
  { tls: true, minor: true, head: "TLS p99", cell: (r) => known(r.tlsP99, milliseconds) },
];
const BYTES = [
  { order: "received", head: "In", cell: (r) => known(r.received, bytesPerSecond) },
  { order: "sent", head: "Out", cell: (r) => known(r.sent, bytesPerSecond) },
];

/// How the reader orders the tables; null where the page chooses.
export function orderOf(url) {
  const asked = url.searchParams.get("order");
  return ORDERS.includes(asked) ? asked : null;
}

function heads(columns, { order, address }, key) {
  return columns.map((column) => {
    if (!column.order) return column.head;
    const link = element("a", "", column.head);
    link.href = address({ order: column.order === order ? null : column.order });
    link.dataset.focus = `order ${key} ${column.order}`;
    if (column.order === order) link.dataset.sorted = "true";
    return link;
  });
}

function linked(text, href, key) {
  const link = element("a", "", label(text));
  link.href = href;
  link.dataset.focus = key;
  return link;
}

/// A table of groups: the first cell names one, the others are its figures.
function groupTable({ key, caption, first, columns: all, rows, left = 0 }, view) {
  const columns = all.filter(({ tls }) => !tls || rows.some(({ figures }) => figures.tls));
  return table({
    key,
    caption: left > 0 ? `${caption}: ${left} more are not shown; search, or order by another column` : caption,
    heads: [first, ...heads(columns, view, key)],
    words: 1,
    minor: columns.flatMap((column, i) => (column.minor ? [i + 1] : [])),
    rows: rows.map(({ name, figures }) => [name, ...columns.map(({ cell }) => cell(figures))]),
  });
}

const dim = (text) => element("span", "dim", text);
/// How many hosts have it, where it is not one.
const ofHosts = ({ hosts }) => (hosts > 1 ? [dim(` ${counted(hosts, "host", "hosts")}`)] : []);

/// A search leaves what it finds, and sums are of that.
const captioned = (caption, { searched }) => (searched ? `${caption} that match` : caption);

/// Connections that wait to be accepted: now, at the most, and how many may.
function queueCell({ queues }) {
  const total = (of) => queues.reduce((n, queue) => n + of(queue), 0);
  const full = queues.some((queue) => queue.connections_max > queue.limit);
  const text = [(q) => q.connections, (q) => q.connections_max, (q) => q.limit].map((of) => count(total(of))).join(" / ");
  return alarm(full ? 1 : 0, queues.length === 0 ? "–" : text);
}
const QUEUE = [{ order: "queue", head: "Queue", cell: queueCell }];

const LISTENER_COLUMNS = [...COLUMNS, ...QUEUE, ...TLS, ...BYTES];
const BACKEND_COLUMNS = [...COLUMNS, ...OF_BACKENDS, ...TLS, ...BYTES];

/// Every listener, those of one name as one.
export function listenerTable(hosts, view) {
  const all = listeners(hosts, view.order);
  if (all.length === 0) return null;
  return groupTable({
    key: "listeners",
    caption: captioned("Listeners", view),
    first: "Listener",
    columns: LISTENER_COLUMNS,
    left: Math.max(0, all.length - ROWS_MAX),
    rows: all.slice(0, ROWS_MAX).map((one) => ({
      name: element("span", "", linked(one.label, view.address({ listener: one.key, host: null }), `listener ${one.key}`), ...ofHosts(one)),
      figures: one,
    })),
  }, view);
}

const indented = (content) => element("span", "beneath", content);

function backendRows(upstream, view, max) {
  return upstream.backends.slice(0, max).map((one) => ({
    name: indented(linked(one.label, view.address({ upstream: upstream.key, backend: one.key, host: null }), `backend ${upstream.key} ${one.key}`)),
    figures: one,
  }));
}

/// Every upstream with all of it in one row, and its backends beneath.
export function upstreamTable(hosts, view) {
  const all = upstreams(hosts, view.order);
  if (all.length === 0) return null;
  const rows = [];
  let left = 0;
  for (const one of all) {
    if (rows.length >= ROWS_MAX) {
      left += 1 + one.backends.length;
      continue;
    }
    const beneath = backendRows(one, view, BACKENDS_MAX);
    const more = one.backends.length > beneath.length ? `, ${beneath.length} shown` : "";
    const name = linked(one.label, view.address({ upstream: one.key, host: null }), `upstream ${one.key}`);
    rows.push({
      name: element("span", "all", name, dim(` ${counted(one.backends.length, "backend", "backends")}${more}`), ...ofHosts(one)),
      figures: one,
    }, ...beneath);
  }
  return groupTable({
    key: "upstreams", caption: captioned("Upstreams and backends", view), first: "Upstream, backend", columns: BACKEND_COLUMNS, rows, left,
  }, view);
}

function hostRows(one, view) {
  return perHost(one, view.order).slice(0, ROWS_MAX).map((host) => ({
    name: indented(linked(host.label, view.address({ host: host.key, listener: null, upstream: null, backend: null }), `host of ${one.key} ${host.key}`)),
    figures: host,
  }));
}

/// All of a group in one row, and each of its hosts beneath.
function groupOnHosts(one, first, columns, view) {
  const rows = hostRows(one, view);
  return groupTable({
    key: `hosts of ${one.key}`,
    caption: `${one.label} by host`,
    first,
    columns,
    left: one.hosts - rows.length,
    rows: [{ name: element("span", "all", counted(one.hosts, "host", "hosts")), figures: one }, ...rows],
  }, view);
}

/// What the reader has chosen: a host, a listener, an upstream, or one of its backends;
/// null where there is none.
export function chosenOf(url) {
  const of = (...names) => Object.fromEntries(names.map((name) => [name, url.searchParams.get(name)]).filter(([, value]) => value !== null));
  for (const chosen of [of("host"), of("listener"), of("upstream", "backend")]) {
    if (Object.keys(chosen).length > 0 && (chosen.backend === undefined || chosen.upstream !== undefined)) return chosen;
  }
  return null;
}

/// The group that is chosen; undefined where no report has it.
export function find(hosts, { listener, upstream, backend }) {
  if (listener !== undefined) return listeners(hosts).find(({ key }) => key === listener) ?? listenerAt(hosts, listener);
  const one = upstreams(hosts).find(({ key }) => key === upstream);
  return backend === undefined ? one : one?.backends.find(({ key }) => key === backend);
}

/// A listener's accept queues in words; null where none can be looked at.
function queueTable(one) {
  if (one.queues.length === 0) return null;
  return table({
    key: `queues of ${one.key}`,
    caption: `Accept queue of ${one.label}`,
    heads: ["Host", "Listens on", "Waiting now", "At most", "Limit", "Dropped", "Dropped in all"],
    words: 2,
    rows: one.queues.slice(0, ROWS_MAX).map((queue) => [
      label(queue.report.host.name || queue.host), label(queue.listener),
      count(queue.connections), alarm(queue.connections_max > queue.limit ? 1 : 0, count(queue.connections_max)), count(queue.limit),
      `${count(rate(queue.drops, queue.report))}/s`, count(queue.drops_total),
    ]),
  });
}

/// The tables of one listener, upstream or backend.
export function chosenTables({ listener, backend }, one, view) {
  if (listener !== undefined) return [groupOnHosts(one, "Listener on", LISTENER_COLUMNS, view), queueTable(one)].filter(Boolean);
  const onHosts = groupOnHosts(one, "Seen from", BACKEND_COLUMNS, view);
  if (backend !== undefined) return [onHosts];
  const rows = backendRows(one, view, ROWS_MAX);
  return [groupTable({
    key: "backends",
    caption: `Backends of ${one.label}`,
    first: "Backend",
    columns: BACKEND_COLUMNS,
    left: one.backends.length - rows.length,
    rows: [{ name: element("span", "all", "all"), figures: one }, ...rows],
  }, view), onHosts];
}
