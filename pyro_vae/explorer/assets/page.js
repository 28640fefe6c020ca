// Puts the page together.

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  byId("theme").textContent = theme === "dark" ? "Light" : "Dark";
  byId("theme").setAttribute("aria-label", theme === "dark" ? "Light colours" : "Dark colours");
}

function setUpTheme() {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  let chosen = false;
  const set = (theme) => {
    setTheme(theme);
    showLegend();
    redrawMap();
    showPath();
    showLowest();
    changed();
  };
  byId("theme").addEventListener("click", () => {
    chosen = true;
    set(isDark() ? "light" : "dark");
  });
  dark.addEventListener("change", () => { if (!chosen) set(dark.matches ? "dark" : "light"); });
}

const plural = (count, noun) => `${whole.format(count)} ${noun}${count === 1 ? "" : "s"}`;

function showTexts() {
  const { latent, map: { method, explained }, total, subtitle } = content;
  byId("subtitle").textContent = [
    subtitle,
    points < total ? `${plural(points, "datapoint")} of ${whole.format(total)}` : plural(points, "datapoint"),
    `${plural(latent.size, "latent")}${latent.active < latent.size ? `, ${latent.active} active` : ""}`,
  ].filter(Boolean).join(" \u00b7 ");
  const percent = explained.map((share) => `${Math.round(100 * share)} %`);
  const ways = {
    latents: latent.size === 1 ? "Horizontal: z1." : "Horizontal: z1. Vertical: z2.",
    pca: `The first two principal components of the codes: ${percent.join(" and ")} of their variance.`,
    umap: "UMAP of the codes: near points have similar codes; distances between groups have little meaning.",
  };
  const moves = {
    latents: "",
    pca: "Dragging moves z in the plane of the map; its other components stay.",
    umap: `A position on the map is decoded as the mean of the ${NEIGHBOURS} nearest codes.`,
  };
  byId("map-help").textContent = `${ways[method]} Drag on the map to decode: the decoder runs in this page. ${moves[method]}`;
  byId("map").setAttribute("aria-label", `Map of the codes of ${plural(points, "datapoint")}`);
  const notes = [
    points < total
      ? `The ${whole.format(points)} datapoints were drawn at random from ${whole.format(total)}, without replacement.`
      : `All ${whole.format(points)} datapoints are shown.`,
    "A code is the mean of q(z | x), or a draw if it has no mean in closed form.",
    "Decoded data are means of p(x | z), without noise.",
    latent.active < latent.size
      ? `A latent is active if the variance of its codes is above 0.01: ${latent.active} of ${latent.size} are.`
      : null,
    latent.sphere ? "Latents are on the unit sphere: z is projected onto it after each change." : null,
    view.kind === "image" && view.thumbnails.width < view.width
      ? `Images of datapoints are shown at ${view.thumbnails.width} x ${view.thumbnails.height} pixels; decoded ones at ${view.width} x ${view.height}.`
      : null,
    `The decoder in this page differs from PyTorch by at most ${comparison().toExponential(0)}, at the codes of ${content.check} datapoints` +
      `${view.kind === "image" ? " (values from 0 to 1)" : ", relative to the largest value"}.`,
    "The page is one file. It loads nothing and sends nothing.",
  ];
  byId("notes").replaceChildren(...notes.filter(Boolean).map((note) => element("li", {}, note)));
}

// The largest difference from what PyTorch decoded, relative to the largest value if that is above 1.
function comparison() {
  const given = arrayOf("check inputs"), expected = arrayOf("check outputs");
  const each = given.length / content.check, size = expected.length / content.check;
  let difference = 0, largest = 1;
  for (let i = 0; i < content.check; i++) {
    const [mean] = runDecoder(given.subarray(i * each, (i + 1) * each));
    for (let k = 0; k < size; k++) {
      const should = expected[i * size + k];
      if (mean[k] === should || (mean[k] !== mean[k] && should !== should)) continue;
      difference = Math.max(difference, Math.abs(mean[k] - should));
      largest = Math.max(largest, Math.abs(should));
    }
  }
  return difference / largest;
}

function showProblem(message) {
  byId("problem").textContent = message;
  byId("problem").hidden = false;
}

async function start() {
  setTheme(window.matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  await loadThumbnails();
  setUpPath();
  setUpColours();
  setUpNow();
  setUpSliders();
  setUpMap();
  setUpLowest();
  setUpTheme();
  showTexts();
  const difference = comparison();
  if (!(difference <= 1e-4)) showProblem(`The decoder in this page differs from PyTorch by ${difference}; do not trust its pictures.`);
  choose(state.a);
  // For the console, and for tests.
  window.explorer = { content, state, codes, positions, decode, choose, setLatent, latentAt, positionOf, toPixels, comparison, ready: true };
}

window.addEventListener("error", (event) => showProblem(`The page failed: ${event.message}`));
start().catch((error) => {
  showProblem(`The page failed: ${error.message}`);
  throw error;
});
