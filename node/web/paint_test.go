package web_test

import "testing"

// TestPaint: what is in sight is drawn with the next frame, once for all times it was
// asked for; what is out of sight at most every three seconds, and never not at all.
func TestPaint(t *testing.T) {
	w := newWorld(t)
	tb := w.enter(openBrowser(t), 1200, 900)
	tb.goTo("#/about", `document.body.innerText.includes("/moot/sync/1")`)
	var got struct {
		First, Near, NearAsked, Far float64
		Seconds                     float64 // that it took
	}
	tb.eval(`(async () => {
		const { paint } = await import("/web/paint.js");
		const box = (top) => {
			const b = document.createElement("div");
			b.style.height = "10px";
			b.style.marginTop = top;
			document.querySelector("main").append(b);
			return b;
		};
		const near = box("0px"), far = box("5000px"), drawn = { near: 0, far: 0 }, shown = { near: 0, far: 0 };
		scrollTo(0, 0);
		near.scrollIntoView();
		let asked = 0;
		const ask = () => {
			const now = ++asked;
			for (const [name, b] of [["near", near], ["far", far]]) {
				paint(b, () => { drawn[name]++; shown[name] = now; });
				paint(b, () => { drawn[name]++; shown[name] = now; }); // this one does for both
			}
		};
		const frame = () => new Promise(requestAnimationFrame);
		const begin = performance.now();
		ask();
		const first = drawn.near + drawn.far; // at once
		for (const b of [near, far]) { // then it is known there, too, what is in sight
			await new Promise((done) => new IntersectionObserver((_, o) => { o.disconnect(); done(); }, { rootMargin: "400px" }).observe(b));
		}
		for (let i = 0; i < 3; i++) await frame();
		const before = { ...drawn };
		for (let i = 0; i < 60; i++) {
			ask();
			await frame();
			await frame();
		}
		const out = { First: first, Near: drawn.near - before.near, NearAsked: 60, Far: drawn.far - before.far, Seconds: (performance.now() - begin) / 1000 };
		globalThis.late = () => shown.near === asked && shown.far === asked;
		return out;
	})()`, &got)
	if got.First != 2 {
		t.Errorf("%v of 2 were drawn at once", got.First)
	}
	if got.Near < got.NearAsked/2 || got.Near > got.NearAsked+1 {
		t.Errorf("what is in sight was drawn %v times of %v", got.Near, got.NearAsked)
	}
	if most := got.Seconds/3 + 1; got.Far > most {
		t.Errorf("what is out of sight was drawn %v times in %.1f s, want at most %.0f", got.Far, got.Seconds, most)
	}
	tb.until(`late()`)

	// On a machine that takes longer than a frame for nothing, all is drawn too.
	tb.eval(`(async () => {
		const { paint } = await import("/web/paint.js");
		let now = performance.now();
		performance.now = () => now += 50;
		const all = Array.from({ length: 3 }, () => document.createElement("div"));
		document.querySelector("main").prepend(...all);
		globalThis.lacking = 3;
		for (const b of all) {
			paint(b, () => {});
			paint(b, () => { lacking--; });
		}
	})()`, nil)
	tb.is(`lacking`, "0")
	tb.clean()
}
