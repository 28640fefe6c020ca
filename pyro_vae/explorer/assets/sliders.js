// A slider for each latent, those whose codes vary most first.

const FIRST = 10;

function setUpSliders() {
  const { order, variance, low, high } = content.latent;
  const most = Math.max(...variance, 1e-9);
  const made = order.map((unit) => {
    const name = `z${unit + 1}`;
    const input = element("input", {
      type: "range", id: `slider-${unit}`, min: low[unit], max: high[unit], step: (high[unit] - low[unit]) / 400,
      "aria-label": `Latent ${name}, variance of its codes ${showNumber(variance[unit])}`,
    });
    const output = element("output", { for: `slider-${unit}` });
    const bar = element("span", { class: "variance", title: `variance of the codes: ${showNumber(variance[unit])}` }, element("i"));
    bar.firstChild.style.width = `${Math.max(2, (100 * variance[unit]) / most)}%`;
    input.addEventListener("input", () => {
      const z = Float32Array.from(state.z);
      z[unit] = Number(input.value);
      setLatent(z);
    });
    whenChanged.push(() => {
      if (document.activeElement !== input || Math.abs(input.value - state.z[unit]) > 0.02) input.value = state.z[unit];
      output.textContent = state.z[unit].toFixed(2).replace("-", "\u2212");
    });
    return element("label", { class: "slider" }, element("span", {}, name), bar, input, output);
  });
  byId("sliders").append(...made.slice(0, FIRST));
  if (made.length > FIRST) {
    byId("sliders").append(element("details", {},
      element("summary", {}, `${made.length - FIRST} more latents, with less variance`), ...made.slice(FIRST)));
  }
}
