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

function link({ kind, subject }, text, href) {
  const made = element("a", "", printable(text));
  made.href = href;
  made.dataset.focus = `problem ${kind} ${text} ${subject.host_id} ${subject.endpoint ?? ""}`;
  return made;
}

/// The listener or backend that a problem is of, where its figures are.
function thing(problem, address) {
  const { type, listener, upstream, backend, endpoint } = problem.subject;
  const nowhere = { host: null, listener: null, upstream: null, backend: null };
  if (type === "listener" && (listener || endpoint)) return link(problem, listener || endpoint, address({ ...nowhere, listener: listener || endpoint }));
  if (type !== "backend" || !endpoint) return null;
  return link(problem, [upstream, backend || endpoint].filter(Boolean).join("/"), address({ ...nowhere, upstream: upstream ?? "", backend: endpoint }));
}

function one(problem, address) {
  const host = link(problem, problem.subject.host, address({ host: problem.subject.host_id, listener: null, upstream: null, backend: null }));
  const of = thing(problem, address);
  const facts = element("p", "note", ...(of ? [of, " on "] : []), host, " · ", since(problem),
    printable(` · ${problem.evidence.map(figure).join(" · ")}`));
  const details = (problem.details ?? []).map((line) => element("p", "note", printable(line)));
  return element("li", "", element("p", "", badge(problem.severity, TONES[problem.severity] ?? ""), " ", element("strong", "", printable(problem.summary))),
    facts, ...details, element("p", "note", `Next: ${printable(problem.next)}`));
}

/// Whether a problem is of what the reader has chosen: a host, a listener, an upstream
/// or a backend.
function isOf({ subject }, chosen, listensOn) {
  const { host, listener, upstream, backend } = chosen;
  if (host !== undefined) return subject.host_id === host || subject.host === host;
  if (listener !== undefined) {
    return subject.type === "listener" && ((subject.listener || subject.endpoint) === listener || listensOn.includes(`${subject.host_id} ${subject.endpoint}`));
  }
  return subject.type === "backend" && (subject.upstream ?? "") === upstream && (backend === undefined || subject.endpoint === backend);
}

/// The answer of the collector as elements: all, or of what is chosen; `listensOn` are
/// the hosts and addresses whose queues a chosen listener's connections wait in.
export function problemList(answer, chosen, address, listensOn = []) {
  const all = chosen === null ? answer.problems : answer.problems.filter((problem) => isOf(problem, chosen, listensOn));
  if (all.length === 0 && answer.total > answer.problems.length) {
    return [element("p", "note", `Nothing is wrong here among the worst ${answer.problems.length} of ${answer.total} problems; the others are not told.`)];
  }
  if (all.length === 0) {
    const where = chosen === null ? `on ${counted(answer.hosts, "host", "hosts")}` : `on this ${Object.keys(chosen).at(-1)}`;
    return [element("p", "well", answer.hosts === 0 ? "No host has reported yet: nothing can be judged." : `Nothing is wrong ${where}.`)];
  }
  const list = element("ol", "problems", ...all.slice(0, SHOWN_MAX).map((problem) => one(problem, address)));
  const total = chosen === null ? answer.total : all.length;
  const left = total - Math.min(all.length, SHOWN_MAX);
  return left > 0 ? [list, element("p", "note", `${left} more: speedmimi problems`)] : [list];
}
