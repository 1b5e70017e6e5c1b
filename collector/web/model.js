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

const ofRole = (report, role) => report.endpoints.filter((e) => e.role === role);

/// Requests a second that clients made.
export function requestRate(report) {
  const n = sum(ofRole(report, "downstream").map((e) => e.requests));
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
export const named = (name, address) => (name ? `${name} (${address})` : address);

/// The figures of an endpoint's row.
export function row(endpoint, report) {
  return {
    role: endpoint.role,
    address: endpoint.address,
    label: named(endpoint.name || [endpoint.upstream, endpoint.backend].filter(Boolean).join("/"), endpoint.address),
    requests: endpoint.requests === null ? null : rate(endpoint.requests, report),
    errors: endpoint.responses === null ? null : endpoint.responses["5xx"],
    received: rate(endpoint.bytes_received, report),
    sent: rate(endpoint.bytes_sent, report),
    active: endpoint.connections_active,
    // What is not HTTP/1 (TLS, HTTP/2) shows the turns of its streams alone.
    unseen: endpoint.protocol === "other",
    turns: endpoint.protocol === "other" || endpoint.protocol === "mixed",
    exchanges: known(endpoint.exchanges) ? rate(endpoint.exchanges, report) : null,
    p50: endpoint.exchange_duration?.p50_ms ?? null,
    p99: endpoint.exchange_duration?.p99_ms ?? null,
  };
}

/// Upstream endpoints side by side, by upstream; the worst backend first.
export function backends(report) {
  const groups = new Map();
  for (const e of ofRole(report, "upstream")) {
    const of = row(e, report);
    const answered = e.responses === null ? 0 : Object.values(e.responses).reduce((a, b) => (typeof b === "number" ? a + b : a), 0);
    const one = {
      ...of,
      label: named(e.backend || e.name, e.address),
      errorPercent: of.errors === null ? null : (answered > 0 ? 100 * of.errors / answered : 0),
      failed: Object.values(e.connections_failed).reduce((a, b) => a + b, 0),
      connect: e.connect_duration?.p99_ms ?? null,
      rtt: e.srtt?.mean_us ?? null,
      retransmits: e.retransmits,
    };
    groups.set(e.upstream, [...(groups.get(e.upstream) ?? []), one]);
  }
  return [...groups].sort(([a], [b]) => a.localeCompare(b)).map(([name, rows]) => ({
    name,
    rows: rows.sort((a, b) => (b.failed - a.failed) || ((b.errorPercent ?? 0) - (a.errorPercent ?? 0))
      || ((b.p99 ?? 0) - (a.p99 ?? 0)) || a.address.localeCompare(b.address)),
  }));
}

/// The fleet's tiles: of hosts that report now.
export function overview(hosts) {
  const live = hosts.filter((host) => host.health.word !== "silent");
  const down = live.flatMap((host) => ofRole(host.report, "downstream")
    .map((e) => ({ e, report: host.report })));
  return {
    hosts: hosts.length,
    healthy: hosts.filter((host) => host.health.rank === 0).length,
    requests: sum(live.map((host) => requestRate(host.report))),
    received: down.reduce((n, { e, report }) => n + rate(e.bytes_received, report), 0),
    sent: down.reduce((n, { e, report }) => n + rate(e.bytes_sent, report), 0),
    active: down.reduce((n, { e }) => n + e.connections_active, 0),
  };
}
