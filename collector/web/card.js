// A host at a glance: its health and its gauges.

import { badge, bar, element, label, svg } from "/dom.js";
import { age, bytesPerSecond, known, percent, printable } from "/format.js";

function gauge(name, value) {
  return element("div", "gauge", element("span", "", name), bar(value), known(value, percent));
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

function notes(report) {
  const lost = Object.entries(report.losses).filter(([, n]) => n > 0)
    .map(([reason, n]) => `${reason}: ${n}`);
  return printable([...report.incomplete_reasons, ...(report.notes ?? []), ...lost].join(" · "));
}

/// Shows the host.
export function hostCard(host, nowMs, href) {
  const { report, health } = host;
  const m = report.host_metrics;
  // What is a level is shown as it is; what is used in a time, over the window.
  const last = (g) => g?.last ?? null;
  const mean = (g) => g?.mean ?? null;
  const link = element("a", "", label(report.host.name || report.host.id));
  link.href = href;
  link.dataset.focus = `host ${report.host.id}`;
  const seen = `report ${report.sequence}, ${age((nowMs - host.seenAtMs) / 1000)} ago, level ${report.agent.level}`;
  const id = element("span", "id", label(report.host.id));
  const line = element("div", "bar", element("h3", "", link), badge(health.word, health.tone), id, element("span", "id", seen));
  if (host.history.length > 1) line.append(spark(host.history));
  const gauges = element("div", "gauges",
    gauge("CPU", mean(m.cpu_usage)), gauge("Memory", last(m.memory_usage)), gauge("Disk", last(m.disk_usage)),
    figure("Load", known(last(m.load_avg_1), (v) => v.toFixed(2))),
    figure("Network in", known(mean(m.network_in), bytesPerSecond)),
    figure("out", known(mean(m.network_out), bytesPerSecond)));
  const card = element("article", "host", line, gauges);
  card.dataset.host = report.host.id;
  const note = notes(report);
  if (note) card.append(element("p", "note", note));
  return card;
}
