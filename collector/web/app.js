// The page: draws the fleet, and draws it again when a report comes.
// Labels come from other machines: they are only ever set as text.

import { hostCard } from "/card.js";
import { Charts } from "/charts.js";
import { details } from "/details.js";
import { element, redraw } from "/dom.js";
import { bytesPerSecond, count, known, perSecond, printable } from "/format.js";
import { serviceMap } from "/map.js";
import { endpointsMatching, Fleet, overview, reporting } from "/model.js";
import { problemList } from "/problems.js";
import { fieldValue, RANGES, rangeOf, refreshEveryMs } from "/range.js";
import { chosenOf, chosenTables, find, listenerTable, orderOf, upstreamTable } from "/where.js";

const fleet = new Fleet();
/// Whether the collector has said what it knows: no host is one only then.
let loaded = false;
const byId = (id) => document.getElementById(id);
let clockAheadMs = 0;
/// An engine that answers in part says so with every answer.
const PARTIAL_FOR_MS = 15000;

function tiles(hosts) {
  const o = overview(hosts);
  return [
    ["Hosts healthy", loaded ? `${o.healthy} of ${o.hosts}` : "–"],
    ["Requests", known(o.requests, perSecond)],
    ["Received", known(o.received, bytesPerSecond)],
    ["Sent", known(o.sent, bytesPerSecond)],
    ["Connections", known(o.active, count)],
  ].map(([name, value]) => element("div", "", element("dt", "", name), element("dd", "", value)));
}


/// What is wrong, as the collector judges it; null until it has said so.
let problems = null;
/// Why it cannot be told.
let untold = null;
function drawProblems(hosts) {
  if (untold === null && problems === null) return;
  const list = untold === null
    ? problemList(problems, chosenOf(url), address, listensOn(hosts))
    : [element("p", "note", printable(`Nobody can tell: ${untold}`))];
  redraw(byId("problems"), list);
}

/// Where the listener that is chosen listens.
function listensOn(hosts) {
  const chosen = chosenOf(url);
  const one = chosen?.listener === undefined ? undefined : find(reporting(hosts), chosen);
  return one?.queues.map(({ host, listener }) => `${host} ${listener}`) ?? [];
}

const PROBLEMS_EVERY_MS = 2000;
async function loadProblems() {
  try {
    const answer = await fetch("/api/v1/problems");
    const said = await answer.json();
    if (answer.ok) problems = said;
    untold = answer.ok ? null : said.detail;
    // An engine will not learn it.
    if (answer.status === 501) return;
  } catch {
    untold = "the collector does not answer.";
  }
  setTimeout(loadProblems, PROBLEMS_EVERY_MS);
}

const panel = (one) => element("div", "panel", one);
const view = () => ({ order: orderOf(url), address, searched: chosenOf(url) === null && byId("find").value.trim() !== "" });

/// All hosts, or those that a search finds: where traffic goes, and each host.
function drawFleet(hosts, nowMs) {
  const words = byId("find").value.toLowerCase().split(/\s+/).filter(Boolean);
  const found = hosts.map((host) => ({ ...host, endpoints: endpointsMatching(host.report, words) }))
    .filter(({ endpoints }) => endpoints !== null);
  const live = reporting(found);
  const map = serviceMap(live, problems?.problems, address);
  const tables = [listenerTable(live, view()), upstreamTable(live, view())].filter(Boolean);
  redraw(byId("where"), [...(map ? [element("div", "panel flow", map)] : []), ...tables.map(panel)]);
  redraw(byId("hosts"), found.map((host) => hostCard(host, nowMs, address({ host: host.id }))));
  redraw(byId("details"), []);
  unknown(found.length === 0, `Nothing matches “${byId("find").value.trim()}”: hosts, endpoints, upstreams and backends are searched by name and address.`);
}

function drawHost(hosts, nowMs, name) {
  const host = hosts.find(({ id, report }) => id === name || report.host.name === name);
  redraw(byId("where"), []);
  redraw(byId("hosts"), host ? [hostCard(host, nowMs, address({ host: host.id }))] : []);
  redraw(byId("details"), host ? details(host, url.searchParams.get("sort"), view()) : []);
  unknown(!host, `This collector has no report of a host “${name}”. Go back to all hosts and choose one.`);
}

/// One listener, upstream or backend, on all of its hosts.
function drawChosen(hosts, chosen) {
  const one = find(reporting(hosts), chosen);
  redraw(byId("where"), one ? chosenTables(chosen, one, view()).map(panel) : []);
  redraw(byId("hosts"), []);
  redraw(byId("details"), []);
  unknown(!one, `No host that reports now has a ${Object.keys(chosen).at(-1)} “${Object.values(chosen).at(-1)}”. Go back to all hosts and choose one.`);
  if (one) showCharts(chartsOf(chosen, one));
  else if (loaded) showCharts(null);
}

/// Says that there is nothing, once the collector has said what there is.
function unknown(nothing, words) {
  byId("unknown").hidden = !loaded || fleet.hosts.size === 0 || !nothing;
  byId("unknown").textContent = printable(words);
  byId("history").hidden = chosenOf(url) === null || (loaded && nothing);
}

function draw() {
  const nowMs = Date.now() + clockAheadMs;
  const hosts = fleet.sorted(nowMs);
  drawProblems(hosts);
  byId("fleet").replaceChildren(...tiles(hosts));
  const chosen = chosenOf(url);
  if (chosen === null) drawFleet(hosts, nowMs);
  else if (chosen.host !== undefined) drawHost(hosts, nowMs, chosen.host);
  else drawChosen(hosts, chosen);
  byId("loading").hidden = loaded || hosts.length > 0;
  byId("empty").hidden = !loaded || hosts.length > 0;
}

/// Draws at most twice a second, however many reports come, and not while a
/// button is held down: a click on what was replaced meanwhile would be lost.
const DRAW_EVERY_MS = 500;
let due = false;
let waiting = false;
let held = false;
let drawnMs = -Infinity;
function drawSoon() {
  due = true;
  if (waiting || held) return;
  waiting = true;
  setTimeout(() => requestAnimationFrame(() => {
    waiting = false;
    if (!due || held) return;
    drawNow();
    drawnMs = performance.now();
  }), Math.max(0, drawnMs + DRAW_EVERY_MS - performance.now()));
}

/// What the reader did is answered at once.
function drawNow() {
  due = false;
  draw();
}

addEventListener("pointerdown", (event) => {
  held = event.button === 0;
});
for (const end of ["pointerup", "pointercancel", "contextmenu", "blur"]) {
  addEventListener(end, () => {
    held = false;
    if (due) drawSoon();
  });
}

function connection(word, tone) {
  const shown = byId("connection");
  if (shown.textContent === word) return;
  shown.textContent = word;
  shown.className = `badge ${tone}`;
}

/// Says why something may be missing, for as long as it is said again.
let partialUntilMs = 0;
function partial(reasons) {
  if (!reasons?.length) return;
  byId("partial").textContent = printable(`Incomplete: ${reasons.join("; ")}`);
  byId("partial").hidden = false;
  partialUntilMs = Date.now() + PARTIAL_FOR_MS;
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
  partial(hosts.partial ?? reports.partial);
  for (const host of hosts.hosts) fleet.know(host, Date.now() + clockAheadMs);
  for (const report of reports.reports) fleet.add(report);
  loaded = true;
  drawSoon();
}

const reload = () => load().catch(() => connection("no answer", "bad"));

/// Many hosts may be new at once: they are asked for together.
const RELOAD_AFTER_MS = 1000;
let reloading = false;
function reloadSoon() {
  if (reloading) return;
  reloading = true;
  setTimeout(() => {
    reloading = false;
    reload();
  }, RELOAD_AFTER_MS);
}

function watch() {
  const events = new EventSource("/api/v1/live");
  events.addEventListener("open", () => {
    connection("live", "good");
    reload();
  });
  events.addEventListener("error", () => connection("reconnecting", "warn"));
  events.addEventListener("skipped", reload);
  events.addEventListener("partial", (event) => partial(JSON.parse(event.data).partial));
  events.addEventListener("report", (event) => {
    // A host that is new, or whose windows are of another length.
    if (fleet.add(JSON.parse(event.data), Date.now() + clockAheadMs)) reloadSoon();
    drawSoon();
  });
}

// The URL is the state: which host, which range, what is looked for.

let url = new URL(location.href);
const charts = new Charts(byId("charts"));
let refreshed = Date.now();
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
    link.href = address({ range: name, since: null, until: null });
    if (name === rangeOf(url).name) link.setAttribute("aria-current", "true");
    return link;
  });
}

/// What the charts of a listener, upstream or backend show.  What has no name of its own,
/// the backends without an upstream's and a listener on several addresses, takes its
/// series from all of its role.
function chartsOf({ listener, upstream, backend }, one) {
  const host = one.hosts === 1 ? { host: one.parts[0].host } : {};
  if (listener !== undefined) {
    const { name, address } = one.parts[0].endpoint;
    return one.key === (name || address)
      ? { role: "downstream", listener, ...host }
      : { role: "downstream", addresses: one.addresses, takes: (series) => one.addresses.includes(series.endpoint), ...host };
  }
  if (upstream) return { role: "upstream", upstream, backend, ...host };
  return { role: "upstream", takes: (series) => !series.upstream && (backend === undefined || series.endpoint === backend), backend, ...host };
}

/// Builds the charts anew only where another subject or range is asked for.
let charted = "";
function showCharts(subject) {
  const range = rangeOf(url);
  const wanted = subject === null ? "" : JSON.stringify([chosenOf(url), subject, range]);
  if (wanted === charted) return;
  charted = wanted;
  if (subject === null) {
    charts.clear();
    return;
  }
  const { since, until } = range.query;
  byId("since").value = range.name === null ? fieldValue(since) : "";
  byId("until").value = range.name === null ? fieldValue(until) : "";
  refreshed = Date.now();
  charts.show(subject, range.query);
}

const ALL = {
  host: null, listener: null, upstream: null, backend: null, range: null, since: null, until: null, sort: null, order: null,
};

/// Shows what the URL says.
function route() {
  url = new URL(location.href);
  const chosen = chosenOf(url);
  const host = chosen?.host;
  byId("find").value = url.searchParams.get("find") ?? "";
  byId("find").parentElement.hidden = chosen !== null;
  byId("back").hidden = chosen === null;
  byId("back").firstElementChild.href = address(ALL);
  const isHost = host !== undefined;
  byId("where-section").hidden = isHost;
  byId("hosts-section").hidden = chosen !== null && !isHost;
  byId("hosts-title").textContent = isHost ? "Host" : "Hosts";
  const [kind, name] = Object.entries(chosen ?? {}).at(-1) ?? [];
  byId("where-title").textContent = chosen === null ? "Where traffic goes"
    : printable(`${kind[0].toUpperCase()}${kind.slice(1)} ${name || "without a name"}`);
  byId("ranges").replaceChildren(...rangeLinks());
  // Those of what is chosen are shown with its tables.
  if (chosen === null || isHost) showCharts(isHost ? { host } : null);
  drawNow();
}

/// Links within the page change the URL without loading it anew.
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[href]");
  const plain = event.button === 0 && !event.ctrlKey && !event.metaKey && !event.shiftKey;
  // A link of the map is SVG's: its property is no text.
  const target = link && new URL(link.getAttribute("href"), location.href);
  if (!link || !plain || target.origin !== location.origin || target.pathname !== "/") return;
  event.preventDefault();
  history.pushState(null, "", target);
  route();
});
addEventListener("popstate", route);
addEventListener("resize", () => charts.resize());
byId("find").addEventListener("input", () => {
  history.replaceState(null, "", address({ find: byId("find").value || null }));
  url = new URL(location.href);
  drawNow();
});

/// A range of the reader's own; the URL has it in UTC, so that it can be shared.
byId("custom").addEventListener("submit", (event) => {
  event.preventDefault();
  const [since, until] = ["since", "until"].map((id) => new Date(byId(id).value));
  byId("until").setCustomValidity(since < until ? "" : "The end must be after the beginning.");
  if (!byId("custom").reportValidity()) return;
  history.pushState(null, "", address({ range: null, since: since.toISOString(), until: until.toISOString() }));
  route();
});
byId("custom").addEventListener("input", () => byId("until").setCustomValidity(""));

setInterval(() => {
  drawSoon();
  if (Date.now() > partialUntilMs) byId("partial").hidden = true;
  if (!byId("history").hidden && !charts.reading && Date.now() - refreshed >= refreshEveryMs(rangeOf(url))) {
    refreshed = Date.now();
    charts.refresh();
  }
}, 1000);
// What is known is shown before the events come, and asked for again when they
// do: nothing that was reported in between is missed.  It is asked for before
// charts are: a browser has few connections to one server.
reload();
loadProblems();
watch();
route();
