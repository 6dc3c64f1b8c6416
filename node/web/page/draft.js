// What was entered of a launch, kept by the tab until the launch or a new start: a
// reload loses nothing but the files of the browser's machine, which no page may keep.

const KEY = "moot.draft";
const VERSION = 1;

// loadDraft is what is kept, or null.
export function loadDraft() {
  try {
    const d = JSON.parse(sessionStorage.getItem(KEY));
    return d?.version === VERSION ? d : null;
  } catch {
    return null; // of another version
  }
}

export function saveDraft(d) {
  try {
    sessionStorage.setItem(KEY, JSON.stringify({ version: VERSION, ...d }));
  } catch { /* there is no room: then it is not kept */ }
}

export const clearDraft = () => sessionStorage.removeItem(KEY);

// valuesOf are the values of controls, by name; fillIn gives them back.
export const valuesOf = (controls) => Object.fromEntries(Object.entries(controls).map(([k, c]) => [k, c.type === "checkbox" ? c.checked : c.value]));

export function fillIn(controls, values) {
  for (const [k, c] of Object.entries(controls)) {
    if (!(k in values)) continue;
    if (c.type === "checkbox") c.checked = values[k];
    else c.value = values[k];
  }
}
