// The range of time that the URL asks for: one of the usual ones, or from a
// time to a time.

export const RANGES = ["5m", "1h", "24h", "7d"];
const USUAL = "1h";

const isTime = (text) => text !== null && !Number.isNaN(Date.parse(text));

/// What the URL says: a usual range by name, or a custom one.
export function rangeOf(url) {
  const [since, until] = ["since", "until"].map((name) => url.searchParams.get(name));
  if (isTime(since) && isTime(until) && Date.parse(since) < Date.parse(until)) {
    return { name: null, query: { since, until } };
  }
  const asked = url.searchParams.get("range");
  const name = RANGES.includes(asked) ? asked : USUAL;
  return { name, query: { since: name } };
}

/// How often the charts are read anew: a short range follows the reports, one
/// that has ended does not change.
export function refreshEveryMs(range) {
  if (range.name === null) return Date.parse(range.query.until) < Date.now() ? Infinity : 60000;
  return ["5m", "1h"].includes(range.name) ? 5000 : 60000;
}

/// A time as the browser's own field for local times has it.
export function fieldValue(time) {
  const date = new Date(time);
  return new Date(date - date.getTimezoneOffset() * 60000).toISOString().slice(0, 16);
}
