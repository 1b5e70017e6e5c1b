// What is known of the fleet, and what follows from it.  No page in here.

const HISTORY_MAX = 120;

const seconds = (report) => report.window_duration_ns / 1e9;
export const rate = (n, report) => (seconds(report) > 0 ? n / seconds(report) : 0);

/// Whether one report of a host is newer than another, as the collector has it: of two
/// agents, that whose spool was made later, until it is silent.
function isNewer(a, b, silentAfterMs) {
  if (a.agent.epoch === b.agent.epoch) return a.sequence > b.sequence;
  const laterMs = Date.parse(a.window_end) - Date.parse(b.window_end);
  return laterMs >= (a.agent.epoch > b.agent.epoch ? 0 : silentAfterMs);
}

/// Sums what was measured; null where nothing was.
function sum(values) {
  const measured = values.filter((value) => value !== null && value !== undefined);
  return measured.length === 0 ? null : measured.reduce((a, b) => a + b, 0);
}

const newHost = (id) => ({ id, seenAtMs: 0, report: null, history: [], lateAfterMs: Infinity, silentAfterMs: Infinity });

export class Fleet {
  constructor() {
    this.hosts = new Map();
  }

  /// Takes what the collector says of a host: when it was seen, and at which age
  /// it is late and silent.
  know({ host: { id }, age_ms: ageMs, late_after_ms: lateAfterMs, silent_after_ms: silentAfterMs }, nowMs) {
    const host = this.hosts.get(id) ?? newHost(id);
    host.seenAtMs = Math.max(host.seenAtMs, nowMs - ageMs);
    Object.assign(host, { lateAfterMs, silentAfterMs });
    this.hosts.set(id, host);
  }

  /// Takes a report unless a newer one is known; tells whether the collector has
  /// to be asked what it says of the host.
  add(report, seenAtMs = 0) {
    const id = report.host.id;
    const host = this.hosts.get(id) ?? newHost(id);
    host.seenAtMs = Math.max(host.seenAtMs, seenAtMs);
    const before = host.report;
    if (host.report === null || isNewer(report, host.report, host.silentAfterMs)) {
      host.report = report;
      host.history.push(requestRate(report) ?? 0);
      if (host.history.length > HISTORY_MAX) host.history.shift();
    }
    this.hosts.set(id, host);
    return host.lateAfterMs === Infinity || seconds(before ?? report) !== seconds(report);
  }

  /// Worst first, then by name.
  sorted(nowMs) {
    return [...this.hosts.values()]
      .filter((host) => host.report !== null)
      .map((host) => ({ ...host, health: health(host, nowMs) }))
      .sort((a, b) => b.health.rank - a.health.rank
        || a.report.host.name.localeCompare(b.report.host.name)
        || a.id.localeCompare(b.id));
  }
}

/// Requests a second that clients made.
export function requestRate(report) {
  const n = sum(report.endpoints.filter((e) => e.role === "downstream").map((e) => e.requests));
  return n === null ? null : rate(n, report);
}

export function health(host, nowMs) {
  const ageMs = nowMs - host.seenAtMs;
  if (ageMs >= host.silentAfterMs) return { word: "silent", tone: "bad", rank: 3 };
  if (ageMs >= host.lateAfterMs) return { word: "late", tone: "warn", rank: 2 };
  if (Object.values(host.report.losses).some((n) => n > 0)) {
    return { word: "losses", tone: "warn", rank: 2 };
  }
  if (!host.report.complete) return { word: "incomplete", tone: "warn", rank: 1 };
  return { word: "healthy", tone: "good", rank: 0 };
}

/// The endpoints that a search finds: all where the host itself is meant, null
/// where there is neither the host nor one of its endpoints.
export function endpointsMatching(report, words) {
  const text = (...parts) => parts.filter(Boolean).join("\n").toLowerCase();
  const host = text(report.host.id, report.host.name);
  if (words.every((word) => host.includes(word))) return report.endpoints;
  const found = report.endpoints.filter((e) => {
    const all = text(host, e.address, e.name, e.upstream, e.backend);
    return words.every((word) => all.includes(word));
  });
  return found.length > 0 ? found : null;
}

const known = (value) => value !== null && value !== undefined;
/// A name with its address, unless it has that already.
export const named = (name, address) => (name && !name.endsWith(address) ? `${name} (${address})` : name || address);

/// Sums histograms of one scale, bucket by bucket; null where there is none.
export function merged(histograms) {
  const all = histograms.filter((h) => known(h) && h.buckets.length > 0);
  if (all.length === 0) return null;
  const { scale } = all[0];
  const offset = Math.min(...all.map((h) => h.offset));
  const length = Math.max(...all.map((h) => h.offset + h.buckets.length)) - offset;
  const buckets = new Array(length).fill(0);
  for (const h of all.filter((one) => one.scale === scale)) {
    h.buckets.forEach((n, i) => { buckets[h.offset - offset + i] += n; });
  }
  return { scale, offset, buckets };
}

/// The quantile in milliseconds, as the collector computes it: within a bucket the
/// values are taken as spread evenly on the logarithmic scale.
export function quantile(histogram, q) {
  const total = histogram?.buckets.reduce((a, b) => a + b, 0) ?? 0;
  if (total === 0) return null;
  const rank = q * total;
  let below = 0;
  let exponent = 0;
  for (const [i, n] of histogram.buckets.entries()) {
    if (n === 0) continue;
    exponent = histogram.offset + i + Math.min(1, Math.max(0, (rank - below) / n));
    below += n;
    if (below >= rank) break;
  }
  return 1000 * 2 ** (exponent * 2 ** -histogram.scale);
}

const all = (classes) => sum(Object.values(classes).filter((n) => typeof n === "number"));
/// Responses that end a request; one of 1xx announces another.
const final = (classes) => all({ ...classes, "1xx": null });

/// The accept queues of listeners, each once: the endpoints of one listener on several
/// addresses share its queue.
export function acceptQueues(parts) {
  const queues = new Map();
  for (const { host, endpoint, report } of parts) {
    const queue = endpoint.accept_queue;
    if (queue) queues.set(JSON.stringify([host, endpoint.target, queue.listener]), { ...queue, host, report });
  }
  return [...queues.values()];
}

/// How full the fullest is, in percent.
const fullest = (queues) => (queues.length === 0 ? null
  : Math.max(...queues.map(({ connections_max: most, limit }) => 100 * most / Math.max(1, limit))));

/// What is spoken besides HTTP/1, and the counter that tells.
const SPOKEN = {
  TLS: "tls_handshakes",
  "HTTP/2": "connections_http2",
  FastCGI: "connections_fastcgi",
  uwsgi: "connections_uwsgi",
  memcached: "connections_memcached",
  Redis: "connections_redis",
  PostgreSQL: "connections_postgresql",
};

/// The figures of one endpoint, or of several together: each part is an endpoint and
/// the report that it is of.  Null is what none of them has measured.
export function figures(parts) {
  const total = (of) => sum(parts.map(({ endpoint }) => of(endpoint)));
  const perSecond = (of) => sum(parts.map(({ endpoint, report }) => {
    const n = of(endpoint);
    return known(n) ? rate(n, report) : null;
  }));
  // A share of nothing is not known.
  const share = (n, of) => (n !== null && of > 0 ? 100 * n / of : null);
  const errors = total((e) => e.responses?.["5xx"]);
  const durations = merged(parts.map(({ endpoint }) => endpoint.exchange_duration));
  const trips = total((e) => e.srtt?.samples);
  const tls = merged(parts.map(({ endpoint }) => endpoint.tls_handshake_duration));
  const queues = acceptQueues(parts);
  return {
    requests: perSecond((e) => e.requests),
    errors,
    errorPercent: share(errors, total((e) => e.responses && final(e.responses))),
    unanswered: total((e) => e.requests_without_response),
    failed: total((e) => all(e.connections_failed)),
    resets: total((e) => e.closed_reset_received),
    received: perSecond((e) => e.bytes_received),
    sent: perSecond((e) => e.bytes_sent),
    active: total((e) => e.connections_active),
    queue: fullest(queues),
    queues,
    retransmits: total((e) => e.retransmits),
    // What is not HTTP/1 (TLS, HTTP/2) shows the turns of its streams alone.
    unseen: parts.every(({ endpoint }) => endpoint.protocol === "other"),
    turns: parts.some(({ endpoint }) => endpoint.protocol === "other" || endpoint.protocol === "mixed"),
    exchanges: perSecond((e) => e.exchanges),
    p50: quantile(durations, 0.5),
    p99: quantile(durations, 0.99),
    connect: quantile(merged(parts.map(({ endpoint }) => endpoint.connect_duration)), 0.99),
    tls: parts.some(({ endpoint }) => endpoint.totals?.tls_handshakes > 0),
    spoken: Object.keys(SPOKEN)
      .filter((name) => parts.some(({ endpoint }) => endpoint.totals?.[SPOKEN[name]] > 0))
      .join(", "),
    tlsFailed: total((e) => (known(e.tls_handshakes_failed_alert) && known(e.tls_handshakes_failed_end)
      ? e.tls_handshakes_failed_alert + e.tls_handshakes_failed_end : null)),
    tlsP50: quantile(tls, 0.5),
    tlsP99: quantile(tls, 0.99),
    rtt: trips ? total((e) => e.srtt && e.srtt.mean_us * e.srtt.samples) / trips : null,
  };
}

/// The hosts whose figures say something of now.
export const reporting = (hosts) => hosts.filter((host) => host.health.word !== "silent");

/// The endpoints of a role, each with its report.
const partsOf = (hosts, role) => hosts
  .flatMap(({ id, report, endpoints }) => (endpoints ?? report.endpoints)
    .filter((endpoint) => endpoint.role === role)
    .map((endpoint) => ({ host: id, endpoint, report })));

function grouped(parts, keyOf) {
  const groups = new Map();
  for (const part of parts) {
    const key = keyOf(part);
    const group = groups.get(key);
    if (group) group.push(part);
    else groups.set(key, [part]);
  }
  return [...groups];
}

/// A group of endpoints with their figures together.
const group = (key, label, parts) => ({
  key,
  label,
  parts,
  hosts: new Set(parts.map(({ host }) => host)).size,
  addresses: [...new Set(parts.map(({ endpoint }) => endpoint.address))],
  ...figures(parts),
});

/// How a table may be ordered: the largest first.  Failures come before what is
/// merely slow.
export const ORDERS = ["requests", "errorPercent", "failed", "unanswered", "resets", "p50", "p99", "active", "queue", "received", "sent"];
const by = (order) => (a, b) => (b[order] ?? -1) - (a[order] ?? -1) || a.label.localeCompare(b.label) || a.key.localeCompare(b.key);
const worstFirst = (a, b) => b.failed - a.failed || (b.errorPercent ?? 0) - (a.errorPercent ?? 0)
  || (b.p99 ?? 0) - (a.p99 ?? 0) || a.key.localeCompare(b.key);

const listenerKey = ({ endpoint }) => endpoint.name || endpoint.address;
const backendKey = ({ endpoint }) => endpoint.address;

/// Listeners of all hosts: those of one name are one.
export function listeners(hosts, order) {
  return grouped(partsOf(hosts, "downstream"), listenerKey)
    .map(([key, parts]) => {
      const { name, address } = parts[0].endpoint;
      return group(key, parts.length === 1 ? named(name, address) : key, parts);
    })
    .sort(by(order ?? "requests"));
}

/// A listener on several addresses, by where it listens; undefined where none is.
export function listenerAt(hosts, address) {
  const parts = partsOf(hosts, "downstream").filter(({ endpoint }) => endpoint.accept_queue?.listener === address);
  return parts.length === 0 ? undefined : group(address, address, parts);
}

/// Upstreams of all hosts with their backends; those of one name are one.
export function upstreams(hosts, order) {
  return grouped(partsOf(hosts, "upstream"), ({ endpoint }) => endpoint.upstream)
    .map(([key, parts]) => ({
      ...group(key, key || "Backends without an upstream's name", parts),
      backends: grouped(parts, backendKey)
        .map(([address, ones]) => group(address, named(ones[0].endpoint.backend || ones[0].endpoint.name, address), ones))
        .sort(order ? by(order) : worstFirst),
    }))
    .sort(by(order ?? "requests"));
}

/// What a group's figures are on each of its hosts.
export function perHost({ parts }, order) {
  return grouped(parts, ({ host }) => host)
    .map(([id, ones]) => group(id, ones[0].report.host.name || id, ones))
    .sort(by(order ?? "requests"));
}

/// Nodes of a column of the map; the others are one node.
const NODES_MAX = 9;
const SEVERITIES = ["", "info", "warning", "critical"];
const TONES = { critical: "bad", warning: "warn", info: "", "": "" };

/// The worst that the collector says of these endpoints.
function toneOf(parts, severities) {
  const worst = parts.flatMap(({ host, endpoint }) => [endpoint.address, endpoint.accept_queue?.listener]
    .map((address) => SEVERITIES.indexOf(severities.get(`${host} ${address}`) ?? "")));
  return TONES[SEVERITIES[Math.max(0, ...worst)]];
}

function severitiesOf(problems) {
  const found = new Map();
  for (const { severity, subject } of problems ?? []) {
    const key = `${subject.host_id} ${subject.endpoint}`;
    if (SEVERITIES.indexOf(severity) > SEVERITIES.indexOf(found.get(key) ?? "")) found.set(key, severity);
  }
  return found;
}

function proxyLabel({ endpoint, report }) {
  const target = report.targets.find(({ path }) => path === endpoint.target);
  const called = target?.container || target?.unit || target?.process;
  const host = report.host.name || report.host.id;
  return called ? `${called} on ${host}` : host;
}

/// The service map: clients, listeners, proxies, upstreams and backends of hosts, and
/// what flows between them.  Whether a listener's requests go to an
/// upstream is known by the proxy that has both.
export function mapOf(hosts, problems) {
  const severities = severitiesOf(problems);
  const down = partsOf(hosts, "downstream");
  const up = partsOf(hosts, "upstream");
  const proxyKey = ({ host, endpoint }) => `${host} ${endpoint.target}`;
  const upstreamKey = ({ endpoint }) => endpoint.upstream;
  const columnOf = (prefix, parts, keyOf, describe) => {
    const sorted = grouped(parts, keyOf)
      .map(([key, ones]) => ({ ...group(key, "", ones), ...describe(key, ones) }))
      .sort(by("requests"));
    const shown = sorted.length > NODES_MAX ? sorted.slice(0, NODES_MAX - 1) : sorted;
    const rest = sorted.slice(shown.length);
    const nodes = shown.map((node) => ({ ...node, id: `${prefix} ${node.key}` }));
    const others = rest.flatMap((node) => node.parts);
    if (rest.length > 0) nodes.push({ ...group("", `${rest.length} more`, others), id: `${prefix}~other` });
    const ids = new Map(nodes.flatMap(({ id, parts: ones }) => ones.map((part) => [part, id])));
    return {
      nodes: nodes.map((node) => ({ ...node, tone: toneOf(node.parts, severities) })),
      idOf: (part) => ids.get(part),
    };
  };
  const listening = columnOf("listener", down, listenerKey, (key) => ({ label: key, href: { listener: key } }));
  const proxies = columnOf("proxy", [...down, ...up], proxyKey, (_, ones) => ({ label: proxyLabel(ones[0]), href: { host: ones[0].host } }));
  // Its own figures would mix what it was asked with what it asked.
  const bare = proxies.nodes.map(({ id, label: text, href }) => ({ id, label: text, href, tone: "", ...figures([]) }));
  const groups = columnOf("upstream", up, upstreamKey, (key) => ({ label: key || "no name", href: { upstream: key } }));
  const ends = columnOf("backend", up, (part) => `${upstreamKey(part)} ${backendKey(part)}`, (_, [{ endpoint }]) => ({
    label: endpoint.backend || endpoint.name || endpoint.address,
    href: { upstream: endpoint.upstream, backend: endpoint.address },
  }));
  // Beside their upstreams, so that edges do not cross.
  const rank = ({ parts: [part] }) => groups.nodes.findIndex(({ id }) => id === groups.idOf(part));
  ends.nodes.sort((a, b) => rank(a) - rank(b));
  const clients = down.length > 0 ? [{ id: "clients", label: "Clients", tone: "", ...figures([]) }] : [];
  const edges = [
    [down, () => "clients", listening.idOf],
    [down, listening.idOf, proxies.idOf],
    [up, proxies.idOf, groups.idOf],
    [up, groups.idOf, ends.idOf],
  ].flatMap(([parts, from, to]) => grouped(parts, (part) => JSON.stringify([from(part), to(part)]))
    .map(([pair, ones]) => {
      const [a, b] = JSON.parse(pair);
      return { from: a, to: b, tone: toneOf(ones, severities), ...figures(ones) };
    }));
  return { columns: [clients, listening.nodes, bare, groups.nodes, ends.nodes], edges };
}

/// The fleet's tiles: of hosts that report now.
export function overview(hosts) {
  const { requests, received, sent, active } = figures(partsOf(reporting(hosts), "downstream"));
  return { hosts: hosts.length, healthy: hosts.filter((host) => host.health.rank === 0).length, requests, received, sent, active };
}
