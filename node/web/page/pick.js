// One of what is here already.

import { el, set, uid } from "./dom.js";

// pick makes a list of which one is chosen. options has legend, none (what to say
// when there is nothing), label(x) and off(x), why it cannot be chosen, and
// chosen(x), which is told of a choice.
export function pick({ legend, none, label, off, chosen }) {
  const name = uid("pick");
  const box = el("div", { class: "picks" });
  let list = [], value = null, shown = "";
  let wanted = ""; // what is to be chosen as soon as it is there
  let fresh = null; // what was added: an answer that is under way does not have it

  box.addEventListener("change", (e) => {
    value = list.find((x) => x.id === e.target.value) ?? null;
    wanted = "";
    chosen(value);
  });

  function draw() {
    const now = JSON.stringify(list);
    if (now !== shown) {
      const focus = box.contains(document.activeElement) ? document.activeElement.value : null;
      shown = now;
      set(box, list.length ? list.map((x) => {
        const id = uid("pick"), why = off?.(x);
        return el("div", { class: "pick" }, el("input", { type: "radio", name, id, value: x.id, disabled: Boolean(why) }),
          el("label", { for: id }, label(x), why && el("span", { class: "note" }, why)));
      }) : el("p", { class: "empty" }, none));
      if (focus) box.querySelector(`input[value="${CSS.escape(focus)}"]`)?.focus({ preventScroll: true });
    }
    for (const input of box.querySelectorAll("input")) input.checked = input.value === value?.id;
  }

  return {
    node: el("fieldset", { class: "choices" }, el("legend", null, legend), box),
    get value() { return value; },
    get id() { return value?.id ?? wanted; },
    // update shows what is here now, the newest first; what is not here any more
    // is not chosen any more.
    update(l) {
      list = [...l].reverse();
      if (fresh && !list.some((x) => x.id === fresh.id)) list.unshift(fresh);
      fresh = null;
      const found = list.find((x) => x.id === wanted && !off?.(x));
      if (found) {
        [value, wanted] = [found, ""];
        chosen(found);
      }
      if (value && !list.some((x) => x.id === value.id)) {
        value = null;
        chosen(null);
      }
      draw();
    },
    // want chooses by ID, as soon as it is there.
    want(id) { wanted = id; },
    // choose adds x if it is new, and chooses it.
    choose(x) {
      list = [x, ...list.filter((o) => o.id !== x.id)];
      value = fresh = x;
      wanted = "";
      draw();
      chosen(x);
    },
  };
}
