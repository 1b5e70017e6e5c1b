// The page: draws the fleet, and draws it again when a report comes.
// Labels come from other machines: they are only ever set as text.

import { hostCard } from "/card.js";
import { HostCharts } from "/charts.js";
import { details } from "/details.js";
import { element, redraw } from "/dom.js";
import { bytesPerSecond, count, known, perSecond, printable } from "/format.js";
import { endpointsMatching, Fleet, overview } from "/model.js";
import { problemList } from "/problems.js";
import { fieldValue, RANGES, rangeOf, refreshEveryMs } from "/range.js";

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
    ["Hosts healthy", `${o.healthy} of ${o.hosts}`],
    ["Requests", known(o.requests, perSecond)],
    ["Received", bytesPerSecond(o.received)],
    ["Sent", bytesPerSecond(o.sent)],
    ["Connections", count(o.active)],
  ].map(([name, value]) => element("div", "", element("dt", "", name), element("dd", "", value)));
}


/// What is wrong, as the collector judges it; null until it has said so.
let problems = null;
/// Why it cannot be told.
let untold = null;
function drawProblems() {
  if (untold === null && problems === null) return;
  const list = untold === null
    ? problemList(problems, url.searchParams.get("host"), address)
    : [element("p", "note", printable(`Nobody can tell: ${untold}`))];
  redraw(byId("problems"), list);
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

function draw() {
  drawProblems();
  const nowMs = Date.now() + clockAheadMs;
  const hosts = fleet.sorted(nowMs);
  const chosen = url.searchParams.get("host");
  const words = byId("find").value.toLowerCase().split(/\s+/).filter(Boolean);
  byId("fleet").replaceChildren(...tiles(hosts));
  const shown = chosen === null
    ? hosts.map((host) => ({ host, endpoints: endpointsMatching(host.report, words) })).filter((one) => one.endpoints !== null)
    : hosts.filter((host) => host.id === chosen || host.report.host.name === chosen).slice(0, 1)
      .map((host) => ({ host, endpoints: host.report.endpoints }));
  redraw(byId("hosts"), shown.map(({ host, endpoints }) => hostCard(host, nowMs, address({ host: host.id }), endpoints)));
  const detailed = chosen === null ? undefined : shown[0]?.host;
  redraw(byId("details"), detailed ? details(detailed.report, url.searchParams.get("sort"), address) : []);
  byId("loading").hidden = loaded || hosts.length > 0;
  byId("empty").hidden = !loaded || hosts.length > 0;
  byId("unknown").hidden = !loaded || hosts.length === 0 || shown.length > 0;
  byId("unknown").textContent = printable(chosen === null
    ? `Nothing matches “${byId("find").value.trim()}”: hosts, endpoints, upstreams and backends are searched by name and address.`
    : `This collector has no report of a host “${chosen}”. Choose one of all hosts.`);
  byId("history").hidden = chosen === null || (loaded && shown.length === 0);
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
const charts = new HostCharts(byId("charts"));
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

/// Builds the charts anew only where another host or range is asked for.
let charted = "";
function showCharts(host) {
  const range = rangeOf(url);
  const wanted = host === null ? "" : JSON.stringify([host, range]);
  if (wanted === charted) return;
  charted = wanted;
  if (host === null) {
    charts.clear();
    return;
  }
  const { since, until } = range.query;
  byId("since").value = range.name === null ? fieldValue(since) : "";
  byId("until").value = range.name === null ? fieldValue(until) : "";
  refreshed = Date.now();
  charts.show(host, range.query);
}

/// Shows what the URL says.
function route() {
  url = new URL(location.href);
  const host = url.searchParams.get("host");
  byId("find").value = url.searchParams.get("find") ?? "";
  byId("find").parentElement.hidden = host !== null;
  byId("back").hidden = host === null;
  byId("back").firstElementChild.href = address({ host: null, range: null, since: null, until: null, sort: null });
  byId("hosts-title").textContent = host === null ? "Hosts" : "Host";
  byId("ranges").replaceChildren(...rangeLinks());
  showCharts(host);
  drawNow();
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
  if (!byId("history").hidden && Date.now() - refreshed >= refreshEveryMs(rangeOf(url))) {
    refreshed = Date.now();
    charts.refresh();
  }
}, 1000);
route();
// What is known is shown before the events come, and asked for again when they
// do: nothing that was reported in between is missed.
reload();
loadProblems();
watch();
