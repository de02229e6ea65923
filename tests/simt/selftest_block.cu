// tests/simt/selftest_block.cu: barriers, shuffles, atomics and cp.async within a block.
#include <cuda_bf16.h>

#include "common/launch.h"
#include "common/ptx.cuh"
#include "selftest.h"

namespace selftest {
namespace {

using bf16 = __nv_bfloat16;

// ---- row sum: warp shuffles, then one shared word per warp ------------------------------------

constexpr int kThreads = 256;

struct RowShared {
  float warp_sum[kThreads / 32];
};

template <Bug kBug>
__global__ void __launch_bounds__(kThreads) row_sum_kernel(const bf16* x, float* out, int cols) {
  auto& s = lmx::shared_memory<RowShared>();
  const int64_t row = blockIdx.x;
  float sum = 0.f;
  for (int c = threadIdx.x; c < cols + (kBug == "reads_past_the_end"); c += kThreads)
    sum += __bfloat162float(x[row * cols + c]);
  if (kBug == "thread_misses_shuffle" && threadIdx.x == 77) return;
  for (int d = 16; d > 0; d /= 2) sum += __shfl_xor_sync(~0u, sum, d);
  if (threadIdx.x % 32 == 0) s.warp_sum[threadIdx.x / 32] = sum;
  if (kBug != "missing_barrier") __syncthreads();
  if (threadIdx.x < 32) {
    sum = threadIdx.x < kThreads / 32 ? s.warp_sum[threadIdx.x] : 0.f;
    for (int d = 4; d > 0; d /= 2) sum += __shfl_xor_sync(~0u, sum, d);
    if (threadIdx.x == 0) out[row] = sum;
  }
  if (kBug == "barrier_for_some" && threadIdx.x < 100) __syncthreads();
  if (kBug == "barriers_in_branches") {
    if (threadIdx.x < 128)
      __syncthreads();
    else
      __syncthreads();
  }
}

struct RowSum {
  template <Bug kBug>
  static constexpr auto* kKernel = row_sum_kernel<kBug>;
  static void run(decltype(kKernel<"none">) kernel, std::string_view) {
    const int rows = 6, cols = 1000;
    const auto x = normal<bf16>(rows * cols);
    Output<float> out(rows);
    lmx::launch(kernel, rows, kThreads, sizeof(RowShared), nullptr, x.in(), out.fresh(), cols);
    for (int r = 0; r < rows; ++r) {
      double sum = 0;
      for (int c = 0; c < cols; ++c) sum += __bfloat162float(x[r * cols + c]);
      require(std::abs(sum - out[r]) < 1e-5 * std::sqrt(cols), "row sum");
    }
  }
};

// ---- y = a * x: tiles of 32 rows x 64 columns through two cp.async stages ----------------------

constexpr int kRows = 32, kTile = 64;

struct TileShared {
  alignas(16) float a[2][kRows][kTile];
  alignas(16) float x[2][kTile];
};

template <Bug kBug>
__device__ void load_tile(TileShared& s, int stage, const float* a, const float* x, int k0,
                          int cols) {
  const int skew = kBug == "misaligned_cp_async" ? 2 : kBug == "cp_async_past_the_end" ? 4 : 0;
  for (int i = threadIdx.x * 4; i < kRows * kTile; i += 128 * 4) {
    const int row = i / kTile, k = i % kTile;
    const float* from = a + int64_t{row} * cols + k0 + k + skew;
    lmx::ptx::cp_async16(&s.a[stage][row][k], from, k0 + k < cols);  // zeros past the last column
  }
  const int k = threadIdx.x * 2;
  if (k < kTile) lmx::ptx::cp_async<8>(&s.x[stage][k], x + k0 + k, k0 + k < cols);
  lmx::ptx::cp_async_commit();
}

template <Bug kBug>
__global__ void tiled_kernel(const float* a, const float* x, float* y, int cols) {
  auto& s = lmx::shared_memory<TileShared>();
  a += int64_t{blockIdx.x} * kRows * cols;
  const int row = threadIdx.x / 4, part = threadIdx.x % 4;
  const int tiles = (cols + kTile - 1) / kTile;
  float sum = 0.f;
  load_tile<kBug>(s, 0, a, x, 0, cols);
  for (int t = 0; t < tiles; ++t) {
    if (t + 1 < tiles) load_tile<kBug>(s, (t + 1) % 2, a, x, (t + 1) * kTile, cols);
    if (kBug != "missing_cp_async_wait") {
      if (t + 1 < tiles)
        lmx::ptx::cp_async_wait<1>();
      else if (kBug != "returns_before_wait")
        lmx::ptx::cp_async_wait<0>();
    }
    if (kBug != "missing_barrier_after_wait") __syncthreads();
    if (kBug == "returns_before_wait" && t + 1 == tiles) return;
    for (int k = part; k < kTile; k += 4) sum += s.a[t % 2][row][k] * s.x[t % 2][k];
    if (kBug != "missing_barrier_before_reuse") __syncthreads();
  }
  sum += __shfl_xor_sync(~0u, sum, 1);
  sum += __shfl_xor_sync(~0u, sum, 2);
  if (part == 0) y[int64_t{blockIdx.x} * kRows + row] = sum;
}

struct Tiled {
  template <Bug kBug>
  static constexpr auto* kKernel = tiled_kernel<kBug>;
  static void run(decltype(kKernel<"none">) kernel, std::string_view) {
    const int rows = 64, cols = 252;
    const auto a = normal<float>(rows * cols), x = normal<float>(cols);
    Output<float> y(rows);
    lmx::launch(kernel, rows / kRows, 128, sizeof(TileShared), nullptr, a.in(), x.in(), y.fresh(),
                cols);
    for (int r = 0; r < rows; ++r) {
      double sum = 0;
      for (int c = 0; c < cols; ++c) sum += double{a[r * cols + c]} * x[c];
      require(std::abs(sum - y[r]) < 1e-5 * std::sqrt(cols), "tiles");
    }
  }
};

// ---- histogram of x % 8 with ballots, matches, reductions and atomics -------------------------

struct CountShared {
  int count[8];
  int per_warp[4][8];
};

template <Bug kBug>
__global__ void count_kernel(const int* x, int* out, int* odd, int n) {
  auto& s = lmx::shared_memory<CountShared>();
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  if (threadIdx.x < 8) s.count[threadIdx.x] = 0;
  if (lane < 8) s.per_warp[warp][lane] = 0;
  __syncthreads();
  const int i = blockIdx.x * blockDim.x + threadIdx.x, bin = i < n ? x[i] % 8 : -1;
  const unsigned same = __match_any_sync(~0u, bin);
  const bool leader = bin >= 0 && lane == __ffs(same) - 1;
  if (leader && kBug == "plain_add_for_atomic") s.count[bin] += __popc(same);
  if (leader && kBug != "plain_add_for_atomic") atomicAdd(&s.count[bin], __popc(same));

  // The same once more per warp, which may read its own atomics after a __syncwarp.
  if (bin >= 0) atomicAdd(&s.per_warp[warp][bin], 1);
  if (kBug != "missing_syncwarp_after_atomic") __syncwarp();
  const int mine = bin >= 0 ? s.per_warp[warp][bin] : __popc(same);

  const unsigned odds = __ballot_sync(~0u, bin >= 0 && bin % 2);
  if (lane == 0) atomicAdd(odd, __popc(odds));
  if (__reduce_max_sync(~0u, bin) > 7 || __syncthreads_or(mine != __popc(same))) __trap();
  if (!__syncthreads_and(bin < 8)) __trap();
  if (__syncthreads_count(bin == 0) != s.count[0]) __trap();
  if (threadIdx.x < 8) atomicAdd(&out[threadIdx.x], s.count[threadIdx.x]);
}

struct Count {
  template <Bug kBug>
  static constexpr auto* kKernel = count_kernel<kBug>;
  static void run(decltype(kKernel<"none">) kernel, std::string_view) {
    Input<int> x(1001);
    Output<int> out(8), odd(1);
    std::vector<int> want(8);
    std::mt19937 rng(1);
    for (int& v : x) v = static_cast<int>(rng() % 1000), ++want[v % 8];
    lmx::launch(kernel, 8, 128, sizeof(CountShared), nullptr, x.in(), out.out(), odd.out(), 1001);
    require(std::equal(out.begin(), out.end(), want.begin()), "histogram");
    require(odd[0] == want[1] + want[3] + want[5] + want[7], "odd values");
  }
};

}  // namespace

void add_block_cases(std::vector<Case>& cases) {
  add_cases<RowSum, "none", "reads_past_the_end", "thread_misses_shuffle", "missing_barrier",
            "barrier_for_some", "barriers_in_branches">(cases, "row sum");
  add_cases<Tiled, "none", "missing_cp_async_wait", "returns_before_wait", "misaligned_cp_async",
            "cp_async_past_the_end", "missing_barrier_after_wait", "missing_barrier_before_reuse">(
      cases, "cp.async tiles");
  add_cases<Count, "none", "plain_add_for_atomic", "missing_syncwarp_after_atomic">(cases,
                                                                                    "histogram");
}

}  // namespace selftest
