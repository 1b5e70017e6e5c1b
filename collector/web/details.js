// One host in detail, as its newest report has it: listeners, backends, sockets,
// losses, and what the host itself does.

import { element, label, table } from "/dom.js";
import { FIGURES } from "/figures.js";
import { age, bytes, bytesPerSecond, count, known, microseconds, percent, printable } from "/format.js";
import { rate } from "/model.js";
import { listenerTable, upstreamTable } from "/where.js";

/// By what sockets are ordered: the largest first.
const SOCKET_ORDERS = {
  bytes: { title: "Bytes", of: (s) => s.bytes_received + s.bytes_sent },
  rtt: { title: "RTT", of: (s) => s.srtt_us },
  retransmits: { title: FIGURES.retransmits.title, of: (s) => s.retransmits },
  age: { title: "Age", of: (s) => s.age_ms ?? -1 },
  requests: { title: FIGURES.requests.title, of: (s) => s.requests },
};

const socketsBy = (report, order) =>
  [...report.top_sockets].sort((a, b) => SOCKET_ORDERS[order].of(b) - SOCKET_ORDERS[order].of(a));

function socketTable(report, order, address) {
  const chosen = Object.hasOwn(SOCKET_ORDERS, order ?? "") ? order : "bytes";
  const heads = Object.entries(SOCKET_ORDERS).map(([name, { title }]) => {
    const link = element("a", "", title);
    link.href = address({ sort: name });
    link.dataset.focus = `sort ${name}`;
    if (name === chosen) link.dataset.sorted = "true";
    return link;
  });
  return table({
    key: "sockets",
    caption: "Top sockets by bytes",
    heads: ["Role", "Local", "Remote", "State", ...heads],
    words: 4,
    rows: socketsBy(report, chosen).map((s) => [
      s.role, label(s.local), label(s.client || s.remote), printable(s.state),
      `${bytes(s.bytes_received)} in, ${bytes(s.bytes_sent)} out`,
      microseconds(s.srtt_us), count(s.retransmits), known(s.age_ms, (ms) => age(ms / 1000)), count(s.requests),
    ]),
  });
}

/// Who uses the listeners: the largest of the newest report, the others, and all of them.
function clientTable(report) {
  const { clients } = report;
  if (!clients || clients.top.length === 0) return null;
  const row = (name, f) => [
    name, bytesPerSecond(rate(f.bytes_received, report)), bytesPerSecond(rate(f.bytes_sent, report)),
    count(f.connections_opened), known(f.requests, count), known(f.requests_without_response, count),
    count(f.closed_reset_received),
  ];
  // A connection of an earlier report may only now be told of.
  const other = Object.fromEntries(
    Object.entries(clients.other).map(([name, n]) => [name, n === null ? null : Math.max(0, n)]));
  return table({
    key: "clients",
    caption: "Clients by bytes",
    heads: ["Client", "In", "Out", "Connections", FIGURES.requests.title, "Unanswered", "Reset"],
    words: 1,
    rows: [...clients.top.map((client) => row(label(client.address), client)), row("~other", other)],
  });
}

function lossTable(report) {
  const reasons = Object.entries(report.losses_totals).filter(([, n]) => n > 0).sort(([, a], [, b]) => b - a);
  return reasons.length === 0 ? null : table({
    key: "losses",
    caption: "Went uncounted",
    heads: ["Reason", "In this report", "In all"],
    words: 1,
    rows: reasons.map(([reason, all]) => [label(reason), count(report.losses[reason] ?? 0), count(all)]),
  });
}

function machineTables(report) {
  const m = report.host_metrics;
  const perReport = (n) => bytesPerSecond(rate(n, report));
  return [
    m.cpu && {
      key: "cpu", caption: `CPU, ${m.cpu.cores.length} cores`, words: 0,
      heads: ["User", "System", "I/O wait", "Soft interrupts", "Steal", "Busiest core"],
      rows: [[...[m.cpu.user + m.cpu.nice, m.cpu.system, m.cpu.iowait, m.cpu.softirq, m.cpu.steal, Math.max(0, ...m.cpu.cores)].map(percent)]],
    },
    m.memory && {
      key: "memory", caption: "Memory", words: 0,
      heads: ["All", "Available", "Page cache", "Swap", "Swap used"],
      rows: [[m.memory.total_bytes, m.memory.available_bytes, m.memory.cached_bytes, m.memory.swap_total_bytes,
        m.memory.swap_total_bytes - m.memory.swap_free_bytes].map(bytes)],
    },
    m.pressure.length > 0 && {
      key: "pressure", caption: "Pressure: time in which tasks waited, last 10 s", words: 1,
      heads: ["Resource", "Some task", "All tasks"],
      rows: m.pressure.map((p) => [printable(p.resource), percent(p.some_avg10), percent(p.full_avg10)]),
    },
    m.disks.length > 0 && {
      key: "disks", caption: "Disks", words: 1, heads: ["Device", "Read", "Written", "Busy"],
      rows: m.disks.map((d) => [label(d.device), perReport(d.read_bytes), perReport(d.written_bytes), percent(rate(d.io_time_ms, report) / 10)]),
    },
    m.interfaces.length > 0 && {
      key: "interfaces", caption: "Network interfaces", words: 1,
      heads: ["Device", "In", "Out", "Errors", "Dropped"],
      rows: m.interfaces.map((i) => [label(i.device), perReport(i.receive_bytes), perReport(i.transmit_bytes),
        count(i.receive_errors + i.transmit_errors), count(i.receive_dropped + i.transmit_dropped)]),
    },
    report.targets.length > 0 && {
      key: "targets", caption: "Watched", words: 1, heads: ["Cgroup", "CPU", "Throttled", "Memory", "Limit"],
      rows: report.targets.map((t) => [label(t.unit || t.container || t.path), percent(rate(t.cpu_usage_us, report) / 1e4),
        percent(rate(t.throttled_us, report) / 1e4), known(t.memory_bytes, bytes),
        known(t.memory_limit_bytes, bytes)]),
    },
  ].filter(Boolean).map(table);
}

/// Everything below the host's card.
export function details(host, sort, view) {
  const { report } = host;
  const sockets = report.top_sockets.length > 0 ? socketTable(report, sort, view.address) : null;
  const panel = (one) => element("div", "panel", one);
  return [
    ...[listenerTable([host], view), upstreamTable([host], view), clientTable(report), sockets, lossTable(report)]
      .filter(Boolean).map(panel),
    element("div", "panels", ...machineTables(report).map(panel)),
  ];
}
