// What is known of the fleet, and what follows from it.  No page in here.

export const LATE_AFTER_S = 15;
export const SILENT_AFTER_S = 60;
const HISTORY_MAX = 120;

const seconds = (report) => report.window_duration_ns / 1e9;
const rate = (n, report) => (seconds(report) > 0 ? n / seconds(report) : 0);

const isNewer = (a, b) =>
  a.agent.epoch !== b.agent.epoch ? a.agent.epoch > b.agent.epoch : a.sequence > b.sequence;

/// Sums what was measured; null where nothing was.
function sum(values) {
  const measured = values.filter((value) => value !== null && value !== undefined);
  return measured.length === 0 ? null : measured.reduce((a, b) => a + b, 0);
}

export class Fleet {
  constructor() {
    this.hosts = new Map();
  }

  /// Takes a report unless a newer one is known.
  add(report, seenAtMs) {
    const id = report.host.id;
    const host = this.hosts.get(id) ?? { id, seenAtMs: 0, report: null, history: [] };
    host.seenAtMs = Math.max(host.seenAtMs, seenAtMs);
    if (host.report === null || isNewer(report, host.report)) {
      host.report = report;
      host.history.push(requestRate(report) ?? 0);
      if (host.history.length > HISTORY_MAX) host.history.shift();
    }
    this.hosts.set(id, host);
  }

  /// Worst first, then by name.
  sorted(nowMs) {
    return [...this.hosts.values()]
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
  const silentFor = (nowMs - host.seenAtMs) / 1000;
  if (silentFor > SILENT_AFTER_S) return { word: "silent", tone: "bad", rank: 3 };
  if (silentFor > LATE_AFTER_S) return { word: "late", tone: "warn", rank: 2 };
  if (Object.values(host.report.losses).some((n) => n > 0)) {
    return { word: "losses", tone: "warn", rank: 2 };
  }
  if (!host.report.complete) return { word: "incomplete", tone: "warn", rank: 1 };
  return { word: "healthy", tone: "good", rank: 0 };
}

/// The figures of an endpoint's row.
export function row(endpoint, report) {
  return {
    role: endpoint.role,
    address: endpoint.address,
    label: endpoint.name ? `${endpoint.name} (${endpoint.address})` : endpoint.address,
    requests: endpoint.requests === null ? null : rate(endpoint.requests, report),
    errors: endpoint.responses === null ? null : endpoint.responses["5xx"],
    received: rate(endpoint.bytes_received, report),
    sent: rate(endpoint.bytes_sent, report),
    active: endpoint.connections_active,
    p50: endpoint.exchange_duration?.p50_ms ?? null,
    p99: endpoint.exchange_duration?.p99_ms ?? null,
  };
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
