// Figures as people read them.

function scaled(value, step, units) {
  let unit = 0;
  while (value >= step && unit + 1 < units.length) {
    value /= step;
    unit += 1;
  }
  // A rate of one in a minute is not 0.0.
  if (unit === 0 && value > 0 && value < 1) return Number(value.toPrecision(2)) + units[0];
  const digits = value >= 100 || (unit === 0 && Number.isInteger(value)) ? 0 : 1;
  return value.toFixed(digits) + units[unit];
}

export const count = (value) => scaled(value, 1000, ["", " k", " M", " G", " T"]);
export const counted = (n, one, several) => `${n} ${n === 1 ? one : several}`;
export const bytes = (value) => scaled(value, 1024, [" B", " KiB", " MiB", " GiB", " TiB"]);
export const perSecond = (value) => `${count(value)}/s`;
export const bytesPerSecond = (value) => `${bytes(value)}/s`;
export const percent = (value) => `${value.toFixed(1)} %`;

export function milliseconds(ms) {
  if (ms >= 1000) return `${(ms / 1000).toFixed(1)} s`;
  if (ms >= 0.1 || ms === 0) return `${ms.toFixed(ms >= 10 ? 0 : 2)} ms`;
  return `${Number((ms * 1000).toPrecision(2))} µs`;
}

export const microseconds = (us) => milliseconds(us / 1000);

export function age(seconds) {
  if (seconds < 120) return `${Math.max(0, Math.round(seconds))} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} d`;
}

// What was not measured is a dash, never a zero.
export const known = (value, format) =>
  value === null || value === undefined ? "–" : format(value);

// Without what would turn the text around or hide parts of it.
export const printable = (text) =>
  text.replace(/[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g, "\ufffd");
