// tests/simt/selftest_matrix.cu: ldmatrix and mma.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "common/launch.h"
#include "common/ptx.cuh"
#include "selftest.h"

namespace selftest {
namespace {

// ---- c[16 m, 8 n] = a * b^T: a [m, k], b [n, k], 16-bit ---------------------------------------

template <typename T>
struct MmaShared {
  alignas(16) T a[16][16 + 8];  // the 8 keep the rows of an ldmatrix in different banks
  alignas(16) T b[8][16 + 8];
  alignas(16) T b_across[16][8];  // b's tile with k as the rows, for the transposing load
};

template <Bug kBug, typename T>
__device__ void load_tiles(MmaShared<T>& s, const T* a, const T* b, int k, int k0) {
  const int lane = threadIdx.x, half = lane % 2 * 8;
  *reinterpret_cast<uint4*>(&s.a[lane / 2][half]) =
      *reinterpret_cast<const uint4*>(a + int64_t{lane / 2} * k + k0 + half);
  if (lane < 16)
    *reinterpret_cast<uint4*>(&s.b[lane / 2][half]) =
        *reinterpret_cast<const uint4*>(b + int64_t{lane / 2} * k + k0 + half);
  for (int i = lane; i < 16 * 8; i += 32)
    s.b_across[i / 8][i % 8] = b[int64_t{i % 8} * k + k0 + i / 8];
}

template <Bug kBug, typename T>
__global__ void mma_kernel(const T* a, const T* b, float* c, int n, int k) {
  auto& s = lmx::shared_memory<MmaShared<T>>();
  const int lane = threadIdx.x;
  a += int64_t{blockIdx.y} * 16 * k;
  b += int64_t{blockIdx.x} * 8 * k;
  float d[4] = {};
  for (int k0 = 0; k0 < k; k0 += 16) {
    load_tiles<kBug>(s, a, b, k, k0);
    if (kBug != "missing_syncwarp_before_ldmatrix") __syncwarp();
    uint32_t af[4], bf[2], across[4], low[1];
    const int skew = kBug == "misaligned_ldmatrix" ? 4 : 0;
    lmx::ptx::ldmatrix<4>(af, &s.a[lane % 16][lane / 16 * 8 + skew]);
    lmx::ptx::ldmatrix<2>(bf, &s.b[lane % 8][lane / 8 % 2 * 8]);
    lmx::ptx::ldmatrix<4, true>(across, s.b_across[lane % 16]);  // its two matrices, twice
    lmx::ptx::ldmatrix<1, true>(low, s.b_across[lane % 8]);
    for (int i = 0; i < 4; ++i)
      if (across[i] != bf[i % 2]) __trap();
    if (low[0] != bf[0]) __trap();
    if constexpr (std::is_same_v<T, __half>)
      lmx::ptx::mma_m16n8k16_f16(d, af, bf);
    else
      lmx::ptx::mma_m16n8k16_bf16(d, af, bf);
    if (kBug != "missing_syncwarp_before_reuse") __syncwarp();
  }
  c += int64_t{blockIdx.y} * 16 * n + int64_t{blockIdx.x} * 8;
  for (int r = 0; r < 4; ++r) c[int64_t{lane / 4 + r / 2 * 8} * n + lane % 4 * 2 + r % 2] = d[r];
}

template <typename T>
struct Mma {
  template <Bug kBug>
  static constexpr auto* kKernel = mma_kernel<kBug, T>;
  static void run(decltype(kKernel<"none">) kernel, std::string_view) {
    const int m = 32, n = 16, k = 64;
    const auto a = normal<T>(m * k), b = normal<T>(n * k);
    Output<float> c(m * n);
    lmx::launch(kernel, dim3(n / 8, m / 16), 32, sizeof(MmaShared<T>), nullptr, a.in(), b.in(),
                c.fresh(), n, k);
    for (int i = 0; i < m; ++i) {
      for (int j = 0; j < n; ++j) {
        double sum = 0;
        for (int q = 0; q < k; ++q)
          sum += double{static_cast<float>(a[i * k + q])} * static_cast<float>(b[j * k + q]);
        require(std::abs(sum - c[i * n + j]) < 1e-5 * std::sqrt(k), "matrix product");
      }
    }
  }
};

}  // namespace

void add_matrix_cases(std::vector<Case>& cases) {
  add_cases<Mma<__nv_bfloat16>, "none", "missing_syncwarp_before_ldmatrix",
            "missing_syncwarp_before_reuse", "misaligned_ldmatrix">(cases, "mma bf16");
  add_cases<Mma<__half>, "none">(cases, "mma f16");
}

}  // namespace selftest
