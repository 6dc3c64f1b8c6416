// When something is drawn: in a frame of the browser, a few milliseconds' worth in
// each, what is in sight first. What is out of sight is drawn less often: it can be
// read and found there, but a run with a round each second would keep the browser busy.

const BUDGET_MS = 8; // of a frame
const UNSEEN_MS = 3000; // between two drawings of what is out of sight
const NEAR = "400px"; // what is so near is in sight: it is there before it is scrolled to

const waiting = new Map(); // of a node to what draws it
const drawn = new WeakMap(); // of a node to when it was
const unseen = new WeakSet();
let frame = 0, timer = 0;

const sight = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting, boundingClientRect: box } of entries) {
    if (isIntersecting || !target.isConnected || !box.width) unseen.delete(target); // what has no place yet may have one in sight
    else unseen.add(target);
  }
  if (waiting.size) soon();
}, { rootMargin: NEAR });

// paint calls draw: at once the first time, and then soon, once for all times it is
// called until then. node is what is drawn: the element that is in sight, or is not.
export function paint(node, draw) {
  if (!drawn.has(node)) {
    drawn.set(node, -UNSEEN_MS);
    sight.observe(node);
    draw();
    return;
  }
  waiting.set(node, draw);
  soon();
}

// onWidth calls draw with the width of box, and again when that changes. To ask for
// it while drawing would have the browser lay out the page each time.
export function onWidth(box, draw) {
  let width = 0;
  new ResizeObserver(() => {
    if (!box.clientWidth || box.clientWidth === width) return;
    width = box.clientWidth;
    draw(width);
  }).observe(box);
}

function soon() {
  frame ||= requestAnimationFrame(some);
}

// due is how long what draws a node waits still.
const due = (node, time) => (unseen.has(node) ? drawn.get(node) + UNSEEN_MS - time : 0);

function some() {
  frame = 0;
  clearTimeout(timer);
  const begin = performance.now();
  const ready = [...waiting].filter(([node]) => due(node, begin) <= 0).sort(([a], [b]) => unseen.has(a) - unseen.has(b));
  for (const [i, [node, draw]] of ready.entries()) {
    if (i && performance.now() - begin > BUDGET_MS) { // one at least: a machine may take longer for nothing
      soon();
      return;
    }
    waiting.delete(node);
    drawn.set(node, begin);
    try {
      draw();
    } catch (err) { // the others are drawn all the same
      reportError(err);
    }
  }
  if (waiting.size) timer = setTimeout(soon, Math.max(0, Math.min(...[...waiting.keys()].map((node) => due(node, begin)))));
}
