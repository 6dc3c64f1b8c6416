// What asks for something that takes long: labelled fields, and an operation that
// tells how far it is, can be stopped, and says how it ended.

import { el, badge, foreign, harmless, set, uid } from "./dom.js";
import * as f from "./format.js";

// kinds give verdicts a colour; the word is always there.
const kinds = { fits: "good", tight: "calm", unknown: "calm", exceeds: "bad", refused: "bad" };

// verdict shows whether something suffices.
export const verdict = (v) => badge(v, kinds[v]);

// amount is how much of something there is; below 0 nobody knows.
export const amount = (need, have) => (need > 0 || have > 0 ? `${f.bytes(need)} of ${have < 0 ? "an unknown amount" : f.bytes(have)}` : "–");

const progressText = (p) => p.text || (p.total ? `${p.phase}: ${p.unit === "bytes" ? `${f.bytes(p.done)} of ${f.bytes(p.total)}` : `${f.count(p.done)} of ${f.count(p.total)}`}` : p.phase);

// field makes a labelled control.
export function field(label, control, note) {
  const id = uid("begin");
  control.id = id;
  return el("div", { class: "field" }, el("label", { for: id }, label), control, note && el("p", { class: "note" }, note));
}

// problem says what went wrong, and the way out.
const problem = (err) => [el("p", null, foreign(err.message)), err.hint && el("p", null, foreign(err.hint)), err.code && el("p", null, el("code", null, err.code))];

// job does one thing at a time, which can be stopped, and says how it ended.
// again stops what is under way and does another in its place.
export function job(buttons) {
  const said = el("p", { class: "note", role: "status" }), wrong = el("div", { class: "problem", role: "alert", hidden: true });
  const stop = el("button", { type: "button", disabled: true, on: { click: () => abort?.abort() } }, "Stop");
  let abort = null;
  const work = {
    said, wrong, stop,
    get busy() { return abort !== null; },
    end() { abort?.abort(); },
    async do(text, what) {
      if (abort) return;
      const mine = abort = new AbortController();
      stop.disabled = false;
      wrong.hidden = true;
      said.textContent = text;
      buttons();
      try {
        await what(mine.signal, (p) => { if (abort === mine) said.textContent = harmless(progressText(p)); });
      } catch (err) {
        if (abort !== mine) return;
        if (!mine.signal.aborted && !("code" in err)) console.error(err);
        said.textContent = mine.signal.aborted ? "stopped" : "";
        wrong.hidden = mine.signal.aborted;
        set(wrong, problem(err));
      } finally {
        if (abort === mine) {
          abort = null;
          stop.disabled = true;
          buttons();
        }
      }
    },
    again(text, what) {
      abort?.abort();
      abort = null;
      return work.do(text, what);
    },
  };
  return work;
}

// sample shows a row as it is encoded, with what the loss counts marked.
export const sample = (s) => el("p", { class: "sample" }, (s.parts ?? []).map((x) => (x.counted ? el("mark", null, foreign(x.text)) : foreign(x.text))));
