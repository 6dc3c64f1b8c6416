// Charts as files. The page's style sheet does not go with them, so each
// element is given the look it has.

import { save } from "./dom.js";

const LOOK = ["fill", "stroke", "stroke-width", "stroke-dasharray", "stroke-linejoin", "opacity", "font-family", "font-size", "font-weight", "text-anchor"];

function standalone(picture) {
  const copy = picture.cloneNode(true);
  const from = picture.querySelectorAll("*"), to = copy.querySelectorAll("*");
  from.forEach((node, i) => {
    const look = getComputedStyle(node);
    for (const name of LOOK) {
      const value = look.getPropertyValue(name);
      // A pattern is named by this document's address there; the attribute has it already.
      if (value && !value.startsWith("url(")) to[i].setAttribute(name, value);
    }
    to[i].removeAttribute("class");
  });
  const { width, height } = picture.viewBox.baseVal;
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  copy.setAttribute("width", width);
  copy.setAttribute("height", height);
  copy.removeAttribute("class");
  const back = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  back.setAttribute("width", "100%");
  back.setAttribute("height", "100%");
  back.setAttribute("fill", getComputedStyle(document.body).backgroundColor);
  copy.prepend(back);
  return { text: new XMLSerializer().serializeToString(copy), width, height };
}

// saveSVG saves a chart as SVG.
export function saveSVG(picture, file) {
  save(`${file}.svg`, new Blob([standalone(picture).text], { type: "image/svg+xml" }));
}

// savePNG saves a chart as PNG, at twice its size on the page.
export async function savePNG(picture, file) {
  save(`${file}.png`, await png(picture));
}

// png draws a chart.
export async function png(picture) {
  const { text, width, height } = standalone(picture);
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
  await image.decode();
  const canvas = document.createElement("canvas");
  canvas.width = 2 * width;
  canvas.height = 2 * height;
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}
