// What the page makes of reports, without a page.
// Argument: the directory of its modules.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";

async function load(name) {
  const text = await readFile(`${process.argv[2]}/${name}`, "utf8");
  return import(`data:text/javascript,${encodeURIComponent(text)}`);
}
const { Fleet, figures, health, listenerAt, listeners, mapOf, merged, overview, quantile, reporting, upstreams } = await load("model.js");
const { count, counted, milliseconds } = await load("format.js");
const { linearTicks, logTicks } = await load("ticks.js");

const T0 = Date.parse("2025-11-23T01:00:00Z");
const report = (epoch, sequence, endS) => ({
  host: { id: "a", name: "a" },
  agent: { epoch },
  sequence,
  window_end: new Date(T0 + endS * 1000).toISOString(),
  window_duration_ns: 5e9,
  complete: true,
  losses: {},
  endpoints: [],
});

// Of two agents the later is shown until it is silent.
{
  const fleet = new Fleet();
  assert.equal(fleet.add(report(2, 0, -5), T0), true, "the collector is to be asked for its bounds");
  fleet.know({ host: { id: "a" }, age_ms: 0, late_after_ms: 15000, silent_after_ms: 60000 }, T0);
  assert.equal(fleet.add(report(2, 0, -5), T0), false);
  for (const [shown, next] of [
    [[2, 1], report(2, 1, 0)],
    [[2, 1], report(1, 8, 59)],
    [[1, 9], report(1, 9, 60)],
    [[1, 9], report(2, 2, 5)],
    [[2, 3], report(2, 3, 60)],
  ]) {
    fleet.add(next, T0);
    const { agent, sequence } = fleet.hosts.get("a").report;
    assert.deepEqual([agent.epoch, sequence], shown);
  }
}

// Silence is judged by what the collector says of the host.
for (const [bounds, words] of [
  [[15000, 60000], { 14999: "healthy", 15000: "late", 59999: "late", 60000: "silent" }],
  [[180000, 300000], { 179999: "healthy", 180000: "late", 300000: "silent" }],
  [[Infinity, Infinity], { 9e9: "healthy" }],
]) {
  for (const [ageMs, word] of Object.entries(words)) {
    const [lateAfterMs, silentAfterMs] = bounds;
    const host = { seenAtMs: T0, report: report(1, 1, 0), lateAfterMs, silentAfterMs };
    assert.equal(health(host, T0 + Number(ageMs)).word, word, `${bounds}, ${ageMs} ms`);
  }
}

// Quantiles are of all values together, computed as the collector does.
{
  const histogram = (offset, ...buckets) => ({ scale: 2, offset, buckets });
  assert.equal(merged([null, undefined, histogram(0)]), null);
  assert.equal(quantile(null, 0.5), null);
  const two = merged([histogram(-40, 3, 1), null, histogram(-42, 4)]);
  assert.deepEqual(two, histogram(-42, 4, 0, 3, 1));
  assert.equal(quantile(two, 0.5), 1000 * 2 ** (-41 / 4));
  assert.equal(quantile(two, 1), 1000 * 2 ** (-38 / 4));
}

const endpoint = (role, address, more) => ({
  role, address, name: "", upstream: "", backend: "", target: "/t", protocol: "http1", connections_active: 1,
  requests: 50, responses: { "2xx": 40, "5xx": 10, "4xx": null }, requests_without_response: 0,
  connections_failed: { refused: 0 }, bytes_received: 5, bytes_sent: 10, closed_reset_received: 0, retransmits: 0,
  exchanges: null, exchange_duration: null, connect_duration: null, srtt: null, ...more,
});
const host = (id, endpoints) => ({
  id, health: { word: "healthy" }, report: { ...report(1, 1, 0), host: { id, name: id }, targets: [], endpoints },
});

// Several endpoints together; what none has measured is not known, and a share of
// nothing neither.
{
  const parts = (...endpoints) => endpoints.map((one) => ({ endpoint: one, report: report(1, 1, 0) }));
  const unknown = { requests: null, responses: null, requests_without_response: null, protocol: null };
  const both = figures(parts(endpoint("upstream", "a"), endpoint("upstream", "b", { ...unknown, srtt: { samples: 3, mean_us: 100 } }),
    endpoint("upstream", "c", { srtt: { samples: 1, mean_us: 500 } })));
  assert.deepEqual([both.requests, both.errorPercent, both.unanswered, both.active, both.rtt, both.p99], [20, 20, 0, 3, 200, null]);
  const none = figures(parts(endpoint("upstream", "a", unknown)));
  assert.deepEqual([none.requests, none.errors, none.errorPercent, none.unanswered, none.received], [null, null, null, null, 1]);
  const announced = figures(parts(endpoint("upstream", "a", { responses: { "1xx": 10, "2xx": 9, "5xx": 1 } })));
  assert.equal(announced.errorPercent, 10);
  const idle = figures(parts(endpoint("upstream", "a", { requests: 0, responses: { "2xx": 0, "5xx": 0 } })));
  assert.deepEqual([idle.requests, idle.errors, idle.errorPercent], [0, 0, null]);
}

// The addresses of one listener share its queue, which counts once.
{
  const queue = (listener, connections, most, limit) => ({ listener, connections, connections_max: most, limit, drops: 0, drops_total: 0 });
  const shared = { accept_queue: queue("0.0.0.0:80", 3, 9, 10) };
  const hosts = [
    host("a", [endpoint("downstream", "10.0.0.1:80", shared), endpoint("downstream", "10.0.0.2:80", shared), endpoint("downstream", "10.0.0.1:81")]),
    host("b", [endpoint("downstream", "10.0.0.1:80", { accept_queue: queue("10.0.0.1:80", 1, 1, 100) })]),
  ];
  const found = listeners(hosts, "queue").map(({ key, queue: percent, queues }) => [key, percent, queues.length]);
  assert.deepEqual(found, [["10.0.0.1:80", 90, 2], ["10.0.0.2:80", 90, 1], ["10.0.0.1:81", null, 0]]);
  const all = listenerAt(hosts, "0.0.0.0:80");
  assert.deepEqual([all.addresses, all.queues.length, all.queue], [["10.0.0.1:80", "10.0.0.2:80"], 1, 90]);
  assert.equal(listenerAt(hosts, "0.0.0.0:81"), undefined);
  const problems = [{ severity: "critical", subject: { host_id: "a", endpoint: "0.0.0.0:80" } }];
  const [, nodes] = mapOf(hosts, problems).columns;
  assert.deepEqual(nodes.map(({ label, tone }) => [label, tone]), [["10.0.0.1:80", "bad"], ["10.0.0.1:81", ""], ["10.0.0.2:80", "bad"]]);
}

// Of one name on several hosts is one thing; silent hosts say nothing of now.
{
  const hosts = reporting([
    host("a", [endpoint("downstream", "0.0.0.0:80", { name: "shop" }), endpoint("upstream", "10.0.0.1:80", { upstream: "api" })]),
    host("b", [endpoint("downstream", "0.0.0.0:81", { name: "shop" }), endpoint("upstream", "10.0.0.2:80", { upstream: "api", backend: "two", connections_failed: { refused: 3 } })]),
    { ...host("c", [endpoint("downstream", "0.0.0.0:80", { name: "shop" })]), health: { word: "silent" } },
  ]);
  assert.deepEqual(listeners(hosts).map(({ key, hosts: n, requests }) => [key, n, requests]), [["shop", 2, 20]]);
  const [api] = upstreams(hosts);
  assert.deepEqual([api.key, api.requests, api.failed], ["api", 20, 3]);
  assert.deepEqual(api.backends.map(({ label }) => label), ["two (10.0.0.2:80)", "10.0.0.1:80"]);
  const problems = [{ severity: "warning", subject: { host_id: "b", endpoint: "10.0.0.2:80" } }];
  const { columns, edges } = mapOf(hosts, problems);
  assert.deepEqual(columns.map((nodes) => nodes.map(({ label, tone }) => [label, tone])), [
    [["Clients", ""]], [["shop", ""]], [["a", ""], ["b", ""]], [["api", "warn"]], [["10.0.0.1:80", ""], ["two", "warn"]],
  ]);
  const ids = new Set(columns.flat().map(({ id }) => id));
  assert(edges.every(({ from, to }) => ids.has(from) && ids.has(to)));
  assert.equal(edges.filter(({ from }) => from === "clients")[0].requests, 20);
}

// However many there are, the map is bounded, and what it does not name is in it.
{
  const many = Array.from({ length: 1000 }, (_, i) => endpoint("upstream", `10.0.${i >> 8}.${i & 255}:80`, { upstream: `up-${i % 20}`, requests: i }));
  const { columns, edges } = mapOf([host("a", many)], null);
  assert.deepEqual(columns.map((nodes) => nodes.length), [0, 0, 1, 9, 9]);
  assert.equal(columns[4].at(-1).label, "992 more");
  const into = edges.filter(({ from }) => columns[3].some(({ id }) => id === from));
  assert.equal(Math.round(into.reduce((n, { requests }) => n + requests, 0)), Math.round(many.reduce((n, { requests }) => n + requests, 0) / 5));
}
assert.deepEqual(mapOf([], null).edges, []);

// Without a host that reports there is no figure, which is not 0.
assert.deepEqual(overview([]), { hosts: 0, healthy: 0, requests: null, received: null, sent: null, active: null });

assert.deepEqual([0, 1, 2].map((n) => counted(n, "step", "steps")), ["0 steps", "1 step", "2 steps"]);

assert.deepEqual([0, 0.00095, 0.025, 0.15, 12, 1500].map(milliseconds), ["0.00 ms", "0.95 µs", "25 µs", "0.15 ms", "12 ms", "1.5 s"]);

assert.deepEqual([0, 0.016666, 0.05, 0.15, 1, 1.25, 1234].map(count), ["0", "0.017", "0.05", "0.15", "1", "1.3", "1.2 k"]);

// Ticks are few and within the range, whatever the range is.
assert.deepEqual(logTicks(0.00095, 0.0019, 4), [0.001]);
assert.deepEqual(logTicks(0.00095, 4096, 4), [0.001, 0.1, 10, 1000]);
assert.deepEqual(logTicks(0.5, 20, 6), [0.5, 1, 2, 5, 10, 20]);
assert.deepEqual(linearTicks(0, 1.1, 4), [0, 0.5, 1]);
assert.deepEqual(linearTicks(0, 5, 6), [0, 1, 2, 3, 4, 5]);
const odd = [0, -1, 1, 5e-324, 1e-310, 1e-12, 0.00095, 7, 1e18, 1.7e308, Infinity, -Infinity, NaN];
for (const min of odd) {
  for (const max of odd) {
    for (const wanted of [0, 0.3, 4, 1e9]) {
      for (const ticks of [linearTicks(min, max, wanted), logTicks(min, max, wanted)]) {
        const which = `${min} to ${max}, ${wanted}: ${ticks}`;
        assert(ticks.length <= 13, which);
        assert(ticks.every((tick, i) => tick >= min && tick <= max && (i === 0 || tick > ticks[i - 1])), which);
      }
    }
  }
}
