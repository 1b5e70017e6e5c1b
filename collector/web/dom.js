// Elements.  Labels come from other machines: they are only ever set as text.

import { printable } from "/format.js";

const SVG = "http://www.w3.org/2000/svg";

export function element(name, className, ...children) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

export function svg(name, attributes, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/// A foreign text: cut to fit, whole in its title.
export function label(text) {
  const made = element("span", "label", printable(text));
  made.title = printable(text);
  return made;
}

export function badge(word, tone) {
  return element("span", `badge ${tone}`, word);
}

/// A percentage as a bar; only its frame where it is not known.
export function bar(value) {
  const made = svg("svg", { class: "share", viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("rect", { width: 100, height: 10, rx: 3 }));
  if (value !== null) {
    made.append(svg("rect", { class: "value", width: Math.min(100, Math.max(0, value)), height: 10, rx: 3 }));
  }
  return made;
}

/// An element with its role said aloud: style that turns rows into cards
/// would take it away.
function withRole(role, made) {
  made.setAttribute("role", role);
  return made;
}

/// Columns of a table beyond which names are cut where it is narrow.
const WIDE = 12;

/// A table: the first columns are words, the others figures.  A cell is a
/// text, a node, or both and a class.  Where it is narrow each row is a card,
/// and each figure has its column's head beside it (style.css).  Minor columns are
/// left out where not all have room.
export function table({ key, caption, heads, rows, words = 2, minor = [] }) {
  const classOf = (i) => (minor.includes(i) ? "minor" : "");
  const head = heads.map((content, i) => {
    const cell = withRole("columnheader", element("th", classOf(i), content));
    cell.scope = "col";
    if (content.dataset?.sorted) cell.setAttribute("aria-sort", "descending");
    return cell;
  });
  const named = (cell, i) => {
    const made = cell?.content ? element("td", cell.className, ...cell.content) : element("td", classOf(i), cell);
    made.dataset.head = head[i].textContent;
    return withRole("cell", made);
  };
  const row = (cells) => withRole("row", element("tr", "", ...cells));
  const made = withRole("table", element("table", `words-${words}${heads.length > WIDE ? " wide" : ""}`,
    withRole("rowgroup", element("thead", "", row(head))),
    withRole("rowgroup", element("tbody", "", ...rows.map((cells) => row(cells.map(named)))))));
  if (caption) made.prepend(element("caption", "", caption));
  const scroll = element("div", "scroll", made);
  scroll.dataset.scroll = key;
  scroll.dataset.focus = `scroll ${key}`;
  return scroll;
}

/// Puts new children in place of the old ones; the keyboard's place and how
/// far a table and the page were scrolled stay.
export function redraw(parent, children) {
  const focused = parent.contains(document.activeElement) ? document.activeElement.dataset.focus : undefined;
  const scrolled = [...parent.querySelectorAll("[data-scroll]")]
    .filter((one) => one.scrollLeft > 0)
    .map((one) => [one.dataset.scroll, one.scrollLeft]);
  parent.replaceChildren(...children);
  // What scrolls must be within the keyboard's reach.  All are measured before
  // the first is changed: each change would have the page laid out anew.
  const wide = [...parent.querySelectorAll("[data-scroll]")].filter((one) => one.scrollWidth > one.clientWidth);
  for (const one of wide) {
    one.tabIndex = 0;
    one.setAttribute("role", "region");
    one.setAttribute("aria-label", one.querySelector("caption")?.textContent ?? "Endpoints");
  }
  for (const [key, left] of scrolled) {
    const now = parent.querySelector(`[data-scroll="${CSS.escape(key)}"]`);
    if (now) now.scrollLeft = left;
  }
  if (focused) parent.querySelector(`[data-focus="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
}
