// To launch a run in four steps: model, data, budget, publish. What was entered
// stays as long as the tab does, also when the page is loaded again, and what is
// under way goes on, whichever page is looked at.

import { access, get, run as operate } from "./api.js";
import { el, copyable, facts, foreign, ident, set } from "./dom.js";
import { clearDraft, loadDraft, saveDraft } from "./draft.js";
import { job } from "./job.js";
import { modelStep } from "./newmodel.js";
import { dataStep } from "./newdata.js";
import { budgetStep } from "./newbudget.js";
import * as f from "./format.js";

const steps = [["model", "Model"], ["data", "Data"], ["budget", "Budget"], ["publish", "Publish"]];

const ANEW = "Start anew";

let kept = null; // the one of this tab
let keptFor = ""; // the access with which it was made
let shown = null; // the view of it that was made last

export function newView(step = "model") {
  if (keptFor !== access) [kept, keptFor] = [wizard(), access];
  const mine = kept;
  mine.show(step);
  // From step to step the next view is there before this one is left.
  const view = { title: "Launch a run", node: mine.node, events: () => false, refresh: mine.refresh, leave() { if (shown === view) mine.leave(); } };
  shown = view;
  return view;
}

function wizard() {
  let ready = null; // what can be launched: {name, toml, plan}
  const model = modelStep(changed);
  const data = dataStep(changed, () => model.value);
  const budget = budgetStep((p) => { ready = p; publish.update(); });
  const publish = publishStep(() => ({ ready, model: model.value, data: data.value }), () => {
    clearDraft();
    anew.hidden = true;
  });
  const parts = { model, data, budget, publish };
  const heading = el("h1", { tabindex: -1 });
  const links = steps.map(([id, title], i) => ({ id, a: el("a", { href: `#/new/${id}` }, `${i + 1}. ${title}`), note: el("span", { class: "note" }) }));
  const back = el("button", { type: "button" }), next = el("button", { type: "button", class: "main" });
  const box = el("div", { class: "card" });
  const anew = el("button", { type: "button", hidden: true }, ANEW), resumed = el("p", { class: "note", role: "status", hidden: true });
  let at = -1; // nothing was shown yet

  const go = (i) => { location.hash = `#/new/${steps[i][0]}`; };
  back.addEventListener("click", () => go(at - 1));
  next.addEventListener("click", () => go(at + 1));

  function changed() {
    budget.with(model.value, data.value);
    keep();
    draw();
  }

  // keep keeps what was entered.
  function keep() {
    if (access !== "full") return;
    saveDraft({ model: model.draft, data: data.draft, budget: budget.draft, launched: publish.launched, time: Date.now() });
    anew.hidden = false;
  }

  // resume takes up what is kept.
  function resume() {
    const d = access === "full" && loadDraft();
    if (!d) return;
    try {
      model.restore(d.model);
      data.restore(d.data);
      budget.restore(d.budget);
      publish.launched = d.launched;
    } catch (err) { // it is of another version of this page
      console.warn(err);
      clearDraft();
      return;
    }
    anew.hidden = resumed.hidden = false;
    resumed.textContent = `What was entered until ${f.clock(d.time)} is here again.`;
  }

  // It is asked once more before all is forgotten.
  anew.addEventListener("click", () => {
    if (anew.textContent === ANEW) {
      anew.textContent = "Forget all that was entered";
      return;
    }
    model.end();
    data.end();
    budget.leave();
    clearDraft();
    kept = null;
    keptFor = "";
    if (location.hash === "#/new/model") dispatchEvent(new HashChangeEvent("hashchange"));
    else go(0);
  });
  anew.addEventListener("blur", () => { anew.textContent = ANEW; });

  function draw() {
    if (at < 0) return;
    for (const [i, { id, a, note }] of links.entries()) {
      if (i === at) a.setAttribute("aria-current", "step");
      else a.removeAttribute("aria-current");
      const what = parts[id].value;
      set(note, what ? [" ", foreign(what.name || what.id)] : []);
    }
    back.hidden = at === 0;
    next.hidden = at === steps.length - 1;
    back.textContent = at ? `Back: ${steps[at - 1][1]}` : "";
    next.textContent = next.hidden ? "" : `Next: ${steps[at + 1][1]}`;
    next.disabled = next.hidden || (at < 2 && !parts[steps[at][0]].value);
  }

  const node = el("div", null, heading,
      access === "full" ? el("p", { class: "lead" }, "Nothing is shown to others before the last step, and you agreed.") : el("p", { class: "lead" }, "This page may look, and not change anything: open it with the daemon's full token."),
      el("nav", { class: "steps", "aria-label": "Steps" }, el("ol", null, links.map(({ a, note }) => el("li", null, a, note)))),
      resumed, box, el("p", { class: "tools" }, back, next, anew));
  for (const type of ["input", "change"]) box.addEventListener(type, keep);
  resume();
  return {
    node,
    show(step) {
      if (at >= 0 && step !== steps[at][0]) resumed.hidden = true;
      at = steps.findIndex(([id]) => id === step);
      heading.textContent = `Launch a run: step ${at + 1} of ${steps.length}, ${steps[at][1].toLowerCase()}`;
      box.replaceChildren(el("h2", null, steps[at][1]), parts[step].node);
      if (step === "budget" || step === "publish") budget.enter();
      else budget.leave();
      draw();
      publish.update();
    },
    leave() { budget.leave(); },
    async refresh(signal) {
      const [models, sets, any] = await Promise.all([get("/models", signal), get("/datasets", signal), get("/presets/alpaca", signal)]);
      model.update(models.models);
      data.update(sets.datasets);
      budget.update(any.presets);
      draw();
    },
  };
}

// publishStep launches what was planned, and calls done after that.
function publishStep(state, done) {
  const consent = el("input", { type: "checkbox" });
  const launch = el("button", { type: "button", class: "main" }, "Launch");
  const about = el("div"), result = el("div", { role: "status" });
  const ask = el("div", null, el("label", { class: "consent" }, consent, " Publish this run; this machine serves its model and data, and trains in it"));
  const work = job(buttons);
  const may = access === "full";
  let launched = ""; // the text of the last one

  function can() {
    const { ready } = state();
    return may && ready !== null && !ready.plan.refused.length && ready.toml !== launched;
  }

  function buttons() {
    consent.disabled = work.busy || !can();
    launch.disabled = work.busy || !can() || !consent.checked;
  }
  consent.addEventListener("change", buttons);

  function update() {
    const { ready, model, data } = state();
    if (!can()) consent.checked = false;
    const p = ready?.plan;
    set(about, !p ? el("p", null, "It is not planned yet: ", !model ? el("a", { href: "#/new/model" }, "choose a model") : !data ? el("a", { href: "#/new/data" }, "choose data") : el("a", { href: "#/new/budget" }, "see its budget"), ".")
      : [
        facts([
          ["Name", foreign(p.name)],
          ["Model", el("span", null, foreign(p.model.name), " ", ident(p.model.id), ", licence ", foreign(p.model.licence || "not stated"))],
          ["Data", el("span", null, foreign(p.data.name), " ", ident(p.data.id), `, ${f.plural(p.data.train.rows, "row")}, licence `, foreign(p.data.licence || "not stated"))],
          ["Length", `at most ${f.plural(p.length.rounds, "round")} of ${f.seconds(p.length.period_s)}: ${f.seconds(p.length.seconds)}`],
          ["Made for", p.use === "unstated" ? "use not stated" : `${p.use} use`],
        ]),
        p.refused.map((x) => el("p", { class: "problem" }, foreign(x.message), x.hint && [" – ", foreign(x.hint)])),
        p.warnings.map((w) => el("p", { class: "note" }, "Warning: ", foreign(w))),
        p.refused.length > 0 && el("p", null, "It cannot be launched like this: ", el("a", { href: "#/new/budget" }, "change its budget"), ", ", el("a", { href: "#/new/data" }, "its data"), " or ", el("a", { href: "#/new/model" }, "its model"), "."),
      ]);
    buttons();
  }

  launch.addEventListener("click", () => work.do("launching", async (signal, progress) => {
    if (!can()) return;
    const { ready } = state();
    const r = await operate("/runs", { name: ready.name, toml: ready.toml }, progress, signal);
    launched = ready.toml; // whatever else fails
    done();
    update();
    const status = await get("/status", signal).catch(() => ({}));
    const addrs = status.addrs ?? [];
    const addr = addrs.find((a) => !a.startsWith("/ip4/127.") && !a.startsWith("/ip6/::1/")) ?? addrs[0];
    work.said.textContent = "";
    set(result, el("p", null, "Launched: ", el("a", { href: `#/runs/${encodeURIComponent(r.id)}` }, foreign(r.name || r.id)), ". Others join with:"),
      el("p", null, copyable(`moot join ${r.id}${addr ? ` --peer ${addr}` : ""}`, "the line with which others join")));
  }));

  const node = el("div", null, about, ask, el("p", { class: "tools" }, launch, work.stop), work.said, work.wrong, result);
  return { node, update, get launched() { return launched; }, set launched(toml) { launched = toml; } };
}
