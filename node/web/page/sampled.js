// The answers that were asked for last, of each run, as long as this tab is open.

const KEY = "moot.samples.";
const MOST = 200_000; // characters

// keepSamples keeps {prompts, columns: [{title, outputs}]}.
export function keepSamples(run, shown) {
  const prompts = shown.prompts.slice(0, 3);
  const columns = shown.columns.map((c) => ({ title: c.title, texts: prompts.map((_, i) => c.outputs[i]?.text ?? c.error ?? "") }));
  const text = JSON.stringify({ prompts, columns });
  if (text.length > MOST) return;
  try {
    sessionStorage.setItem(KEY + run, text);
  } catch { /* the browser keeps no more */ }
}

// keptSamples are {prompts, columns: [{title, texts}]}, or null.
export function keptSamples(run) {
  try {
    return JSON.parse(sessionStorage.getItem(KEY + run));
  } catch {
    return null;
  }
}
