// What is wrong now, worst first: the first thing that the page says.

import { badge, element } from "/dom.js";
import { counted, known, milliseconds, count, printable } from "/format.js";

const TONES = { critical: "bad", warning: "warn", info: "" };
/// Problems that are shown; the others are counted.
const SHOWN_MAX = 20;

function figure({ name, value, unit }) {
  const text = {
    ratio: (v) => `${Number((v * 100).toPrecision(3))} %`,
    seconds: (v) => milliseconds(v * 1000),
    times: (v) => `${v.toFixed(1)} times`,
  }[unit] ?? ((v) => `${count(v)} ${unit}`);
  return `${name} ${known(value, text)}`;
}

function since(problem) {
  const at = new Date(problem.since);
  const time = element("time", "", at.toLocaleTimeString());
  time.dateTime = problem.since;
  time.title = at.toLocaleString();
  return element("span", "", "since ", time);
}

function one(problem, address) {
  const host = element("a", "", printable(problem.subject.host));
  host.href = address({ host: problem.subject.host_id });
  host.dataset.focus = `problem ${problem.kind} ${problem.subject.host_id} ${problem.subject.endpoint ?? ""}`;
  const facts = element("p", "note", host, " · ", since(problem),
    printable(` · ${problem.evidence.map(figure).join(" · ")}`));
  const details = (problem.details ?? []).map((line) => element("p", "note", printable(line)));
  return element("li", "", element("p", "", badge(problem.severity, TONES[problem.severity] ?? ""), " ", element("strong", "", printable(problem.summary))),
    facts, ...details, element("p", "note", `Next: ${printable(problem.next)}`));
}

/// The answer of the collector as elements; of one host where it is chosen.
export function problemList(answer, chosen, address) {
  const all = answer.problems.filter(({ subject }) => chosen === null || subject.host_id === chosen || subject.host === chosen);
  if (all.length === 0) {
    const where = chosen === null ? `on ${counted(answer.hosts, "host", "hosts")}` : "on this host";
    return [element("p", "well", answer.hosts === 0 ? "No host has reported yet: nothing can be judged." : `Nothing is wrong ${where}.`)];
  }
  const list = element("ol", "problems", ...all.slice(0, SHOWN_MAX).map((problem) => one(problem, address)));
  const total = chosen === null ? answer.total : all.length;
  const left = total - Math.min(all.length, SHOWN_MAX);
  return left > 0 ? [list, element("p", "note", `${left} more: speedmimi problems`)] : [list];
}
