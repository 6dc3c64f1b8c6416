// Light, dark, or as the system has it.

const KEY = "moot.theme";
const ORDER = ["auto", "light", "dark"];

// theme makes a button change the look of the page.
export function theme(button) {
  let now = localStorage.getItem(KEY);
  if (!ORDER.includes(now)) now = "auto";
  const apply = () => {
    document.documentElement.dataset.theme = now;
    button.textContent = `Theme: ${now}`;
  };
  button.addEventListener("click", () => {
    now = ORDER[(ORDER.indexOf(now) + 1) % ORDER.length];
    localStorage.setItem(KEY, now);
    apply();
  });
  apply();
}
