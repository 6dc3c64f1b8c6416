// The pages of one run, as links.

import { access } from "./api.js";
import { el } from "./dom.js";

// runPages are the links to the pages of a run, of which one is shown.
export function runPages(id, here) {
  const base = `#/runs/${encodeURIComponent(id)}`;
  const pages = [["", "Overview"], ["peers", "Peers"], ["data", "Data"], ...(access === "public" ? [] : [["samples", "Samples"], ["export", "Export"]])];
  return el("nav", { class: "pages", "aria-label": "Pages of this run" }, pages.map(([name, title]) =>
    el("a", { href: name ? `${base}/${name}` : base, "aria-current": name === here && "page" }, title)));
}
