// What is decoded now: the latent z, the conditions y, and the datapoint that they came from.

const codeOf = (point) => codes.subarray(point * latents, (point + 1) * latents);
const conditionsOf = (point) => (conditions ? conditions.subarray(point * numConditions, (point + 1) * numConditions) : new Float32Array(0));

const state = {
  z: Float32Array.from(codeOf(0)),
  y: Float32Array.from(conditionsOf(0)),
  point: 0, // the datapoint that was chosen last
  a: 0, // the ends of the path between two datapoints
  b: points - 1,
  outputs: null, // of the decoder at z and y
};

const whenChanged = []; // functions that show the state; each is called at most once for each frame
let isWaiting = false;

function changed() {
  if (isWaiting) return;
  isWaiting = true;
  requestAnimationFrame(() => {
    isWaiting = false;
    showState();
  });
}

function showState() {
  state.outputs = decode(state.z, state.y).map((values) => Float32Array.from(values));
  for (const show of whenChanged) show();
}

const inputs = new Float32Array(latents + numConditions);

// The outputs of the decoder; the next call uses the same memory.
function decode(z, y = state.y) {
  inputs.set(z);
  if (numConditions) inputs.set(y, latents);
  return runDecoder(inputs);
}

// Latents on a sphere stay on it.
function onSphere(z) {
  if (content.latent.sphere) {
    const length = Math.hypot(...z);
    if (length > 0) for (let i = 0; i < z.length; i++) z[i] /= length;
  }
  return z;
}

function setLatent(z) {
  state.z = onSphere(Float32Array.from(z));
  changed();
}

// Chooses a datapoint: z is its code.
function choose(point) {
  state.point = point;
  state.y = Float32Array.from(conditionsOf(point));
  setLatent(codeOf(point));
}

function mix(from, to, share) {
  return Float32Array.from(from, (value, i) => (1 - share) * value + share * to[i]);
}

// z and y on the way from datapoint A to datapoint B.
function onPath(share) {
  return [
    onSphere(mix(codeOf(state.a), codeOf(state.b), share)),
    mix(conditionsOf(state.a), conditionsOf(state.b), share),
  ];
}
