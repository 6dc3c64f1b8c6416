// Numbers, times and words for people. Units are always written.

const missing = (v) => v === null || v === undefined || !Number.isFinite(v);

const grouped = new Intl.NumberFormat("en"); // toLocaleString makes one each time

// count writes a whole number with separators.
export const count = (v) => (missing(v) ? "–" : grouped.format(Math.round(v)));

// compact writes a large number, beginning at from, in few characters: 3.42 M.
export function compact(v, from = 10_000) {
  if (missing(v)) return "–";
  const a = Math.abs(v);
  if (a < from) return Number.isInteger(v) || a >= 1000 ? count(v) : String(Number(v.toPrecision(3)));
  for (const [unit, size] of [["T", 1e12], ["G", 1e9], ["M", 1e6], ["k", 1e3]]) {
    if (a >= size * 0.9995) return `${Number((v / size).toPrecision(3))} ${unit}`;
  }
  return String(v);
}

export const loss = (v) => (missing(v) ? "–" : v.toFixed(4));

// perplexity is that of a loss in nats per token.
export const perplexity = (v) => (missing(v) ? "–" : Math.exp(v).toPrecision(4));

// short writes a value without zeros at its end.
export const short = (v) => (missing(v) ? "–" : String(Number(v.toPrecision(4))));

export const percent = (v) => (missing(v) ? "–" : `${(100 * v).toFixed(1)} %`);
export const decimal = (v, digits = 2) => (missing(v) ? "–" : v.toFixed(digits));

// bytes writes a size as the command line does.
export function bytes(v) {
  if (missing(v)) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let i = 0;
  for (; v >= 1024 && i < units.length - 1; i++) v /= 1024;
  return i === 0 ? `${v} B` : `${v.toFixed(1)} ${units[i]}`;
}

// seconds writes a duration.
export function seconds(v) {
  if (missing(v)) return "–";
  if (v > 0 && v < 0.9995) return v < 0.9995e-3 ? `${Number((v * 1e6).toPrecision(3))} µs` : `${Number((v * 1e3).toPrecision(3))} ms`;
  if (v < 59.5) return `${v < 10 ? Number(v.toFixed(1)) : Math.round(v)} s`;
  const s = Math.round(v), d = Math.floor(s / 86400), h = Math.floor(s / 3600) % 24, m = Math.floor(s / 60) % 60;
  if (d) return `${d} d ${h} h`;
  return h ? `${h} h ${m} min` : `${m} min ${s % 60} s`;
}

const two = (n) => String(n).padStart(2, "0");

// clock writes the time of day of a Date or a string.
export function clock(t) {
  const d = new Date(t);
  return Number.isNaN(d.getTime()) ? "–" : `${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}`;
}

// date writes day and time.
export function date(t) {
  const d = new Date(t);
  if (Number.isNaN(d.getTime()) || d.getTime() <= 0) return "–";
  return `${d.getFullYear()}-${two(d.getMonth() + 1)}-${two(d.getDate())} ${clock(d)}`;
}

// ago writes how long something is past.
export function ago(t, now = Date.now()) {
  const s = (now - new Date(t).getTime()) / 1000;
  if (!Number.isFinite(s)) return "–";
  return s < 1 ? "now" : `${seconds(s)} ago`;
}

// plural writes 1 round, 2 rounds.
export const plural = (n, word) => `${count(n)} ${word}${n === 1 ? "" : "s"}`;

// reasons says in words why a delta was refused (proto/msg).
const reasonWords = {
  "not-held": "too few witnesses hold it",
  timeout: "it did not arrive before the deadline",
  "too-large": "more bytes than a delta of this run can have",
  "bad-hash": "a block was not the one that was asked for",
  "bad-size": "not as many bytes as its commit says",
  "bad-codec": "not of the codec and layout of this run",
  "bad-range": "a scale or a code out of range",
  "bad-norm": "not the norm that its commit says",
  "wrong-head": "made for another head",
  equivocation: "its peer signed several commits for one round",
  "not-finite": "not from finite numbers",
};
export const reason = (r) => reasonWords[r] ?? "";

// kinds give states a colour; the word is always there too.
const kinds = {
  training: "good", final: "good", waiting: "calm", assembly: "calm", syncing: "calm", idle: "calm",
  known: "quiet", left: "quiet", failed: "bad", stopping: "bad",
};
export const stateKind = (s) => kinds[s] ?? "quiet";
