// What Python put into the page: settings as JSON, and arrays of numbers as base64.

const content = JSON.parse(document.getElementById("content").textContent);
const bytes = fromBase64(document.getElementById("arrays").textContent);

function fromBase64(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const characters = atob(text), result = new Uint8Array(characters.length);
  for (let i = 0; i < characters.length; i++) result[i] = characters.charCodeAt(i);
  return result;
}

// An array by its name; undefined if there is none.
function arrayOf(name) {
  const place = content.arrays[name];
  if (!place) return undefined;
  const [type, from, length] = place;
  return new (type === "f" ? Float32Array : Int32Array)(bytes.buffer, from, length);
}

const view = content.view;
const latents = content.latent.size;
const codes = arrayOf("z"); // [points, latents]
const rows = arrayOf("rows");
const positions = arrayOf("positions"); // [points, 2]
const labels = arrayOf("labels");
const points = rows.length;
const logProb = arrayOf("log_prob");
const logProbError = arrayOf("error");
const conditions = arrayOf("conditions");
const numConditions = content.conditions ? content.conditions.names.length : 0;

const weights = {};
for (const number of content.program.constants) weights[number] = arrayOf(`weights ${number}`);
const runDecoder = makeDecoder(content.program, weights);

const byId = (id) => document.getElementById(id);

// An element with attributes and children; texts become text, never HTML.
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

const whole = new Intl.NumberFormat("en");
const short = new Intl.NumberFormat("en", { maximumSignificantDigits: 4 });

function showNumber(value) {
  if (!Number.isFinite(value)) return Number.isNaN(value) ? "missing" : value > 0 ? "infinite" : "-infinite";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e7)) return value.toExponential(2);
  return short.format(value).replace("-", "\u2212");
}

// log p(x) of a datapoint in words, as "-91.4 +- 0.3", or as a lower bound, in nats.
function showLogProb(point) {
  const value = logProb[point], error = logProbError[point];
  const digits = (number) => number.toFixed(Math.abs(number) < 100 ? 2 : 1).replace("-", "\u2212");
  return Number.isFinite(error) ? `${digits(value)} \u00b1 ${error.toFixed(2)}` : `at least ${digits(value)}`;
}

const hasLabels = Boolean(labels);
const labelOf = (point) => (hasLabels ? content.labels[labels[point]] : "");

const pointName = (point) => `datapoint ${rows[point]}${hasLabels ? `, label ${labelOf(point)}` : ""}`;
