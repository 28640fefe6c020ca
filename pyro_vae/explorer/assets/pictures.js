// Draws datapoints and means of p(x | z): images, lines of series, rows of tables.

// The values of a datapoint as it is shown: for images from 0 to 1 with NaN for gaps.
let thumbnailPixels = null; // RGBA of all thumbnails, once the PNG file is decoded

function loadThumbnails() {
  if (view.kind !== "image") return Promise.resolve();
  return new Promise((resolve, reject) => {
    const image = new Image();
    image.onload = () => {
      const canvas = element("canvas", { width: image.width, height: image.height });
      const context = canvas.getContext("2d", { willReadFrequently: true });
      context.drawImage(image, 0, 0);
      thumbnailPixels = context.getImageData(0, 0, image.width, image.height);
      resolve();
    };
    image.onerror = () => reject(new Error("the images of the datapoints cannot be read"));
    image.src = `data:image/png;base64,${view.thumbnails.png}`;
  });
}

// A grey level from 0 to 1 as a colour: ink on paper, or light on black.
function greyColours() {
  if (!view.ink) return [[0, 0, 0], [255, 255, 255]];
  return isDark() ? [[22, 25, 31], [240, 242, 246]] : [[255, 255, 255], [20, 22, 28]];
}

function paintPixels(canvas, width, height, pixel) {
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d"), image = context.createImageData(width, height);
  const [paper, ink] = greyColours();
  for (let i = 0, o = 0; i < width * height; i++, o += 4) {
    const value = pixel(i); // [red, green, blue], a grey level, or null for a gap
    if (value === null) continue;
    for (let k = 0; k < 3; k++) {
      image.data[o + k] = typeof value === "number" ? paper[k] + (ink[k] - paper[k]) * value : 255 * value[k];
    }
    image.data[o + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}

const unit = (value) => Math.min(Math.max(value, 0), 1);

// A decoded image: values are [channels, height, width], in the units of the data.
function paintDecoded(canvas, values) {
  const { width, height, tiles, range: [low, high] } = view;
  const size = width * height;
  const level = (value) => (value !== value ? null : unit((value - low) / (high - low)));
  const grey = (i) => {
    if (tiles === 1) return level(values[i]);
    const column = i % width, each = width / tiles; // channels are side by side
    return level(values[(Math.floor(column / each) * height + Math.floor(i / width)) * each + (column % each)]);
  };
  const colour = (i) => {
    const parts = [level(values[i]), level(values[size + i]), level(values[2 * size + i])];
    return parts.includes(null) ? null : parts;
  };
  paintPixels(canvas, width, height, view.channels === 3 ? colour : grey);
}

// The image of a datapoint.
function paintThumbnail(canvas, point) {
  const { columns, width, height } = view.thumbnails;
  const left = (point % columns) * width, top = Math.floor(point / columns) * height;
  const { data, width: line } = thumbnailPixels;
  paintPixels(canvas, width, height, (i) => {
    const at = 4 * ((top + Math.floor(i / width)) * line + left + (i % width));
    if (data[at + 3] < 128) return null;
    return view.channels === 3 ? [data[at] / 255, data[at + 1] / 255, data[at + 2] / 255] : data[at] / 255;
  });
}

const valuesPerPoint = view.kind === "image" ? 0 : arrayOf("x").length / points;
const valuesOf = (point) => arrayOf("x").subarray(point * valuesPerPoint, (point + 1) * valuesPerPoint);

// Series ------------------------------------------------------------------------------------------------------------

const dashes = [[], [6, 3], [2, 2], [8, 3, 2, 3], [1, 3]];

// Lines of one or two series: the decoded one drawn through, the datapoint behind it, paler and wider.
function paintSeries(canvas, width, height, decoded, datapoint, withAxes = true) {
  const c = sharpCanvas(canvas, width, height);
  const { steps, features, range: [low, high], stepsFirst } = view;
  const left = withAxes ? 46 : 3, right = 6, top = 6, bottom = withAxes ? 22 : 3;
  const across = (step) => left + ((width - left - right) * step) / Math.max(steps - 1, 1);
  const margin = 0.04 * (high - low);
  const up = (value) => top + ((height - top - bottom) * (high + margin - value)) / (high - low + 2 * margin);
  c.clearRect(0, 0, width, height);
  if (withAxes) {
    c.strokeStyle = cssColour("--line");
    c.fillStyle = cssColour("--quiet");
    c.font = "11px system-ui, sans-serif";
    c.lineWidth = 1;
    const step = roundStep((high - low) / 4);
    for (let value = Math.ceil(low / step) * step; value <= high + 1e-9 * step; value += step) {
      c.beginPath();
      c.moveTo(left, up(value));
      c.lineTo(width - right, up(value));
      c.stroke();
      c.textAlign = "right";
      c.fillText(onGrid(value, step), left - 5, up(value) + 4);
    }
    c.textAlign = "left";
    c.fillText("step 1", left, height - 6);
    c.textAlign = "right";
    c.fillText(whole.format(steps), width - right, height - 6);
  }
  const draw = (values, wide) => {
    for (let f = 0; f < features; f++) {
      c.strokeStyle = colourOfLabel(f);
      c.setLineDash(features > 1 ? dashes[f % dashes.length] : []);
      c.globalAlpha = wide ? 0.35 : 1;
      c.lineWidth = wide ? 4 : 1.6;
      c.beginPath();
      let open = false;
      for (let s = 0; s < steps; s++) {
        const value = values[stepsFirst ? s * features + f : f * steps + s];
        if (value !== value) { open = false; continue; } // a gap
        const x = across(s), y = Math.min(Math.max(up(value), -10), height + 10);
        const alone = !open && (s === steps - 1 || Number.isNaN(values[stepsFirst ? (s + 1) * features + f : f * steps + s + 1]));
        c[open ? "lineTo" : "moveTo"](x, y);
        if (alone) c.lineTo(x + 0.01, y);
        open = true;
      }
      c.lineCap = "round";
      c.stroke();
    }
    c.globalAlpha = 1;
    c.setLineDash([]);
  };
  if (datapoint) draw(datapoint, true);
  if (decoded) draw(decoded, false);
}

// Tables ------------------------------------------------------------------------------------------------------------

// Where the details of each column begin: probabilities of categories, or one number.
const detailsFrom = [0];
if (view.kind === "table") {
  for (const column of view.columns) {
    const many = column.type === "categorical" || column.type === "ordinal";
    detailsFrom.push(detailsFrom[detailsFrom.length - 1] + (many ? column.categories.length : 1));
  }
}

// A value of a datapoint in words.
function valueInWords(column, value) {
  if (value !== value) return "missing";
  if (column.categories) return column.categories[Math.round(value)] ?? showNumber(value);
  return showNumber(value);
}

// The decoded value of a column in words, and its uncertainty.
function decodedInWords(i, outputs) {
  const column = view.columns[i], [means, details] = outputs;
  if (!details) return [valueInWords(column, means[i]), ""];
  const own = details.subarray(detailsFrom[i], detailsFrom[i + 1]);
  const percent = (share) => `${Math.round(100 * share)} %`;
  if (column.type === "binary") return [column.categories[own[0] >= 0.5 ? 1 : 0], percent(Math.max(own[0], 1 - own[0]))];
  if (column.type === "categorical" || column.type === "ordinal") {
    const best = own.indexOf(Math.max(...own));
    return [column.categories[best], percent(own[best])];
  }
  return [showNumber(means[i]), `\u00b1 ${showNumber(own[0])}`];
}

// A small picture of a datapoint as an element: an image, lines, or the first columns.
function pictureOf(point, size = 96) {
  if (view.kind === "image") {
    const canvas = element("canvas", { class: "pixels", role: "img", "aria-label": `Image of ${pointName(point)}` });
    paintThumbnail(canvas, point);
    return canvas;
  }
  if (view.kind === "series") {
    const canvas = element("canvas", { class: "lines", role: "img", "aria-label": `Lines of ${pointName(point)}` });
    paintSeries(canvas, 1.6 * size, size, valuesOf(point), null, false);
    return canvas;
  }
  const values = valuesOf(point);
  const most = Math.min(view.columns.length, view.columns.length > 7 ? 6 : 7);
  const lines = view.columns.slice(0, most).map((column, i) =>
    element("tr", {}, element("th", { scope: "row" }, column.name),
      element("td", values[i] !== values[i] ? { class: "gap" } : {}, valueInWords(column, values[i]))));
  const rest = view.columns.length - most;
  if (rest > 0) lines.push(element("tr", {}, element("td", { colspan: 2, class: "quiet" }, `and ${rest} more`)));
  return element("table", { class: "values" }, element("tbody", {}, ...lines));
}
