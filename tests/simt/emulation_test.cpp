// What a kernel finds under the emulator: indices, shared memory, barriers, shuffles, votes, atomics, arithmetic.
#include <cmath>
#include <cstdint>
#include <numeric>
#include <vector>

#include "kd/cuda/buffer.hpp"
#include "kd/cuda/launch.hpp"
#include "kd/kernel/block.cuh"
#include "kd/kernel/number.cuh"
#include "support/catch.hpp"
#include "support/compare.hpp"

namespace {

using kd::kernel::full_warp;

/// What a kernel writes into n elements, which are poisoned before.
template <class T, class Launch>
std::vector<T> written(std::size_t n, Launch launch) {
  const kd::cuda::stream s;
  kd::cuda::buffer<T> memory(n);
  launch(s, memory.data());
  std::vector<T> values(n);
  kd::cuda::download(s, memory.data(), n, values.data());
  return values;
}

KD_KERNEL void write_indices(unsigned* out) {
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  out[block * blockDim.x * blockDim.y * blockDim.z + thread] = block * 1000 + thread;
}

template <class T>
KD_KERNEL void __launch_bounds__(256) sum_rows(const T* x, unsigned n, float* out) {
  __shared__ float room[8];
  float sum = 0;
  for (unsigned i = threadIdx.x; i < n; i += 256) sum += kd::kernel::to_float(x[blockIdx.x * n + i]);
  sum = kd::kernel::block_sum<256>(sum, room);
  if (threadIdx.x == 0) out[blockIdx.x] = sum;
}

KD_KERNEL void reverse(unsigned* out) {
  KD_DYNAMIC_SHARED(unsigned, tile);
  tile[threadIdx.x] = threadIdx.x;
  __syncthreads();
  out[threadIdx.x] = tile[blockDim.x - 1 - threadIdx.x];
}

template <class T>
KD_KERNEL void shuffles(T* out) {
  const unsigned lane = threadIdx.x;
  const T x = static_cast<T>(100 + lane);
  out[lane] = __shfl_sync(full_warp, x, static_cast<int>(lane) + 5, 8);
  out[32 + lane] = __shfl_up_sync(full_warp, x, 3, 16);
  out[64 + lane] = __shfl_down_sync(full_warp, x, 3);
  out[96 + lane] = __shfl_xor_sync(full_warp, x, 9);
  if (lane < 7) out[128 + lane] = __shfl_sync(0x7fu, x, 6);
}

KD_KERNEL void votes(unsigned* out) {
  const unsigned i = threadIdx.x;
  out[i] = __ballot_sync(full_warp, i % 3 == 0);
  out[64 + i] = static_cast<unsigned>(__any_sync(full_warp, i == 5) * 2 + __all_sync(full_warp, i < 32));
  out[128 + i] = static_cast<unsigned>(__syncthreads_count(i % 2 == 0) * 4 + (__syncthreads_or(i == 63) != 0) * 2 +
                                       (__syncthreads_and(i < 63) != 0));
  out[192 + i] = __reduce_add_sync(full_warp, i);
  out[256 + i] = __match_any_sync(full_warp, static_cast<int>(i % 2));
}

KD_KERNEL void atomics(unsigned* out, float* sum) {
  __shared__ unsigned count;
  if (threadIdx.x == 0) count = 0;
  __syncthreads();
  atomicAdd(&count, 2u);
  atomicAdd(sum, 0.5f);
  atomicMax(out + 1, blockIdx.x * blockDim.x + threadIdx.x);
  atomicOr(out + 2, 1u << threadIdx.x % 32);
  unsigned seen = atomicCAS(out + 3, 0u, 0u);
  while (seen != atomicCAS(out + 3, seen, seen + 1)) seen = atomicCAS(out + 3, 0u, 0u);
  __syncthreads();
  if (threadIdx.x == 0) atomicAdd(out, count);
}

KD_KERNEL void poisoned(float* out) {
  __shared__ float tile[32];
  KD_DYNAMIC_SHARED(float, more);
  // Reading what nobody wrote is what this kernel is for; the compiler must not see it.
  volatile float *a = tile, *b = more;
  out[blockIdx.x * 32 + threadIdx.x] = a[threadIdx.x] + b[threadIdx.x];
  a[threadIdx.x] = 1;
  b[threadIdx.x] = 1;
}

KD_KERNEL void vectors(const float4* in, float4* out, kd::kernel::bfloat16* halves) {
  const float4 v = in[threadIdx.x];
  out[threadIdx.x] = make_float4(v.w, v.z, v.y, v.x);
  halves[threadIdx.x] = kd::kernel::from_float<kd::kernel::bfloat16>(v.x);
}

}  // namespace

TEST_CASE("emulator: every thread of every block runs once with its indices", "[simt]") {
  const auto got = written<unsigned>(24 * 30, [](const auto& s, unsigned* out) {
    kd::cuda::launch(s, "write_indices", dim3(2, 3, 4), dim3(5, 3, 2), 0, write_indices, out);
  });
  for (unsigned block = 0; block < 24; ++block)
    for (unsigned thread = 0; thread < 30; ++thread) REQUIRE(got[block * 30 + thread] == block * 1000 + thread);
}

TEST_CASE("emulator: a block reduction is the same in every order", "[simt]") {
  std::vector<float> x(3 * 1000);
  std::iota(x.begin(), x.end(), 0.0f);
  for (std::uint64_t seed = 1; seed <= 5; ++seed) {
    simt::set_seed(seed);
    const auto got = written<float>(3, [&](const auto& s, float* out) {
      kd::cuda::buffer<float> from(x.size());
      kd::cuda::upload(s, x.data(), x.size(), from.data());
      kd::cuda::launch(s, "sum_rows", 3, 256, 0, sum_rows<float>, from.data(), 1000u, out);
    });
    REQUIRE(got == std::vector<float>{499500, 1499500, 2499500});
  }
}

TEST_CASE("emulator: dynamic shared memory up to 227 KiB", "[simt]") {
  for (const unsigned threads : {1u, 33u, 1024u})
    for (const std::size_t bytes : {threads * sizeof(unsigned), std::size_t{227} * 1024}) {
      const auto got = written<unsigned>(threads, [&](const auto& s, unsigned* out) {
        kd::cuda::launch(s, "reverse", 1, threads, bytes, reverse, out);
      });
      for (unsigned i = 0; i < threads; ++i) REQUIRE(got[i] == threads - 1 - i);
    }
}

TEMPLATE_TEST_CASE("emulator: shuffles", "[simt]", int, unsigned, long, unsigned long long, float, double) {
  const auto got = written<TestType>(
      135, [](const auto& s, TestType* out) { kd::cuda::launch(s, "shuffles", 1, 32, 0, shuffles<TestType>, out); });
  for (unsigned lane = 0; lane < 32; ++lane) {
    REQUIRE(got[lane] == static_cast<TestType>(100 + lane / 8 * 8 + (lane + 5) % 8));
    REQUIRE(got[32 + lane] == static_cast<TestType>(100 + (lane % 16 >= 3 ? lane - 3 : lane)));
    REQUIRE(got[64 + lane] == static_cast<TestType>(100 + (lane < 29 ? lane + 3 : lane)));
    REQUIRE(got[96 + lane] == static_cast<TestType>(100 + (lane ^ 9)));
  }
  for (unsigned lane = 0; lane < 7; ++lane) REQUIRE(got[128 + lane] == static_cast<TestType>(106));
}

TEST_CASE("emulator: votes and warp reductions", "[simt]") {
  const auto got =
      written<unsigned>(320, [](const auto& s, unsigned* out) { kd::cuda::launch(s, "votes", 1, 64, 0, votes, out); });
  for (unsigned i = 0; i < 64; ++i) {
    unsigned thirds = 0;
    for (unsigned lane = 0; lane < 32; ++lane) thirds |= static_cast<unsigned>((i / 32 * 32 + lane) % 3 == 0) << lane;
    REQUIRE(got[i] == thirds);
    REQUIRE(got[64 + i] == (i < 32 ? 3u : 0u));
    REQUIRE(got[128 + i] == 32 * 4 + 2);
    REQUIRE(got[192 + i] == (i < 32 ? 496u : 1520u));
    REQUIRE(got[256 + i] == (i % 2 == 0 ? 0x55555555u : 0xaaaaaaaau));
  }
}

TEST_CASE("emulator: atomics", "[simt]") {
  const kd::cuda::stream s;
  kd::cuda::buffer<unsigned> out(4);
  kd::cuda::buffer<float> sum(1);
  kd::cuda::fill_zero(s, out.data(), 4);
  kd::cuda::fill_zero(s, sum.data(), 1);
  kd::cuda::launch(s, "atomics", 3, 64, 0, atomics, out.data(), sum.data());
  std::vector<unsigned> got(4);
  float total = 0;
  kd::cuda::download(s, out.data(), 4, got.data());
  kd::cuda::download(s, sum.data(), 1, &total);
  CHECK(got == std::vector<unsigned>{3 * 128, 191, 0xffffffffu, 192});
  CHECK(total == 96);
}

#if !defined(KD_SIMT_ASAN) && !defined(KD_SIMT_RACE)
TEST_CASE("emulator: shared and device memory are NaN before they are written", "[simt]") {
  const auto got = written<float>(128, [](const auto& s, float* out) {
    kd::cuda::launch(s, "poisoned", 3, 32, 32 * sizeof(float), poisoned, out);
  });
  for (const float x : got) REQUIRE(std::isnan(x));
}
#endif

TEST_CASE("emulator: vector loads, bfloat16", "[simt]") {
  const kd::cuda::stream s;
  std::vector<float> x(4 * 20);
  std::iota(x.begin(), x.end(), 0.25f);
  kd::cuda::buffer<float> in(x.size()), out(x.size());
  kd::cuda::buffer<kd::kernel::bfloat16> halves(20);
  kd::cuda::upload(s, x.data(), x.size(), in.data());
  kd::cuda::launch(s, "vectors", 1, 20, 0, vectors, reinterpret_cast<const float4*>(in.data()),
                   reinterpret_cast<float4*>(out.data()), halves.data());
  std::vector<float> got(x.size());
  std::vector<kd::kernel::bfloat16> rounded(20);
  kd::cuda::download(s, out.data(), got.size(), got.data());
  kd::cuda::download(s, halves.data(), 20, rounded.data());
  for (std::size_t i = 0; i < x.size(); ++i) REQUIRE(got[i] == x[i / 4 * 4 + 3 - i % 4]);
  for (std::size_t i = 0; i < 20; ++i)
    REQUIRE(kd_test::near(kd::kernel::to_float(rounded[i]), x[4 * i], {.relative = 0.005}));
}

TEST_CASE("emulator: launches that no GPU takes", "[simt]") {
  const kd::cuda::stream s;
  kd::cuda::buffer<unsigned> out(4096);
  const auto launch = [&](dim3 grid, dim3 block, std::size_t bytes) {
    kd::cuda::launch(s, "write_indices", grid, block, bytes, write_indices, out.data());
  };
  CHECK_NOTHROW(launch(0, 32, 0));
  CHECK_THROWS_AS(launch(1, 0, 0), simt::error);
  CHECK_THROWS_AS(launch(1, 1025, 0), simt::error);
  CHECK_THROWS_AS(launch(1, dim3(1, 1, 65), 0), simt::error);
  CHECK_THROWS_AS(launch(dim3(1, 65536), 1, 0), simt::error);
  CHECK_THROWS_AS(launch(1, 32, 227 * 1024 + 1), simt::error);
  CHECK(simt::pending_operations() == 0);
}

TEST_CASE("emulator: intrinsics of arithmetic", "[simt]") {
  CHECK(__umulhi(0xffffffffu, 0xffffffffu) == 0xfffffffeu);
  CHECK(__umul64hi(~0ull, ~0ull) == ~0ull - 1);
  CHECK(__popc(0xf0f0u) == 8);
  CHECK(__clz(1) == 31);
  CHECK(__clz(0) == 32);
  CHECK(__ffs(8) == 4);
  CHECK(__brev(1u) == 0x80000000u);
  CHECK(__uint_as_float(__float_as_uint(1.5f)) == 1.5f);
  CHECK(min(3u, 2u) == 2u);
  CHECK(max(-1.0f, NAN) == -1.0f);
  CHECK(__float2int_rn(2.5f) == 2);
  CHECK(rsqrtf(4.0f) == 0.5f);
}
