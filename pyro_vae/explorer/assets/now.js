// The decoded mean of p(x | z) beside the datapoint that was chosen.

const now = { inset: byId("inset") }; // the inset is for narrow windows, where the pictures are below the map

function setUpNow() {
  const pair = byId("pair");
  if (view.kind === "image") {
    now.decoded = element("canvas", { class: "pixels", role: "img", "aria-label": "Mean of p(x | z)" });
    now.datapoint = element("canvas", { class: "pixels", role: "img" });
    now.caption = element("figcaption");
    now.small = element("canvas", { class: "pixels" });
    pair.append(
      element("figure", {}, now.decoded, element("figcaption", {}, "mean of p(x | z)")),
      element("figure", {}, now.datapoint, now.caption),
    );
  } else if (view.kind === "series") {
    now.lines = element("canvas", { id: "lines", role: "img", "aria-label": "Mean of p(x | z), and the datapoint, over time" });
    now.caption = element("p", { class: "help" });
    now.small = element("canvas", { class: "lines" });
    pair.className = "whole";
    const legend = element("div", { class: "series-legend" });
    if (view.features > 1) now.legend = legend;
    pair.append(now.lines, legend, now.caption);
    new ResizeObserver(showNow).observe(now.lines);
  } else {
    now.rows = view.columns.map((column) => [element("td"), element("td"), element("td", { class: "quiet" })]);
    now.caption = element("th", { scope: "col" });
    now.small = element("table", { class: "values" });
    pair.className = "whole";
    pair.append(element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Decoded columns" },
      element("table", { class: "values" },
        element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "column"), now.caption,
          element("th", { scope: "col" }, "p(x | z)"),
          element("th", { scope: "col" }, content.program.outputs.length > 1 ? "uncertainty" : ""))),
        element("tbody", {}, ...view.columns.map((column, i) =>
          element("tr", {}, element("th", { scope: "row" }, column.name), ...now.rows[i]))))));
  }
  now.inset.append(now.small);
  byId("random").addEventListener("click", () => choose(Math.floor(Math.random() * points)));
  byId("reset").addEventListener("click", () => choose(state.point));
  byId("as-a").addEventListener("click", () => setEnd("a"));
  byId("as-b").addEventListener("click", () => setEnd("b"));
  setUpConditions();
  whenChanged.push(showNow, sayState);
}

function showNow() {
  const { outputs, point } = state;
  if (!outputs) return;
  if (view.kind === "image") {
    paintDecoded(now.decoded, outputs[0]);
    paintDecoded(now.small, outputs[0]);
    paintThumbnail(now.datapoint, point);
    now.datapoint.setAttribute("aria-label", `Image of ${pointName(point)}`);
    now.caption.textContent = pointName(point);
  } else if (view.kind === "series") {
    const box = now.lines.getBoundingClientRect();
    if (box.width) paintSeries(now.lines, box.width, box.height, outputs[0], valuesOf(point));
    paintSeries(now.small, 150, 96, outputs[0], null, false);
    now.caption.textContent = `Thin line: mean of p(x | z). Wide, pale line: ${pointName(point)}.`;
    if (now.legend) {
      now.legend.replaceChildren(...view.names.map((name, f) => {
        const key = element("canvas", { class: "key", "aria-hidden": "true" });
        const c = sharpCanvas(key, 26, 8);
        c.strokeStyle = colourOfLabel(f);
        c.lineWidth = 2;
        c.setLineDash(dashes[f % dashes.length]);
        c.beginPath();
        c.moveTo(0, 4);
        c.lineTo(26, 4);
        c.stroke();
        return element("span", {}, key, name);
      }));
    }
  } else {
    const values = valuesOf(point);
    now.caption.textContent = `datapoint ${rows[point]}`;
    view.columns.forEach((column, i) => {
      const [own, mean, spread] = now.rows[i];
      own.textContent = valueInWords(column, values[i]);
      own.className = values[i] !== values[i] ? "gap" : "";
      [mean.textContent, spread.textContent] = decodedInWords(i, outputs);
    });
    now.small.replaceChildren(...view.columns.slice(0, 4).map((column, i) =>
      element("tr", {}, element("th", {}, column.name), element("td", {}, decodedInWords(i, outputs)[0]))));
  }
}

// Says where the mark is, when it rests: for screen readers, and below the pictures.
let saying = 0;
function sayState() {
  clearTimeout(saying);
  saying = setTimeout(() => {
    const nearest = nearestPoint(toPixels(positionOf(state.z)));
    const isCode = codeOf(state.point).every((value, i) => Math.abs(value - state.z[i]) < 1e-6);
    const where = isCode
      ? `At the code of ${pointName(state.point)}.`
      : nearest < 0 ? "" : `Nearest on the map: ${pointName(nearest)}.`;
    const known = isCode && logProb ? ` log p(x): ${showLogProb(state.point)} nats.` : "";
    byId("status").textContent = where + known;
  }, 150);
}

function setUpConditions() {
  if (!content.conditions) return;
  const part = byId("condition-part"), { choice, names, low, high } = content.conditions;
  part.hidden = false;
  if (choice) {
    const select = element("select", { id: "condition" }, ...names.map((name, i) => element("option", { value: i }, name)));
    select.addEventListener("change", () => {
      state.y = state.y.map((_, i) => (i === Number(select.value) ? 1 : 0));
      changed();
    });
    part.append(element("label", {}, "Condition y ", select));
    whenChanged.push(() => { select.value = state.y.indexOf(Math.max(...state.y)); });
    return;
  }
  names.forEach((name, i) => {
    const range = Math.max(high[i] - low[i], 1e-6);
    const input = element("input", { type: "range", min: low[i], max: high[i], step: range / 200 });
    const output = element("output");
    input.addEventListener("input", () => {
      state.y[i] = Number(input.value);
      changed();
    });
    part.append(element("label", { class: "slider" }, element("span", {}, `y${i + 1}`), input, output));
    whenChanged.push(() => {
      input.value = state.y[i];
      output.textContent = state.y[i].toFixed(2);
    });
  });
}
