// Where an axis has its ticks.  uPlot's own logarithmic ticks never end on
// some ranges; these are bounded whatever the range is.

const TICKS_MAX = 12;

const isRange = (min, max) => Number.isFinite(min) && Number.isFinite(max) && min < max;

/// 10^exponent, to the digit: 10 ** -3 * 3 is not 0.003.
const decimal = (digit, exponent) => Number(`${digit}e${exponent}`);

/// Multiples of 1, 2 or 5 times a power of ten, about as many as wanted.
export function linearTicks(min, max, wanted) {
  if (!isRange(min, max)) return [];
  const rough = (max - min) / Math.max(1, Math.min(wanted, TICKS_MAX));
  const exponent = Math.floor(Math.log10(rough));
  const digit = [1, 2, 5].find((d) => decimal(d, exponent) >= rough);
  const step = digit === undefined ? decimal(1, exponent + 1) : decimal(digit, exponent);
  // Below the smallest step that numbers can tell apart there are no ticks.
  if (!(step > 0) || min + step === min) return [];
  const first = Math.ceil(min / step);
  const ticks = Array.from({ length: TICKS_MAX + 1 }, (_, i) => Number(((first + i) * step).toPrecision(12)));
  return ticks.filter((tick, i) => tick >= min && tick <= max && tick !== ticks[i - 1]);
}

/// Powers of ten, with their halves and doubles where few powers lie in the range.
export function logTicks(min, max, wanted) {
  if (!isRange(min, max) || min <= 0) return [];
  const exponents = [];
  for (let e = Math.floor(Math.log10(min)); e <= Math.ceil(Math.log10(max)); e += 1) exponents.push(e);
  const most = Math.max(1, Math.min(wanted, TICKS_MAX));
  for (const digits of [[1, 2, 5], [1]]) {
    const ticks = exponents.flatMap((e) => digits.map((d) => decimal(d, e))).filter((t) => t >= min && t <= max);
    if (ticks.length <= most) return ticks;
    if (digits.length === 1) return ticks.filter((_, i) => i % Math.ceil(ticks.length / most) === 0);
  }
  return [];
}
