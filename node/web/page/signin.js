// Signing in: the token, when the address had none.

import { setToken, tokenFrom } from "./api.js";
import { el, uid, foreign } from "./dom.js";

// signInView asks for the token. err says why, if there was one.
export function signInView(err, done) {
  const id = uid("token");
  const input = el("input", { id, type: "password", autocomplete: "off", spellcheck: "false", required: true, "aria-describedby": `${id}-help` });
  const wrong = el("p", { class: "problem", role: "alert", hidden: true }, "That is neither a token nor an address with one.");
  const form = el("form", { class: "card narrow" },
    el("p", { id: `${id}-help` }, "The daemon answers only who has its token. It is in the file ", el("code", null, "api.token"),
      " of the daemon's data folder, which only its user can read, and new at every start of the daemon. ", el("code", null, "moot dashboard"), " prints the address of this page with it."),
    el("p", null, el("label", { for: id }, "Token, or the address with it"), input),
    wrong,
    el("p", null, el("button", { type: "submit", class: "main" }, "Sign in")));
  form.addEventListener("submit", (e) => {
    e.preventDefault();
    const token = tokenFrom(input.value);
    wrong.hidden = token !== "";
    if (!token) return;
    setToken(token);
    done();
  });
  return {
    title: "Sign in", signIn: true,
    node: el("div", null,
      el("h1", { tabindex: -1 }, "Sign in"),
      err && el("p", { class: "problem" }, foreign(err.message), ". Was the daemon started again?"),
      form),
  };
}
