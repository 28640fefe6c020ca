// The path between two datapoints: the means of p(x | z) on the straight line between their codes.

const path = { steps: view.kind === "image" ? 11 : view.kind === "series" ? 7 : 5, frames: [] };

function setEnd(end) {
  state[end] = state.point;
  showPath();
  changed();
}

function setUpPath() {
  if (hasLabels) { // two datapoints of different labels to begin with
    const other = labels.findIndex((label) => label !== labels[0]);
    if (other > 0) state.b = other;
  }
  byId("along").addEventListener("input", () => goAlong(Number(byId("along").value)));
  byId("swap").addEventListener("click", () => {
    [state.a, state.b] = [state.b, state.a];
    showPath();
    changed();
  });
  byId("play").hidden = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
  byId("play").addEventListener("click", play);
  showPath();
}

function goAlong(share) {
  byId("along").value = share;
  byId("along").setAttribute("aria-valuetext", `${Math.round(100 * share)} % of the way from A to B`);
  const [z, y] = onPath(share);
  if (share === 0) state.point = state.a;
  if (share === 1) state.point = state.b;
  state.y = y;
  setLatent(z);
}

let playing = 0;
function play() {
  const button = byId("play");
  if (playing) {
    cancelAnimationFrame(playing);
    playing = 0;
    button.textContent = "Play";
    return;
  }
  button.textContent = "Stop";
  const start = performance.now();
  const frame = (time) => {
    const share = Math.max(0, Math.min(1, (time - start) / 4000));
    goAlong(share);
    playing = share < 1 ? requestAnimationFrame(frame) : 0;
    if (!playing) button.textContent = "Play";
  };
  playing = requestAnimationFrame(frame);
}

function showPath() {
  const shares = Array.from({ length: path.steps }, (_, i) => i / (path.steps - 1));
  const nameOf = (share) => (share === 0 ? `A: ${rows[state.a]}` : share === 1 ? `B: ${rows[state.b]}` : `${Math.round(100 * share)} %`);
  if (view.kind === "table") {
    const columns = shares.map((share) => {
      const outputs = decode(...onPath(share));
      return view.columns.map((_, i) => decodedInWords(i, outputs)[0]);
    });
    byId("path").replaceChildren(element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Columns from A to B" },
      element("table", { class: "values" },
        element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "column"),
          ...shares.map((share) => element("th", { scope: "col" }, nameOf(share))))),
        element("tbody", {}, ...view.columns.map((column, i) =>
          element("tr", {}, element("th", { scope: "row" }, column.name), ...columns.map((words) => element("td", {}, words[i]))))))));
    return;
  }
  byId("path").replaceChildren(element("div", { class: "strip" }, ...shares.map((share) => {
    const canvas = element("canvas", { class: view.kind === "image" ? "pixels" : "lines", "aria-hidden": "true" });
    const [values] = decode(...onPath(share));
    if (view.kind === "image") paintDecoded(canvas, values);
    else paintSeries(canvas, 150, 96, values, null, false);
    return element("button", {
      type: "button", "aria-label": `Decode ${Math.round(100 * share)} % of the way from A to B`, onclick: () => goAlong(share),
    }, canvas, element("span", {}, nameOf(share)));
  })));
}
