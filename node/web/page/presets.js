// How hard this machine works: choices of settings with a name, side by side
// with what is set, and what each comes to.

import { el, foreign, set } from "./dom.js";
import * as f from "./format.js";

// presetCard makes the card; use(settings) is called with the settings of the
// one that was chosen.
export function presetCard(use) {
  const box = el("div"), note = el("p", { class: "note" });

  // share is how much of the machine's processors work, on average.
  const share = (threads, duty, processors) => f.percent(Math.min(1, threads / processors) * duty / 100);

  return {
    node: el("section", { class: "card" }, el("h2", null, "Presets"), box, note),
    // update shows them beside the settings; may is whether they can be used.
    update({ processors, presets }, settings, may) {
      const now = (key) => {
        const s = settings.find((x) => x.key === key);
        return (s?.next ?? s?.values ?? []).join(" ");
      };
      const fixed = (key) => ["flag", "environment"].includes(settings.find((x) => x.key === key)?.origin);
      const of = (p, key) => p.settings.find((x) => x.key === key)?.value;
      const effect = (threads, duty) => (threads && duty ? share(Number(threads), Number(duty), processors) : "–");
      const keys = presets[0]?.settings.map((x) => x.key) ?? [];
      const used = (p) => p.settings.every((x) => fixed(x.key) || now(x.key) === x.value);
      const row = (title, cells, head) => el("tr", null, el("th", { scope: "row" }, title), cells.map((c) => el(head ? "th" : "td", { class: "num", scope: head && "col" }, c)));
      const focus = box.contains(document.activeElement) ? document.activeElement.dataset.preset : undefined;
      set(box, el("div", { class: "scroll", role: "region", "aria-label": "Presets", tabindex: 0 }, el("table", null,
        el("thead", null, el("tr", null, el("th", { scope: "col" }, "Setting"), el("th", { scope: "col", class: "num" }, "Now"), presets.map((p) => el("th", { scope: "col", class: "num" }, foreign(p.name))))),
        el("tbody", null,
          row("of the processors, on average", [effect(now("threads"), now("work.duty_percent")), ...presets.map((p) => effect(of(p, "threads"), of(p, "work.duty_percent")))]),
          keys.map((key) => row(el("code", null, key), [foreign(now(key) || "–"), ...presets.map((p) => foreign(of(p, key)))]))))),
      presets.map((p) => {
        const go = el("button", { type: "button", disabled: !may || used(p) }, used(p) ? `${p.name} is in use` : `Use ${p.name}`);
        go.dataset.preset = p.name;
        return el("p", { class: "tools" }, go, el("span", { class: "note" }, foreign(p.about)));
      }));
      if (focus !== undefined && !box.contains(document.activeElement)) { // drawn anew; a button that is in use now takes none
        ([...box.querySelectorAll("button:enabled")].find((b) => b.dataset.preset === focus) ?? box.querySelector(".scroll")).focus({ preventScroll: true });
      }
      for (const b of box.querySelectorAll("button")) {
        const p = presets.find((x) => x.name === b.dataset.preset);
        b.onclick = () => use(Object.fromEntries(p.settings.filter((x) => !fixed(x.key)).map((x) => [x.key, [x.value]])));
      }
      const later = keys.filter((key) => !presets[0].settings.find((x) => x.key === key).live), stays = keys.filter(fixed);
      note.textContent = [later.length && `${later.join(", ")} ${later.length > 1 ? "take" : "takes"} effect at the next start.`,
        stays.length && `${stays.join(", ")} ${stays.length > 1 ? "are" : "is"} decided by a flag or the environment, and ${stays.length > 1 ? "stay" : "stays"}.`].filter(Boolean).join(" ");
    },
  };
}
