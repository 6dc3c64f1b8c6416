// What this program is made of, which versions it speaks, and where its files
// are.

import { access, get } from "./api.js";
import { el, copyable, facts, foreign, save, set } from "./dom.js";
import { table } from "./table.js";

export function aboutView() {
  const program = el("div"), speaks = el("div"), files = el("div"), read = el("div");
  const said = el("p", { role: "status", class: "note" });
  const text = el("pre", { class: "answer wrap", tabindex: 0, role: "region", "aria-label": "Licences of the modules" });
  const notices = el("details", { hidden: true }, el("summary", null, "Show the licences"), text);
  const none = el("p", { class: "note", hidden: true }, "Their licences are in the file “copyright” of a release, beside its programs; this program was built or copied without.");
  const modules = table({
    caption: "Go modules that are part of it", file: "modules", empty: "The program does not say what it was built of.", key: (m) => m.path, limit: 20,
    columns: [
      { title: "Module", value: (m) => m.path, cell: (m) => foreign(m.path, { class: "foreign mono" }) },
      { title: "Version", value: (m) => m.version, cell: (m) => foreign(m.version, { class: "foreign mono" }) },
    ],
  });
  // ask does something that may fail, and says so.
  const ask = async (fn) => {
    said.textContent = "";
    try {
      await fn();
    } catch (err) {
      set(said, foreign(err.message), err.hint ? " – " : "", err.hint ? foreign(err.hint) : "");
    }
  };
  notices.addEventListener("toggle", () => {
    if (notices.open && !text.textContent) ask(async () => { text.textContent = (await get("/about/notices")).text; });
  });
  const description = el("button", { type: "button", class: "small", on: { click: () => ask(async () => save("moot-openapi.json", new Blob([JSON.stringify(await get("/openapi.json"), null, 2)], { type: "application/json" }))) } }, "Save the description of the API");
  const card = (title, ...children) => el("section", { class: "card" }, el("h2", null, title), ...children);
  const mono = (v) => foreign(v, { class: "foreign mono" });

  return {
    title: "About", every: 600_000,
    node: el("div", null, el("h1", { tabindex: -1 }, "About"),
      el("div", { class: "grid" }, card("Program", program), card("Versions that it speaks", speaks)),
      card("Files", files),
      card("To read, without a network", read, el("p", { class: "tools" }, description), said),
      card("What it is made of", el("p", null, "No licence has been chosen for moot itself: its authors keep all rights. Each module has its own."), modules.node, none, notices)),
    events: () => false,
    async refresh(signal) {
      const a = await get("/about", signal), v = a.version;
      set(program, facts([
        ["Version", foreign(v.version)], ["Commit", v.commit ? copyable(v.commit, "the commit") : "not known"],
        ["Built with", foreign(`${v.go} for ${v.os}/${v.arch}`)],
        ...a.build.map((x) => [foreign(x.name), mono(x.value || "–")]),
      ]));
      set(speaks, facts([
        ...a.formats.map((x) => [foreign(x.name), foreign(x.value)]),
        ["protocols", el("ul", { class: "plain" }, a.protocols.map((p) => el("li", null, mono(p))))],
      ]));
      set(files, access === "full" ? facts((a.paths ?? []).map((p) => [foreign(p.name), mono(p.value)])) : el("p", { class: "empty" }, "Where files are is told with full access alone."));
      set(read, el("p", null, el("code", null, "mootd --help"), " and ", el("code", null, "moot --help"), " describe every command; ", el("code", null, "man mootd"), " where the manuals are installed."),
        access === "full" && (a.documents?.length ? facts(a.documents.map((d) => [foreign(d.name), mono(d.value)])) : el("p", { class: "note" }, "No manual is beside this program; a release has them.")));
      modules.update(a.modules);
      notices.hidden = !a.notices;
      none.hidden = a.notices;
    },
  };
}
