// Elements. All text goes in as text: nothing here, and nothing that uses it,
// makes markup from a string.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attrs, children) {
  for (const [k, v] of Object.entries(attrs ?? {})) {
    if (v === undefined || v === null || v === false) continue;
    if (k === "on") {
      for (const [type, fn] of Object.entries(v)) node.addEventListener(type, fn);
    } else if (k === "style" || k.startsWith("on")) {
      throw new Error(`bug: attribute ${k}`); // the policy of the page forbids them
    } else {
      node.setAttribute(k, v === true ? "" : String(v));
    }
  }
  node.append(...children.flat(Infinity).filter((c) => c !== undefined && c !== null && c !== false));
  return node;
}

// el makes an HTML element; attrs.on has its listeners.
export const el = (tag, attrs, ...children) => fill(document.createElement(tag), attrs, children);

// svg makes an SVG element.
export const svg = (tag, attrs, ...children) => fill(document.createElementNS(SVG, tag), attrs, children);

// harmless replaces what could turn a line around or fake another one.
// Joiners stay, emoji need them.
export function harmless(text) {
  return String(text ?? "")
    .replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g, "\ufffd")
    .toWellFormed();
}

const LONGEST = 600;

// foreign shows text of others: isolated, so that it cannot change the
// direction of what stands beside it, broken where it is long, and cut where it
// is longer than a name or a sentence has a reason to be.
export function foreign(text, attrs) {
  const s = harmless(text);
  return el("bdi", { class: "foreign", ...attrs }, s.length <= LONGEST ? s : `${s.slice(0, LONGEST).toWellFormed()}… (${s.length.toLocaleString("en")} characters)`);
}

// answer shows what a model wrote, all of it.
export const answer = (text) => el("bdi", { class: "foreign" }, harmless(text));

// shortID shortens an ID as the command line does.
export const shortID = (id) => (id.length <= 14 ? id : id.slice(0, 14));

// ident shows an ID: short, the whole one as its title.
export function ident(id, attrs) {
  if (!id) return "–";
  return el("code", { class: "id", title: harmless(id), ...attrs }, harmless(shortID(id)));
}

// peer shows the ID of a peer, and whether it is this node.
export const peer = (id, me) => (id && id === me ? el("span", { class: "id" }, ident(id), " (you)") : ident(id));

// copyable shows a whole ID with a button that copies it.
export function copyable(id, what) {
  if (!id) return "–";
  const button = el("button", { type: "button", class: "small", "aria-label": `Copy ${what}` }, "copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(id);
      button.textContent = "copied";
    } catch {
      button.textContent = "not allowed";
    }
    setTimeout(() => { button.textContent = "copy"; }, 1500);
  });
  return el("span", { class: "copyable" }, el("code", { class: "wrap" }, harmless(id)), " ", button);
}

// badge shows a state as a word; its colour only repeats it.
export const badge = (word, kind) => el("span", { class: `badge ${kind ?? ""}` }, harmless(word));

// facts is a list of names and values; a value is text or a node.
export function facts(rows, attrs) {
  return el("dl", { class: "facts", ...attrs }, rows.filter(Boolean).map(([k, v]) => el("div", null, el("dt", null, k), el("dd", null, v ?? "–"))));
}

const CONTROLS = "a[href], button, input, select, textarea, summary, [tabindex]";

// set replaces what a node shows, if it differs; so a screen reader is not
// told the same again and a selection stays. What has the focus in it has it after
// that, too, or what is in its place.
export function set(node, ...children) {
  const had = node.contains(document.activeElement) ? [...node.querySelectorAll(CONTROLS)].indexOf(document.activeElement) : -1;
  const box = fill(document.createElement(node.tagName), null, children);
  const same = box.childNodes.length === node.childNodes.length && [...box.childNodes].every((c, i) => c.isEqualNode(node.childNodes[i]));
  if (!same) node.replaceChildren(...box.childNodes);
  if (had >= 0 && !node.contains(document.activeElement)) node.querySelectorAll(CONTROLS)[had]?.focus({ preventScroll: true });
  return node;
}

// save hands a file to the browser.
export function save(name, blob) {
  const url = URL.createObjectURL(blob);
  const a = el("a", { href: url, download: name.replace(/[^\w.-]+/g, "-") });
  document.body.append(a);
  a.click();
  a.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

let ids = 0;
// uid makes an ID for a label or a pattern.
export const uid = (prefix) => `${prefix}-${++ids}`;
