// The operations of the decoder, each on Float32Arrays. A kernel gets an operation and the arrays, and returns a function
// that computes the operation. Sizes are fixed: what can be computed once is computed before the first call.

const functions = {
  // of one value
  abs: Math.abs, acos: Math.acos, acosh: Math.acosh, asin: Math.asin, asinh: Math.asinh, atan: Math.atan,
  atanh: Math.atanh, ceil: Math.ceil, cos: Math.cos, cosh: Math.cosh, exp: Math.exp, exp2: (x) => 2 ** x,
  expm1: Math.expm1, floor: Math.floor, log: Math.log, log10: Math.log10, log1p: Math.log1p, log2: Math.log2,
  sign: Math.sign, sin: Math.sin, sinh: Math.sinh, sqrt: Math.sqrt, tan: Math.tan, tanh: Math.tanh, trunc: Math.trunc,
  neg: (x) => -x,
  relu: (x) => (x > 0 ? x : x !== x ? x : 0),
  reciprocal: (x) => 1 / x,
  rsqrt: (x) => 1 / Math.sqrt(x),
  sigmoid: (x) => 1 / (1 + Math.exp(-x)),
  round: (x) => { // half to even, as PyTorch does
    const up = Math.round(x);
    return up - x === 0.5 && up % 2 !== 0 ? up - 1 : up;
  },
  erf: (x) => 1 - complementaryError(x),
  erfc: (x) => complementaryError(x),
  isinf: (x) => +(x === Infinity || x === -Infinity),
  isnan: (x) => +(x !== x),
  logical_not: (x) => +(x === 0),
  bitwise_not: (x) => +(x === 0), // of booleans
  // of two values
  add: (a, b) => a + b,
  sub: (a, b) => a - b,
  mul: (a, b) => a * b,
  div: (a, b) => a / b,
  pow: Math.pow,
  atan2: Math.atan2,
  fmod: (a, b) => a % b,
  remainder: (a, b) => a - b * Math.floor(a / b),
  maximum: Math.max,
  minimum: Math.min,
  eq: (a, b) => +(a === b),
  ne: (a, b) => +(a !== b),
  lt: (a, b) => +(a < b),
  le: (a, b) => +(a <= b),
  gt: (a, b) => +(a > b),
  ge: (a, b) => +(a >= b),
  logical_and: (a, b) => +(a !== 0 && b !== 0),
  logical_or: (a, b) => +(a !== 0 || b !== 0),
  logical_xor: (a, b) => +((a !== 0) !== (b !== 0)),
  // of three values
  where: (mask, a, b) => (mask !== 0 ? a : b),
};
functions.bitwise_and = functions.logical_and; // of booleans
functions.bitwise_or = functions.logical_or;
functions.bitwise_xor = functions.logical_xor;

const softplus = (x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));

function slopeOfSigmoid(x) {
  const e = Math.exp(-Math.abs(x));
  return e / ((1 + e) * (1 + e));
}

// erfc(x), with an error below 1.2e-7 relative to its value (Press et al., Numerical Recipes, section 6.2).
function complementaryError(x) {
  const t = 1 / (1 + 0.5 * Math.abs(x));
  const polynomial = -1.26551223 + t * (1.00002368 + t * (0.37409196 + t * (0.09678418 + t * (-0.18628806 + t *
    (0.27886807 + t * (-1.13520398 + t * (1.48851587 + t * (-0.82215223 + t * 0.17087277))))))));
  const tail = t * Math.exp(-x * x + polynomial);
  return x >= 0 ? tail : 2 - tail;
}

const reductions = {
  sum: (x, from, n) => { let total = 0; for (let i = from; i < from + n; i++) total += x[i]; return total; },
  mean: (x, from, n) => reductions.sum(x, from, n) / n,
  prod: (x, from, n) => { let total = 1; for (let i = from; i < from + n; i++) total *= x[i]; return total; },
  max: (x, from, n) => { let most = -Infinity; for (let i = from; i < from + n; i++) most = Math.max(most, x[i]); return most; },
  min: (x, from, n) => { let least = Infinity; for (let i = from; i < from + n; i++) least = Math.min(least, x[i]); return least; },
  any: (x, from, n) => { for (let i = from; i < from + n; i++) if (x[i] !== 0) return 1; return 0; },
  all: (x, from, n) => { for (let i = from; i < from + n; i++) if (x[i] === 0) return 0; return 1; },
  argmax: (x, from, n) => { let best = 0; for (let i = 1; i < n; i++) if (x[from + i] > x[from + best]) best = i; return best; },
  argmin: (x, from, n) => { let best = 0; for (let i = 1; i < n; i++) if (x[from + i] < x[from + best]) best = i; return best; },
  var: (x, from, n, correction = 1) => {
    const mean = reductions.mean(x, from, n);
    let total = 0;
    for (let i = from; i < from + n; i++) total += (x[i] - mean) ** 2;
    return total / (n - correction);
  },
};

// The position in memory of each value of an array with these strides.
function positionsOf(shape, strides, offset = 0) {
  const size = shape.reduce((product, each) => product * each, 1);
  const positions = new Int32Array(size);
  const index = new Int32Array(shape.length);
  let position = offset;
  for (let i = 0; i < size; i++) {
    positions[i] = position;
    for (let d = shape.length - 1; d >= 0; d--) {
      index[d]++;
      position += strides[d];
      if (index[d] < shape[d]) break;
      position -= strides[d] * shape[d];
      index[d] = 0;
    }
  }
  return positions;
}

// The dot products of the rows of two matrices, [rows, length] and [columns, length]. Four rows and two columns at a time
// share what they read. The product of row i and column j goes to out[outFrom + i * rowStep + j * columnStep].
function dots(left, leftFrom, rows, right, rightFrom, columns, length, bias, biasFrom, out, outFrom, rowStep, columnStep) {
  const evenRows = rows - (rows % 4), evenColumns = columns - (columns % 2);
  for (let i = 0; i < evenRows; i += 4) {
    const l0 = leftFrom + i * length, l1 = l0 + length, l2 = l1 + length, l3 = l2 + length;
    const b0 = bias === null ? 0 : bias[biasFrom + i], b1 = bias === null ? 0 : bias[biasFrom + i + 1];
    const b2 = bias === null ? 0 : bias[biasFrom + i + 2], b3 = bias === null ? 0 : bias[biasFrom + i + 3];
    for (let j = 0; j < evenColumns; j += 2) {
      const r0 = rightFrom + j * length, r1 = r0 + length;
      let s00 = b0, s10 = b1, s20 = b2, s30 = b3, s01 = b0, s11 = b1, s21 = b2, s31 = b3;
      for (let k = 0; k < length; k++) {
        const x = right[r0 + k], y = right[r1 + k];
        const w0 = left[l0 + k], w1 = left[l1 + k], w2 = left[l2 + k], w3 = left[l3 + k];
        s00 += w0 * x;
        s10 += w1 * x;
        s20 += w2 * x;
        s30 += w3 * x;
        s01 += w0 * y;
        s11 += w1 * y;
        s21 += w2 * y;
        s31 += w3 * y;
      }
      const o = outFrom + i * rowStep + j * columnStep, p = o + columnStep;
      out[o] = s00;
      out[o + rowStep] = s10;
      out[o + 2 * rowStep] = s20;
      out[o + 3 * rowStep] = s30;
      out[p] = s01;
      out[p + rowStep] = s11;
      out[p + 2 * rowStep] = s21;
      out[p + 3 * rowStep] = s31;
    }
    for (let j = evenColumns; j < columns; j++) {
      const r = rightFrom + j * length;
      let s0 = b0, s1 = b1, s2 = b2, s3 = b3;
      for (let k = 0; k < length; k++) {
        const x = right[r + k];
        s0 += left[l0 + k] * x;
        s1 += left[l1 + k] * x;
        s2 += left[l2 + k] * x;
        s3 += left[l3 + k] * x;
      }
      const o = outFrom + i * rowStep + j * columnStep;
      out[o] = s0;
      out[o + rowStep] = s1;
      out[o + 2 * rowStep] = s2;
      out[o + 3 * rowStep] = s3;
    }
  }
  for (let i = evenRows; i < rows; i++) {
    const l = leftFrom + i * length;
    for (let j = 0; j < columns; j++) {
      const r = rightFrom + j * length;
      let s = bias === null ? 0 : bias[biasFrom + i];
      for (let k = 0; k < length; k++) s += left[l + k] * right[r + k];
      out[outFrom + i * rowStep + j * columnStep] = s;
    }
  }
}

const kernels = {
  elementwise(operation, arrays) {
    const f = functions[operation.function];
    const out = arrays[operation.out];
    const inputs = operation.inputs.map((number) => arrays[number]);
    const size = out.length;
    if (!operation.shape) {
      const [a, b, c] = inputs;
      if (inputs.length === 1) return () => { for (let i = 0; i < size; i++) out[i] = f(a[i]); };
      if (inputs.length === 2) return () => { for (let i = 0; i < size; i++) out[i] = f(a[i], b[i]); };
      return () => { for (let i = 0; i < size; i++) out[i] = f(a[i], b[i], c[i]); };
    }
    const places = operation.strides.map((strides, k) =>
      strides ? positionsOf(operation.shape, strides) : positionsOf([inputs[k].length], [1]));
    const [a, b, c] = inputs, [p, q, r] = places;
    if (inputs.length === 1) return () => { for (let i = 0; i < size; i++) out[i] = f(a[p[i]]); };
    if (inputs.length === 2) return () => { for (let i = 0; i < size; i++) out[i] = f(a[p[i]], b[q[i]]); };
    return () => { for (let i = 0; i < size; i++) out[i] = f(a[p[i]], b[q[i]], c[r[i]]); };
  },

  strided(operation, arrays) {
    const x = arrays[operation.input], out = arrays[operation.out];
    const places = positionsOf(operation.shape, operation.strides, operation.offset);
    return () => { for (let i = 0; i < out.length; i++) out[i] = x[places[i]]; };
  },

  gather(operation, arrays) {
    const x = arrays[operation.input], out = arrays[operation.out], places = arrays[operation.positions];
    const fill = operation.fill;
    return () => { for (let i = 0; i < out.length; i++) out[i] = places[i] < 0 ? fill : x[places[i]]; };
  },

  cat(operation, arrays) {
    const out = arrays[operation.out], { lengths, outer } = operation;
    const inputs = operation.inputs.map((number) => arrays[number]);
    const whole = lengths.reduce((sum, each) => sum + each, 0);
    return () => {
      for (let i = 0, from = 0; i < inputs.length; from += lengths[i], i++)
        for (let o = 0; o < outer; o++)
          for (let k = 0; k < lengths[i]; k++) out[o * whole + from + k] = inputs[i][o * lengths[i] + k];
    };
  },

  embedding(operation, arrays) {
    const out = arrays[operation.out], { length } = operation;
    const weight = arrays[operation.weight], indices = arrays[operation.indices];
    return () => {
      for (let i = 0; i < indices.length; i++)
        for (let k = 0; k < length; k++) out[i * length + k] = weight[indices[i] * length + k];
    };
  },

  reduce(operation, arrays) {
    const f = reductions[operation.function], { inner, correction } = operation;
    const x = arrays[operation.input], out = arrays[operation.out];
    return () => { for (let i = 0; i < out.length; i++) out[i] = f(x, i * inner, inner, correction); };
  },

  cumsum(operation, arrays) {
    const x = arrays[operation.input], out = arrays[operation.out], { length, inner } = operation;
    return () => {
      for (let i = 0; i < x.length; i++) {
        const first = Math.floor(i / inner) % length === 0;
        out[i] = first ? x[i] : out[i - inner] + x[i];
      }
    };
  },

  dots(operation, arrays) {
    const { batch, rows, columns, length } = operation;
    const left = arrays[operation.left], right = arrays[operation.right], out = arrays[operation.out];
    const bias = operation.bias === null ? null : arrays[operation.bias];
    const leftStep = left.length > rows * length ? rows * length : 0;
    const rightStep = right.length > columns * length ? columns * length : 0;
    return () => {
      for (let b = 0; b < batch; b++)
        dots(left, b * leftStep, rows, right, b * rightStep, columns, length, bias, 0, out, b * rows * columns, 1, rows);
    };
  },

  // A product of the kernel with the patches of the image, one patch in a row.
  convolution(operation, arrays) {
    const { batch, groups, channels: [channels, outChannels], size: [height, width], outSize: [outHeight, outWidth] } = operation;
    const { kernel: [kh, kw], stride: [sy, sx], padding: [py, px], dilation: [dy, dx] } = operation;
    const x = arrays[operation.input], weight = arrays[operation.weight], out = arrays[operation.out];
    const bias = operation.bias === null ? null : arrays[operation.bias];
    const each = channels / groups, outEach = outChannels / groups;
    const length = each * kh * kw, places = outHeight * outWidth;
    const patches = new Float32Array(places * length);
    return () => {
      for (let n = 0; n < batch; n++) {
        for (let g = 0; g < groups; g++) {
          const from = (n * channels + g * each) * height * width;
          for (let oy = 0, p = 0; oy < outHeight; oy++) {
            for (let ox = 0; ox < outWidth; ox++) {
              for (let c = 0; c < each; c++) {
                for (let ky = 0; ky < kh; ky++) {
                  const y = oy * sy - py + ky * dy;
                  const row = from + (c * height + y) * width;
                  const inside = y >= 0 && y < height;
                  for (let kx = 0; kx < kw; kx++, p++) {
                    const at = ox * sx - px + kx * dx;
                    patches[p] = inside && at >= 0 && at < width ? x[row + at] : 0;
                  }
                }
              }
            }
          }
          dots(weight, g * outEach * length, outEach, patches, 0, places, length, bias, g * outEach,
            out, (n * outChannels + g * outEach) * places, places, 1);
        }
      }
    };
  },

  // A product of the kernel with each pixel, which is added up where the patches overlap.
  "transposed convolution"(operation, arrays) {
    const { batch, groups, channels: [channels, outChannels], size: [height, width], outSize: [outHeight, outWidth] } = operation;
    const { kernel: [kh, kw], stride: [sy, sx], padding: [py, px], dilation: [dy, dx] } = operation;
    const x = arrays[operation.input], weight = arrays[operation.weight], out = arrays[operation.out];
    const bias = operation.bias === null ? null : arrays[operation.bias];
    const each = channels / groups, outEach = outChannels / groups;
    const pixels = height * width, rows = outEach * kh * kw, places = outHeight * outWidth;
    const columns = new Float32Array(pixels * each), patches = new Float32Array(rows * pixels);
    return () => {
      for (let n = 0; n < batch; n++) {
        for (let g = 0; g < groups; g++) {
          const from = (n * channels + g * each) * pixels;
          for (let c = 0; c < each; c++) for (let p = 0; p < pixels; p++) columns[p * each + c] = x[from + c * pixels + p];
          dots(weight, g * rows * each, rows, columns, 0, pixels, each, null, 0, patches, 0, pixels, 1);
          for (let o = 0, row = 0; o < outEach; o++) {
            const to = (n * outChannels + g * outEach + o) * places;
            out.fill(bias === null ? 0 : bias[g * outEach + o], to, to + places);
            for (let ky = 0; ky < kh; ky++) {
              for (let kx = 0; kx < kw; kx++, row++) {
                for (let y = 0; y < height; y++) {
                  const oy = y * sy - py + ky * dy;
                  if (oy < 0 || oy >= outHeight) continue;
                  const line = to + oy * outWidth, source = row * pixels + y * width;
                  for (let at = 0; at < width; at++) {
                    const ox = at * sx - px + kx * dx;
                    if (ox >= 0 && ox < outWidth) out[line + ox] += patches[source + at];
                  }
                }
              }
            }
          }
        }
      }
    };
  },

  // The sum over levels of sigmoid((loc - (level + 1/2) / top) / scale), divided by top. If a level is less than half of
  // the scale, it is the integral of the sigmoid plus one term of the Euler-Maclaurin formula, to 1e-7.
  "discretized logistic mean"(operation, arrays) {
    const loc = arrays[operation.inputs[0]], scale = arrays[operation.inputs[1]], out = arrays[operation.out];
    const top = operation.levels - 1;
    return () => {
      for (let i = 0; i < out.length; i++) {
        const step = 1 / (scale[i] * top);
        if (step < 0.5) {
          const from = step * loc[i] * top, to = from - step * top; // arguments of the sigmoid at both ends
          const slope = slopeOfSigmoid(to) - slopeOfSigmoid(from);
          out[i] = ((softplus(from) - softplus(to)) / step + (step / 24) * slope) / top;
          continue;
        }
        const middle = loc[i] * top - 0.5; // of the levels, where the sigmoid is 1/2
        // Beyond 40 steps the sigmoid is 0 or 1 in double precision.
        const first = Math.max(0, Math.ceil(middle - 40 / step)), last = Math.min(top - 1, Math.floor(middle + 40 / step));
        let sum = Math.min(first, top);
        let odds = Math.exp((first - middle) * step);
        const factor = Math.exp(step);
        for (let level = first; level <= last; level++, odds *= factor) sum += 1 / (1 + odds);
        out[i] = sum / top;
      }
    };
  },
};
