// Axes: from values to a range, to positions from 0 to 1, and to ticks at
// round numbers.

const SECONDS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 43200, 86400, 172800, 604800];

// bounds are the lowest and the highest; spread would overflow the stack with
// many.
function bounds(values) {
  let min = Infinity, max = -Infinity;
  for (const v of values) {
    min = Math.min(min, v);
    max = Math.max(max, v);
  }
  return [min, max];
}

// linear makes an axis. options: zero (begin there), whole (ticks at whole
// numbers), bytes (ticks at round numbers of KiB and so on), time (values are milliseconds), tight (end at the values, not at
// ticks), room (above the highest tick), pad (added at both ends), most (ticks).
export function linear(values, { zero, whole, bytes, time, tight, room, pad = 0, most = 6 } = {}) {
  let [min, max] = bounds(values);
  if (zero) min = Math.min(0, min);
  if (min === max) {
    const by = time ? 1000 : whole ? 1 : Math.abs(min) / 10 || 1;
    if (!zero || max !== 0) min = zero && max > 0 ? 0 : min - by;
    if (!zero || max === 0) max += by;
  }
  const step = time ? timeStep(max - min, most) : bytes ? byteStep((max - min) / most) : Math.max(niceStep((max - min) / most), whole ? 1 : 0);
  if (!tight) {
    min = Math.floor(min / step + 1e-9) * step;
    max = Math.ceil(max / step - 1e-9) * step;
    if (room) max += step * 0.3; // so that the top does not hide a line
  }
  const ticks = [];
  const offset = time ? new Date(min).getTimezoneOffset() * 60_000 : 0; // midnight is local
  for (let t = Math.ceil((min - offset) / step - 1e-9) * step + offset; t <= max + step * 1e-9 && ticks.length < 50; t += step) ticks.push(Math.abs(t) < step * 1e-9 ? 0 : t);
  min -= pad;
  max += pad;
  return { min, max, ticks, at: (v) => (v - min) / (max - min) };
}

// logarithmic makes an axis on which equal ratios are equally far.
export function logarithmic(values) {
  let [min, max] = bounds(values);
  if (min === max) {
    min /= 2;
    max *= 2;
  }
  const ticks = [];
  for (let e = Math.floor(Math.log10(min)); e <= Math.ceil(Math.log10(max)); e++) {
    for (const m of [1, 2, 5]) {
      const t = m * 10 ** e;
      if (t >= min * 0.999 && t <= max * 1.001) ticks.push(t);
    }
  }
  if (ticks.length < 3) ticks.splice(0, ticks.length, ...linear([min, max], { tight: true }).ticks); // of a narrow range
  const lo = Math.log(min), hi = Math.log(max);
  return { min, max, ticks, at: (v) => (Math.log(v) - lo) / (hi - lo) };
}

function niceStep(raw) {
  const e = 10 ** Math.floor(Math.log10(raw));
  for (const m of [1, 2, 5, 10]) if (raw <= m * e * (1 + 1e-9)) return m * e;
  return 10 * e;
}

function byteStep(raw) {
  const unit = 1024 ** Math.max(0, Math.floor(Math.log2(Math.max(1, raw)) / 10));
  const step = Math.max(1, niceStep(raw / unit));
  return (step < 1000 ? step : 1024) * unit; // 1 GiB, not 1000 MiB
}

function timeStep(range, most) {
  for (const s of SECONDS) if (range / (s * 1000) <= most) return s * 1000;
  return niceStep(range / most / 86_400_000) * 86_400_000;
}
