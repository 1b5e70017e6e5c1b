// Figures of HTTP where they can be seen, and why not where they cannot.

import { element } from "/dom.js";
import { count, known, milliseconds, perSecond } from "/format.js";

const NO_HANDSHAKES = "TLS handshakes are counted at level http alone";

/// Why requests cannot be seen.
const unseen = (r) => `${r.spoken || "Not HTTP/1"}: requests and responses cannot be seen`;
const turns = (r) => `${r.spoken || "Not HTTP/1"}: time between turns, not requests`;
const mixed = (r) => `In part ${r.spoken || "not HTTP/1"}: HTTP/1 requests, and the turns of streams that are not HTTP/1`;

/// A short text with its reason, for eyes that hover and for screen readers.
function because(text, reason) {
  const made = element("abbr", "", text);
  made.title = reason;
  return made;
}

/// A figure of requests or responses; a dash with its reason where none is seen.
export const seen = (r, value, format) => (r.unseen ? because("–", unseen(r)) : known(value, format));

/// Requests a second, or the turns of what is not HTTP/1.
export function requests(r) {
  if (!r.unseen) return known(r.requests, perSecond);
  return because(`– (${known(r.exchanges, perSecond)} turns)`, unseen(r));
}

/// A duration; of turns it says so.
export function duration(r, ms) {
  const text = known(ms, milliseconds);
  if (!r.turns || ms === null) return text;
  return because(`${text} *`, r.unseen ? turns(r) : mixed(r));
}

/// TLS handshakes that failed; a dash with its reason where none were counted.
export const handshakes = (r) => (r.tlsFailed === null ? because("–", NO_HANDSHAKES) : count(r.tlsFailed));
