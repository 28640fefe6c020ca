// Runs the decoder: z -> the mean of p(x | z).

// Makes a function from z to arrays, from the operations and the weights (by the number of their array). The arrays are
// used again by the next call.
function makeDecoder(program, weights) {
  const arrays = program.sizes.map((size, number) => weights[number] || new Float32Array(size));
  const steps = program.operations.map((operation) => kernels[operation.kind](operation, arrays));
  const outputs = program.outputs.map((number) => arrays[number]);
  return (z) => {
    arrays[program.input].set(z);
    for (let i = 0; i < steps.length; i++) steps[i]();
    return outputs;
  };
}
