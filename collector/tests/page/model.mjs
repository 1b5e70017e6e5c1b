// What the page makes of reports, without a page.
// Argument: the directory of its modules.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";

async function load(name) {
  const text = await readFile(`${process.argv[2]}/${name}`, "utf8");
  return import(`data:text/javascript,${encodeURIComponent(text)}`);
}
const { Fleet, health } = await load("model.js");
const { counted } = await load("format.js");

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

// Silence is judged by the host's own windows.
for (const [windowS, words] of [
  [5, { 14: "healthy", 16: "late", 61: "silent" }],
  [120, { 179: "healthy", 181: "late", 299: "late", 301: "silent" }],
]) {
  for (const [ageS, word] of Object.entries(words)) {
    const host = { seenAtMs: T0, report: { ...report(1, 1, 0), window_duration_ns: windowS * 1e9 } };
    assert.equal(health(host, T0 + ageS * 1000).word, word, `${windowS} s, ${ageS} s`);
  }
}

assert.deepEqual([0, 1, 2].map((n) => counted(n, "step", "steps")), ["0 steps", "1 step", "2 steps"]);
