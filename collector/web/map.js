// The service map: who talks to whom, how much, and where something is wrong.  The
// tables below it hold the same in words, for keyboards and screen readers.

import { svg } from "/dom.js";
import { count, known, milliseconds, percent, perSecond, printable } from "/format.js";
import { mapOf } from "/model.js";

const NODE = { height: 40, gap: 12 };
/// Where each column begins and how wide its nodes are.
const COLUMNS = [
  { x: 0, width: 84, title: "" },
  { x: 164, width: 190, title: "Listeners" },
  { x: 434, width: 170, title: "Proxies" },
  { x: 684, width: 170, title: "Upstreams" },
  { x: 934, width: 226, title: "Backends" },
];
const WIDTH = 1160;
const HEAD = 22;
/// Of a letter, about; what is longer is cut, and whole in its title.
const LETTER = 7.2;

const cut = (text, width) => {
  const most = Math.floor(width / LETTER);
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
};

/// What flows: requests, the turns of what is not HTTP/1, or connections.
function flow({ unseen, requests, exchanges, active }) {
  if (requests !== null && !unseen) return perSecond(requests);
  return exchanges !== null && unseen ? `${perSecond(exchanges)} turns` : `${known(active, count)} open`;
}

const wrong = (f) => [
  f.errorPercent > 0 ? `${percent(f.errorPercent)} 5xx` : "",
  f.failed > 0 ? `${count(f.failed)} failed` : "",
].filter(Boolean).join(", ");

function nodeElement(node, { x, width }, y, address) {
  const inside = width - 18;
  const second = [known(node.p99, (ms) => `p99 ${milliseconds(ms)}`), wrong(node)].filter((part) => part && part !== "–").join(" · ");
  const whole = [node.label, node.parts ? flow(node) : "", second].filter(Boolean).join(", ");
  const made = svg("g", { class: `node ${node.tone}`, transform: `translate(${x} ${y})` },
    svg("title", {}, printable(whole)),
    svg("rect", { width, height: NODE.height, rx: 7 }),
    svg("text", { x: 9, y: second ? 17 : 25 }, cut(printable(node.label), inside)),
    ...(second ? [svg("text", { x: 9, y: 32, class: "dim" }, cut(second, inside * 1.15))] : []));
  if (!node.href) return made;
  return svg("a", { href: address(node.href), tabindex: -1 }, made);
}

function edgeElement({ from, to, tone, ...figures }, largest) {
  const [x1, y1, x2, y2] = [from.x, from.y, to.x, to.y];
  const middle = (x1 + x2) / 2;
  const amount = figures.requests ?? figures.exchanges ?? 0;
  const width = 1.5 + (largest > 0 ? 6.5 * Math.sqrt(amount / largest) : 0);
  return svg("path", {
    class: `edge ${tone}`,
    d: `M${x1} ${y1}C${middle} ${y1} ${middle} ${y2} ${x2} ${y2}`,
    "stroke-width": width.toFixed(1),
  });
}

/// What an edge carries: beside that of its ends where fewer edges meet.
function edgeLabel({ from, to, fans, ...figures }) {
  const share = fans ? 0.72 : 0.28;
  // The curve's height there, of a cubic with level ends.
  const rise = share * share * (3 - 2 * share);
  const at = { x: from.x + share * (to.x - from.x), y: from.y + rise * (to.y - from.y) };
  return svg("text", { class: `on-edge ${wrong(figures) ? "bad" : ""}`, x: at.x, y: at.y + 4, "text-anchor": "middle" }, flow(figures));
}

/// The map of these hosts; null where nothing flows.
export function serviceMap(hosts, problems, address) {
  const { columns, edges } = mapOf(hosts, problems);
  if (edges.length === 0) return null;
  const heightOf = (nodes) => nodes.length * (NODE.height + NODE.gap) - NODE.gap;
  const height = Math.max(...columns.map(heightOf));
  const places = new Map();
  const nodes = columns.flatMap((column, i) => {
    const place = COLUMNS[i];
    const top = HEAD + (height - heightOf(column)) / 2;
    return column.map((node, k) => {
      const y = top + k * (NODE.height + NODE.gap);
      places.set(node.id, { left: place.x, right: place.x + place.width, y: y + NODE.height / 2 });
      return nodeElement(node, place, y, address);
    });
  });
  const placed = edges.map(({ from, to, ...edge }) => {
    const [a, b] = [places.get(from), places.get(to)];
    const meeting = (end) => edges.filter((other) => other[end] === (end === "from" ? from : to)).length;
    return { ...edge, from: { x: a.right, y: a.y }, to: { x: b.left, y: b.y }, fans: meeting("from") >= meeting("to") };
  });
  const largest = Math.max(0, ...placed.map((edge) => edge.requests ?? edge.exchanges ?? 0));
  const titles = COLUMNS.filter(({ title }, i) => title && columns[i].length > 0)
    .map(({ x, title }) => svg("text", { class: "dim", x, y: 12 }, title));
  return svg("svg", { class: "map", viewBox: `0 0 ${WIDTH} ${height + HEAD + 4}`, "aria-hidden": "true", focusable: "false" },
    ...titles, ...placed.map((edge) => edgeElement(edge, largest)), ...nodes, ...placed.map(edgeLabel));
}
