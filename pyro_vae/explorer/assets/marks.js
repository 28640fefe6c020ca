// Colours and shapes of labels. Ten of each, so that labels can be told apart without colours, and colours without
// normal colour vision: any two differ by 13 or more in CIELAB for normal and for colour-blind eyes. Viridis for numbers.

const shapes = {
  circle: (c, x, y, r) => c.arc(x, y, r, 0, 2 * Math.PI),
  square: (c, x, y, r) => c.rect(x - 0.88 * r, y - 0.88 * r, 1.76 * r, 1.76 * r),
  triangle: (c, x, y, r) => polygon(c, x, y, 1.25 * r, 3, -Math.PI / 2),
  diamond: (c, x, y, r) => polygon(c, x, y, 1.25 * r, 4, 0),
  plus: (c, x, y, r) => cross(c, x, y, 1.15 * r, 0),
  down: (c, x, y, r) => polygon(c, x, y, 1.25 * r, 3, Math.PI / 2),
  star: (c, x, y, r) => star(c, x, y, 1.4 * r),
  times: (c, x, y, r) => cross(c, x, y, 1.15 * r, Math.PI / 4),
  pentagon: (c, x, y, r) => polygon(c, x, y, 1.12 * r, 5, -Math.PI / 2),
  bar: (c, x, y, r) => c.rect(x - 0.45 * r, y - 1.25 * r, 0.9 * r, 2.5 * r),
};
const shapeNames = Object.keys(shapes);

function polygon(c, x, y, r, corners, turn) {
  for (let i = 0; i < corners; i++) {
    const angle = turn + (2 * Math.PI * i) / corners;
    c[i ? "lineTo" : "moveTo"](x + r * Math.cos(angle), y + r * Math.sin(angle));
  }
  c.closePath();
}

function star(c, x, y, r) {
  for (let i = 0; i < 10; i++) {
    const angle = -Math.PI / 2 + (Math.PI * i) / 5, radius = i % 2 ? 0.45 * r : r;
    c[i ? "lineTo" : "moveTo"](x + radius * Math.cos(angle), y + radius * Math.sin(angle));
  }
  c.closePath();
}

function cross(c, x, y, r, turn) {
  const w = 0.34 * r;
  const corners = [[w, w], [w, r], [-w, r], [-w, w], [-r, w], [-r, -w], [-w, -w], [-w, -r], [w, -r], [w, -w], [r, -w], [r, w]];
  const cos = Math.cos(turn), sin = Math.sin(turn);
  corners.forEach(([a, b], i) => c[i ? "lineTo" : "moveTo"](x + a * cos - b * sin, y + a * sin + b * cos));
  c.closePath();
}

const palettes = {
  light: ["#240874", "#d25f73", "#498a37", "#bb8800", "#658ed1", "#871b48", "#28a496", "#ad4698", "#6c5b6b", "#bf4600"],
  dark: ["#686dd1", "#c75776", "#1e9347", "#f6e772", "#0ca0d8", "#a36490", "#67ccb3", "#f8b2ff", "#bad6e1", "#f79b4d"],
};
const viridis = ["#440154", "#472d7b", "#3b528b", "#2c728e", "#21918c", "#28ae80", "#5ec962", "#addc30", "#fde725"]
  .map((hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16)));

const isDark = () => document.documentElement.dataset.theme === "dark";
const colourOfLabel = (label) => palettes[isDark() ? "dark" : "light"][label % 10];
// The eleventh label has the first colour with the second shape.
const shapeOfLabel = (label) => shapeNames[(label + Math.floor(label / 10)) % 10];

function colourOfShare(share) {
  const [first, last] = isDark() ? [0.18, 1] : [0, 0.9]; // without what is as dark or as light as the page
  const at = (first + (last - first) * Math.min(Math.max(share, 0), 1)) * (viridis.length - 1);
  const i = Math.min(Math.floor(at), viridis.length - 2);
  return `rgb(${viridis[i].map((a, k) => Math.round(a + (at - i) * (viridis[i + 1][k] - a))).join()})`;
}

// A round number, 1, 2 or 5 times a power of ten, for the distance of grid lines.
function roundStep(least) {
  const power = 10 ** Math.floor(Math.log10(least));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= least);
}

// A multiple of a step, with the digits that it needs.
function onGrid(value, step) {
  if (Math.abs(value) < step / 2) return "0";
  if (step >= 1e5 || step < 1e-4) return value.toExponential(1);
  return value.toFixed(Math.max(0, -Math.floor(Math.log10(step)))).replace("-", "\u2212");
}

const cssColour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// A canvas for sharp drawing at a size in CSS pixels.
function sharpCanvas(canvas, width, height) {
  const ratio = Math.min(window.devicePixelRatio || 1, 3);
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  return context;
}

// A mark of a label, for the legend.
function labelMark(label) {
  const canvas = element("canvas", { "aria-hidden": "true", class: "mark" });
  const c = sharpCanvas(canvas, 14, 14);
  c.fillStyle = colourOfLabel(label);
  c.beginPath();
  shapes[shapeOfLabel(label)](c, 7, 7, 4.6);
  c.fill();
  return canvas;
}
