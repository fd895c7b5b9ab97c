// More values at once than the registers that the launch bounds leave: this kernel must spill.
__global__ void __launch_bounds__(1024, 2) spill(const float* from, float* to) {
  float values[96];
#pragma unroll
  for (int i = 0; i < 96; ++i) values[i] = from[i * 1024 + threadIdx.x];
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 96; ++i) to[i * 1024 + threadIdx.x] = values[i] * values[95 - i];
}
