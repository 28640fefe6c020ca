// The map of the codes: points of datapoints, and a mark at the latent that is decoded.

const axes = arrayOf("axes"), center = arrayOf("center"); // not for UMAP
const NEIGHBOURS = 5; // that a position on a UMAP map is mixed from
const CELL = 44; // of the decoded background, in pixels
const NEAR = 14; // how close a pointer has to be to a point, in pixels

const map = {
  canvas: byId("map"),
  tip: byId("tip"),
  width: 0,
  height: 0,
  middle: [0, 0], // in the coordinates of the map
  scale: 1, // pixels for each unit
  layer: element("canvas"), // points, drawn once
  behind: element("canvas"), // decoded images behind the points
  hover: -1,
  hidden: new Set(), // labels
  colour: "",
  drawing: 0,
};

// The points in random order, the same each time, so that no label hides another.
const drawingOrder = (() => {
  const order = Array.from({ length: points }, (_, i) => i);
  let seed = 1;
  for (let i = points - 1; i > 0; i--) {
    seed = (seed * 48271) % 2147483647;
    const j = seed % (i + 1);
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
})();

// The position of a latent on the map.
function positionOf(z) {
  if (axes) {
    return [0, 1].map((k) => {
      let sum = 0;
      for (let i = 0; i < latents; i++) sum += axes[k * latents + i] * (z[i] - center[i]);
      return sum;
    });
  }
  return mixOfNearest((point) => distance(z, codeOf(point)), (point) => positions.subarray(2 * point, 2 * point + 2));
}

// A latent at a position of the map: the given one, moved in the plane of the map; or on a UMAP map a mean of codes.
function latentAt(position, from) {
  if (axes) {
    const now = positionOf(from);
    return Float32Array.from(from, (value, i) =>
      value + axes[i] * (position[0] - now[0]) + axes[latents + i] * (position[1] - now[1]));
  }
  return mixOfNearest((point) => distance(position, positions.subarray(2 * point, 2 * point + 2)), codeOf);
}

const distance = (a, b) => a.reduce((sum, value, i) => sum + (value - b[i]) ** 2, 0);

// The mean over the nearest datapoints, weighted by 1 / squared distance.
function mixOfNearest(squaredDistance, vectorOf) {
  const nearest = [];
  for (let point = 0; point < points; point++) {
    const d = squaredDistance(point);
    if (nearest.length < NEIGHBOURS || d < nearest[nearest.length - 1][0]) {
      nearest.push([d, point]);
      nearest.sort((a, b) => a[0] - b[0]);
      nearest.length = Math.min(nearest.length, NEIGHBOURS);
    }
  }
  const result = new Float32Array(vectorOf(0).length);
  let total = 0;
  for (const [d, point] of nearest) {
    const weight = 1 / (d + 1e-12);
    total += weight;
    vectorOf(point).forEach((value, i) => { result[i] += weight * value; });
  }
  return result.map((value) => value / total);
}

const toPixels = ([x, y]) => [map.width / 2 + (x - map.middle[0]) * map.scale, map.height / 2 - (y - map.middle[1]) * map.scale];
const toPosition = ([x, y]) => [map.middle[0] + (x - map.width / 2) / map.scale, map.middle[1] - (y - map.height / 2) / map.scale];

function showAll() {
  let [left, right, bottom, top] = [Infinity, -Infinity, Infinity, -Infinity];
  for (let i = 0; i < points; i++) {
    left = Math.min(left, positions[2 * i]);
    right = Math.max(right, positions[2 * i]);
    bottom = Math.min(bottom, positions[2 * i + 1]);
    top = Math.max(top, positions[2 * i + 1]);
  }
  map.middle = [(left + right) / 2, (bottom + top) / 2];
  map.scale = 0.9 * Math.min(map.width / Math.max(right - left, 1e-3), map.height / Math.max(top - bottom, 1e-3));
  map.least = map.scale / 3;
  redrawMap();
}

// Zooms; what is at a pixel stays there.
function zoom(factor, [x, y] = [map.width / 2, map.height / 2]) {
  const before = toPosition([x, y]);
  map.scale = Math.min(Math.max(map.scale * factor, map.least), map.least * 600);
  const after = toPosition([x, y]);
  map.middle = [map.middle[0] + before[0] - after[0], map.middle[1] + before[1] - after[1]];
  redrawMap();
}

// Drawing -----------------------------------------------------------------------------------------------------------

function resizeMap() {
  const box = map.canvas.getBoundingClientRect();
  if (!box.width || (box.width === map.width && box.height === map.height)) return;
  const first = !map.width;
  map.width = box.width;
  map.height = box.height;
  if (first) showAll();
  else redrawMap();
}

// What the points are coloured by: numbers of all datapoints, or null for labels.
function numbersOfColour() {
  if (map.colour === "log p(x)") return logProb;
  if (map.colour.startsWith("z ")) return latentColumn(Number(map.colour.slice(2)));
  if (map.colour.startsWith("column ")) {
    const column = Number(map.colour.slice(7)), x = arrayOf("x");
    return Float32Array.from({ length: points }, (_, i) => x[i * valuesPerPoint + column]);
  }
  return null;
}

const latentColumn = (unit) => Float32Array.from({ length: points }, (_, i) => codes[i * latents + unit]);

// The range of the numbers that colours show: all but the outermost hundredths, so that outliers do not use it up.
function rangeOf(numbers) {
  const sorted = Float32Array.from(numbers).filter(Number.isFinite).sort();
  if (!sorted.length) return [0, 1];
  const at = (share) => sorted[Math.round(share * (sorted.length - 1))];
  return [at(0.01), at(0.99) > at(0.01) ? at(0.99) : at(0.01) + 1];
}

function redrawMap() {
  const c = sharpCanvas(map.layer, map.width, map.height);
  c.clearRect(0, 0, map.width, map.height);
  drawGrid(c);
  const numbers = numbersOfColour();
  const [low, high] = numbers ? rangeOf(numbers) : [0, 1];
  const radius = points > 1000 ? 3.2 : points > 200 ? 3.8 : 4.6;
  const ring = byId("behind").checked;
  const stamps = {}; // marks drawn once and copied
  const stamp = (key, draw) => {
    if (!stamps[key]) {
      stamps[key] = element("canvas");
      const s = sharpCanvas(stamps[key], 20, 20);
      draw(s);
    }
    return stamps[key];
  };
  const mark = (shape, colour) => (s) => {
    s.beginPath();
    shapes[shape](s, 10, 10, radius);
    s.fillStyle = colour;
    if (ring) { s.lineWidth = 2; s.strokeStyle = cssColour("--surface"); s.stroke(); }
    s.fill();
  };
  c.globalAlpha = 0.85;
  for (const i of drawingOrder) {
    if (hasLabels && map.hidden.has(labels[i])) continue;
    const [x, y] = toPixels([positions[2 * i], positions[2 * i + 1]]);
    if (x < -10 || y < -10 || x > map.width + 10 || y > map.height + 10) continue;
    let made;
    if (!numbers) {
      const label = hasLabels ? labels[i] : 0;
      made = stamp(`label ${label}`, mark(hasLabels ? shapeOfLabel(label) : "circle", hasLabels ? colourOfLabel(label) : cssColour("--accent")));
    } else if (Number.isFinite(numbers[i])) {
      const share = Math.round(64 * Math.min(Math.max((numbers[i] - low) / (high - low), 0), 1)) / 64;
      made = stamp(`share ${share}`, mark("circle", colourOfShare(share)));
    } else {
      made = stamp("gap", mark("times", cssColour("--quiet")));
    }
    c.drawImage(made, x - 10, y - 10, 20, 20);
  }
  c.globalAlpha = 1;
  drawBehind();
  drawMap();
}

function drawGrid(c) {
  const step = roundStep(70 / map.scale);
  const [left, top] = toPosition([0, 0]), [right, bottom] = toPosition([map.width, map.height]);
  const font = "11px system-ui, sans-serif";
  c.font = font;
  c.lineWidth = 1;
  const word = (value) => onGrid(value, step);
  c.fillStyle = cssColour("--quiet");
  if (map.method === "umap") return; // its coordinates have no meaning
  for (let value = Math.ceil(left / step) * step; value <= right; value += step) {
    const x = Math.round(toPixels([value, 0])[0]) + 0.5;
    c.strokeStyle = Math.abs(value) < step / 2 ? cssColour("--axis") : cssColour("--line");
    c.beginPath();
    c.moveTo(x, 0);
    c.lineTo(x, map.height);
    c.stroke();
    c.textAlign = "center";
    if (x > 30 && x < map.width - 60) c.fillText(word(value), x, map.height - 6);
  }
  for (let value = Math.ceil(bottom / step) * step; value <= top; value += step) {
    const y = Math.round(toPixels([0, value])[1]) + 0.5;
    c.strokeStyle = Math.abs(value) < step / 2 ? cssColour("--axis") : cssColour("--line");
    c.beginPath();
    c.moveTo(0, y);
    c.lineTo(map.width, y);
    c.stroke();
    c.textAlign = "left";
    if (y > 30 && y < map.height - 24) c.fillText(word(value), 5, y - 4);
  }
}

// Decoded images behind the points, a few in each frame so that the page stays quick.
function drawBehind() {
  map.drawing++;
  const c = sharpCanvas(map.behind, map.width, map.height);
  c.clearRect(0, 0, map.width, map.height);
  if (view.kind !== "image" || !byId("behind").checked) return;
  const drawing = map.drawing, columns = Math.ceil(map.width / CELL), lines = Math.ceil(map.height / CELL);
  const start = center || state.z, cell = element("canvas");
  const aspect = Math.min(1, view.height / view.width), slim = Math.min(1, view.width / view.height);
  let i = 0;
  const some = () => {
    const until = performance.now() + 10;
    while (drawing === map.drawing && i < columns * lines && performance.now() < until) {
      const x = (i % columns) * CELL, y = Math.floor(i / columns) * CELL;
      paintDecoded(cell, decode(onSphere(latentAt(toPosition([x + CELL / 2, y + CELL / 2]), start)))[0]);
      c.imageSmoothingEnabled = view.width > CELL;
      c.drawImage(cell, x + (CELL * (1 - slim)) / 2, y + (CELL * (1 - aspect)) / 2, CELL * slim, CELL * aspect);
      i++;
    }
    if (drawing !== map.drawing) return;
    drawMap();
    if (i < columns * lines) requestAnimationFrame(some);
  };
  requestAnimationFrame(some);
}

// The layers, the chosen datapoints, and the mark at z.
function drawMap() {
  if (!map.width) return;
  const c = sharpCanvas(map.canvas, map.width, map.height);
  c.clearRect(0, 0, map.width, map.height);
  c.globalAlpha = 0.75;
  c.drawImage(map.behind, 0, 0, map.width, map.height);
  c.globalAlpha = 1;
  c.drawImage(map.layer, 0, 0, map.width, map.height);
  const [a, b] = [state.a, state.b].map((point) => toPixels(positions.subarray(2 * point, 2 * point + 2)));
  c.strokeStyle = cssColour("--accent");
  c.lineWidth = 1.5;
  c.setLineDash([5, 4]);
  c.beginPath();
  c.moveTo(...a);
  c.lineTo(...b);
  c.stroke();
  c.setLineDash([]);
  drawLetter(c, "A", a);
  drawLetter(c, "B", b);
  if (map.hover >= 0) circle(c, toPixels(positions.subarray(2 * map.hover, 2 * map.hover + 2)), 8, cssColour("--ink"), 1.5);
  circle(c, toPixels(positions.subarray(2 * state.point, 2 * state.point + 2)), 9, cssColour("--ink"), 1.5);
  const [x, y] = toPixels(positionOf(state.z));
  now.inset.className = x > map.width / 2 && y < 140 ? "left" : "right"; // not over the mark
  circle(c, [x, y], 7, cssColour("--surface"), 5.5);
  circle(c, [x, y], 7, cssColour("--accent"), 3);
  c.beginPath();
  for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
    c.moveTo(x + 7 * dx, y + 7 * dy);
    c.lineTo(x + 14 * dx, y + 14 * dy);
  }
  c.strokeStyle = cssColour("--accent");
  c.lineWidth = 2;
  c.stroke();
}

function circle(c, [x, y], r, colour, width) {
  c.beginPath();
  c.arc(x, y, r, 0, 2 * Math.PI);
  c.strokeStyle = colour;
  c.lineWidth = width;
  c.stroke();
}

function drawLetter(c, letter, [x, y]) {
  c.beginPath();
  c.arc(x, y - 15, 8, 0, 2 * Math.PI);
  c.fillStyle = cssColour("--accent");
  c.fill();
  c.fillStyle = cssColour("--surface");
  c.font = "bold 11px system-ui, sans-serif";
  c.textAlign = "center";
  c.fillText(letter, x, y - 11);
}

// Pointer and keyboard ----------------------------------------------------------------------------------------------

function nearestPoint([x, y], within = Infinity) {
  let best = -1, least = within * within;
  for (let i = 0; i < points; i++) {
    if (hasLabels && map.hidden.has(labels[i])) continue;
    const [px, py] = toPixels([positions[2 * i], positions[2 * i + 1]]);
    const d = (px - x) ** 2 + (py - y) ** 2;
    if (d < least) [best, least] = [i, d];
  }
  return best;
}

function pixelsOf(event) {
  const box = map.canvas.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
}

function showTip(point, [x, y]) {
  if (point === map.hover && !map.tip.hidden) return;
  map.hover = point;
  map.tip.hidden = point < 0;
  if (point >= 0) {
    map.tip.replaceChildren(
      pictureOf(point, 72),
      element("div", {},
        element("b", {}, `Datapoint ${rows[point]}`),
        hasLabels ? element("div", {}, `label ${labelOf(point)}`) : null,
        logProb ? element("div", { class: "quiet" }, `log p(x): ${showLogProb(point)} nats`) : null),
    );
    const width = map.tip.offsetWidth, height = map.tip.offsetHeight;
    map.tip.style.left = `${Math.max(4, Math.min(x + 16, map.width - width - 4))}px`;
    map.tip.style.top = `${y + 18 + height > map.height ? Math.max(4, y - height - 14) : y + 18}px`;
  }
  drawMap();
}

const fingers = new Map(); // where each pointer is; two of them pinch
let drag = null; // where a drag began: on the map, or of the map itself

function setUpMap() {
  map.method = content.map.method;
  const { canvas } = map;
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button > 1) return;
    canvas.setPointerCapture(event.pointerId);
    canvas.focus({ preventScroll: true });
    const at = pixelsOf(event);
    fingers.set(event.pointerId, at);
    if (fingers.size === 2) {
      drag = { pinch: true };
      return;
    }
    if (event.shiftKey || event.button === 1) {
      drag = { move: at, middle: map.middle };
      return;
    }
    const point = nearestPoint(at, event.pointerType === "touch" ? 1.6 * NEAR : NEAR);
    if (point >= 0) choose(point);
    drag = { from: point >= 0 ? Float32Array.from(codeOf(point)) : state.z, at, isPoint: point >= 0 };
    showTip(-1, at);
    if (point < 0) moveMark(at);
    event.preventDefault();
  });
  canvas.addEventListener("pointermove", (event) => {
    const at = pixelsOf(event);
    const before = fingers.get(event.pointerId);
    if (before) fingers.set(event.pointerId, at);
    if (drag && drag.pinch) {
      const other = [...fingers].find(([id]) => id !== event.pointerId);
      if (!before || !other) return;
      const apart = (from) => Math.max(Math.hypot(from[0] - other[1][0], from[1] - other[1][1]), 10);
      zoom(apart(at) / apart(before), [(at[0] + other[1][0]) / 2, (at[1] + other[1][1]) / 2]);
    } else if (!drag) {
      if (event.pointerType !== "touch") showTip(nearestPoint(at, NEAR), at);
    } else if (drag.move) {
      map.middle = [drag.middle[0] - (at[0] - drag.move[0]) / map.scale, drag.middle[1] + (at[1] - drag.move[1]) / map.scale];
      redrawMap();
    } else if (!drag.isPoint || Math.hypot(at[0] - drag.at[0], at[1] - drag.at[1]) > 3) {
      drag.isPoint = false;
      moveMark(at);
    }
  });
  const end = (event) => {
    fingers.delete(event.pointerId);
    if (!fingers.size) drag = null;
  };
  canvas.addEventListener("pointerup", end);
  canvas.addEventListener("pointercancel", end);
  canvas.addEventListener("pointerleave", () => showTip(-1, [0, 0]));
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return; // the page scrolls
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / 200), pixelsOf(event));
  }, { passive: false });
  canvas.addEventListener("keydown", onMapKey);
  const atMark = () => toPixels(positionOf(state.z));
  byId("zoom-in").addEventListener("click", () => zoom(1.5, atMark()));
  byId("zoom-out").addEventListener("click", () => zoom(1 / 1.5, atMark()));
  byId("zoom-all").addEventListener("click", showAll);
  new ResizeObserver(resizeMap).observe(canvas);
  resizeMap();
  whenChanged.push(drawMap);
}

function moveMark(at) {
  setLatent(latentAt(toPosition(at), drag ? drag.from : state.z));
}

function onMapKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const at = toPixels(positionOf(state.z));
  const actions = {
    Enter: () => choose(nearestPoint(at)),
    " ": () => choose(nearestPoint(at)),
    PageDown: () => choose((state.point + 1) % points),
    PageUp: () => choose((state.point + points - 1) % points),
    a: () => setEnd("a"),
    b: () => setEnd("b"),
    "+": () => zoom(1.5, at),
    "=": () => zoom(1.5, at),
    "-": () => zoom(1 / 1.5, at),
    0: showAll,
    Escape: () => showTip(-1, at),
  };
  if (steps[event.key]) {
    const size = event.shiftKey ? 40 : 8;
    const to = [at[0] + size * steps[event.key][0], at[1] + size * steps[event.key][1]];
    setLatent(latentAt(toPosition(to), state.z));
    if (to[0] < 0 || to[1] < 0 || to[0] > map.width || to[1] > map.height) {
      map.middle = toPosition(to); // the map follows the mark
      redrawMap();
    }
  } else if (actions[event.key] && (event.key !== "Enter" && event.key !== " " || nearestPoint(at) >= 0)) {
    actions[event.key]();
  } else {
    return;
  }
  event.preventDefault();
}

// Legend and choice of colours --------------------------------------------------------------------------------------

function setUpColours() {
  const select = byId("colour"), options = [];
  if (hasLabels) options.push(["label", "label"]);
  if (logProb) options.push(["log p(x)", "log p(x)"]);
  if (view.kind === "table") view.columns.forEach((column, i) => options.push([`column ${i}`, column.name]));
  content.latent.order.slice(0, 10).forEach((unit) => options.push([`z ${unit}`, `z${unit + 1}`]));
  if (!hasLabels) options.unshift(["none", "one colour"]);
  for (const [value, text] of options) select.append(element("option", { value }, text));
  map.colour = options[0][0];
  select.addEventListener("change", () => {
    map.colour = select.value;
    showLegend();
    redrawMap();
  });
  byId("behind-label").hidden = view.kind !== "image";
  byId("behind").addEventListener("change", redrawMap);
  showLegend();
}

function showLegend() {
  const legend = byId("legend");
  const numbers = numbersOfColour();
  if (numbers) {
    const [low, high] = rangeOf(numbers);
    const column = map.colour.startsWith("column ") ? view.columns[Number(map.colour.slice(7))] : null;
    const word = (value) => (column && column.categories ? valueInWords(column, value) : showNumber(value));
    const bar = element("canvas", { class: "ramp", width: 128, height: 1, "aria-hidden": "true" });
    const c = bar.getContext("2d");
    for (let i = 0; i < 128; i++) {
      c.fillStyle = colourOfShare(i / 127);
      c.fillRect(i, 0, 1, 1);
    }
    const missing = Array.from(numbers).filter((value) => !Number.isFinite(value)).length;
    const unitName = map.colour === "log p(x)" ? " nats" : "";
    legend.replaceChildren(
      element("span", { class: "numbers" }, `${word(low)}${unitName}`), bar, element("span", { class: "numbers" }, `${word(high)}${unitName}`),
      missing ? element("span", { class: "quiet" }, `\u00d7 ${missing} missing`) : "",
    );
    return;
  }
  if (!hasLabels || map.colour !== "label") return legend.replaceChildren();
  const counts = new Array(content.labels.length).fill(0);
  for (const label of labels) counts[label]++;
  legend.replaceChildren(...content.labels.map((name, label) => {
    const button = element("button", { type: "button", "aria-pressed": String(!map.hidden.has(label)), title: "Show or hide" },
      labelMark(label), element("span", {}, name), element("span", { class: "quiet" }, whole.format(counts[label])));
    button.addEventListener("click", () => {
      if (!map.hidden.delete(label)) map.hidden.add(label);
      button.setAttribute("aria-pressed", String(!map.hidden.has(label)));
      redrawMap();
    });
    return button;
  }));
}
