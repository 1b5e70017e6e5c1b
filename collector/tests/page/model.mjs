// What the page makes of reports, without a page.
// Argument: the directory of its modules.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";

async function load(name) {
  const text = await readFile(`${process.argv[2]}/${name}`, "utf8");
  return import(`data:text/javascript,${encodeURIComponent(text)}`);
}
const { Fleet, health } = await load("model.js");
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
