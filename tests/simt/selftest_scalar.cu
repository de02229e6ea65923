// tests/simt/selftest_scalar.cu: the values of intrinsics and warp operations, and what C++ leaves
// undefined.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "common/launch.h"
#include "common/ptx.cuh"
#include "selftest.h"

namespace selftest {
namespace {

// A kernel that finds a wrong value traps, which the harness reports with the line.
__device__ void expect(bool ok, SIMT_SITE) {
  if (!ok) __trap(site);
}

__global__ void intrinsics_kernel() {
  expect(__popc(0xf0f0u) == 8 && __popcll(~0ull) == 64);
  expect(__ffs(0) == 0 && __ffs(8) == 4 && __ffsll(1ll << 40) == 41);
  expect(__clz(0) == 32 && __clz(1) == 31 && __clz(-1) == 0 && __clzll(1) == 63 &&
         __clzll(0) == 64);
  expect(__brev(1) == 1u << 31 && __brev(0x12345678u) == 0x1e6a2c48u && __brevll(2) == 1ull << 62);
  expect(__umulhi(~0u, ~0u) == 0xfffffffeu && __umul64hi(~0ull, 2) == 1);
  expect(__byte_perm(0x33221100u, 0x77665544u, 0x7520u) == 0x77552200u);
  expect(__funnelshift_l(0x80000000u, 1, 1) == 3 && __funnelshift_r(2, 1, 1) == 0x80000001u);
  expect(__float_as_uint(1.f) == 0x3f800000u && __int_as_float(0x40000000) == 2.f);
  expect(__double_as_longlong(1.) == 0x3ff0000000000000ll && __float_as_int(-0.f) == INT32_MIN);
  expect(__fmaf_rn(3.f, 5.f, 1.f) == 16.f && __fadd_rn(1.f, 1e-9f) == 1.f &&
         __fmul_rn(3.f, .5f) == 1.5f);
  expect(__fmaf_rn(1.f + 0x1p-23f, 1.f - 0x1p-23f, -1.f) == -0x1p-46f);  // one rounding, not two
  expect(__fdiv_rn(1.f, 3.f) == 1.f / 3.f && __dadd_rn(1., 2.) == 3. && __dmul_rn(1.5, 2.) == 3.);
  expect(__float2int_rn(2.5f) == 2 && __float2int_rz(-2.5f) == -2 && __float2int_rd(-2.5f) == -3);
  expect(__float2int_rn(NAN) == 0 && __float2int_rz(1e20f) == INT32_MAX &&
         __float2uint_rz(-1.f) == 0);
  expect(max(NAN, 1.f) == 1.f && min(1.f, NAN) == 1.f && max(-1, 3) == 3 && fmaxf(NAN, 2.f) == 2.f);
  expect(lmx::ptx::max_nan(-2.f, -1.f) == -1.f && std::isnan(lmx::ptx::max_nan(NAN, 1.f)) &&
         std::isnan(lmx::ptx::max_nan(INFINITY, NAN)));
  expect(rsqrtf(4.f) == .5f && fabsf(expf(1.f) - 2.7182817f) < 1e-6f && __saturatef(NAN) == 0.f);
  expect(__bfloat162float(__float2bfloat16(1.00390625f)) == 1.f);  // a tie, to even
  expect(__half2float(__float2half(65519.f)) == 65504.f &&
         static_cast<float>(__nv_bfloat16(3.f)) == 3.f);
}

__global__ void warp_kernel() {
  const int lane = threadIdx.x;
  const auto big = static_cast<long long>(lane) << 40;
  expect(__shfl_sync(~0u, big, 9) == 9ll << 40 && __shfl_sync(~0u, lane, 3, 8) == (lane & ~7) + 3);
  expect(__shfl_xor_sync(~0u, static_cast<double>(lane), 5) == (lane ^ 5));
  expect(__shfl_down_sync(~0u, lane, 3u) == (lane < 29 ? lane + 3 : lane));
  expect(__shfl_up_sync(~0u, lane, 3u, 16) == (lane % 16 >= 3 ? lane - 3 : lane));
  expect(__bfloat162float(__shfl_sync(~0u, __nv_bfloat16(static_cast<float>(lane)), 31)) == 31.f);
  expect(__ballot_sync(~0u, lane % 2) == 0xaaaaaaaau && __any_sync(~0u, lane == 7) &&
         !__all_sync(~0u, lane));
  expect(__match_any_sync(~0u, lane / 8) == 0xffu << (lane & ~7));
  int all = 0;
  expect(__match_all_sync(~0u, 5ull, &all) == ~0u && all == 1);
  expect(__reduce_add_sync(~0u, lane) == 496 && __reduce_xor_sync(~0u, 1u << lane) == ~0u);
  expect(__reduce_min_sync(~0u, lane - 16) == -16 &&
         __reduce_max_sync(~0u, static_cast<unsigned>(lane)) == 31);
  expect(__reduce_and_sync(~0u, ~(1u << lane)) == 0 && __reduce_or_sync(~0u, 4u) == 4);
  if (lane < 6) expect(__shfl_xor_sync(0x3fu, lane, 1) == (lane ^ 1));
}

struct AtomicShared {
  unsigned long long wide;
  float sum;
  unsigned ring, bits;
  int lowest, taken;
};

__global__ void atomic_kernel(unsigned long long* total) {
  auto& s = lmx::shared_memory<AtomicShared>();
  const int t = threadIdx.x;
  if (t == 0) s = {0, 0.f, 0, 0, INT32_MAX, 0};
  __syncthreads();
  atomicAdd(&s.wide, 1ull << 33);
  atomicAdd(&s.sum, 1.f);
  atomicInc(&s.ring, 9);
  atomicOr(&s.bits, 1u << t % 32);
  atomicMin(&s.lowest, t);
  if (atomicCAS(&s.taken, 0, 1) == 0) atomicExch(&s.taken, 2);
  atomicMax(total, static_cast<unsigned long long>(t));
  __syncthreads();
  expect(s.wide == 64ull << 33 && s.sum == 64.f && s.ring == 4 && s.bits == ~0u);
  expect(s.lowest == 0 && s.taken == 2);
}

struct Values {
  template <Bug kBug>
  static constexpr auto* kKernel = intrinsics_kernel;
  static void run(decltype(kKernel<"none">) kernel, std::string_view) {
    Output<unsigned long long> total(1);
    lmx::launch(kernel, 1, 1, 0, nullptr);
    lmx::launch(warp_kernel, 1, 32, 0, nullptr);
    lmx::launch(atomic_kernel, 3, 64, sizeof(AtomicShared), nullptr, total.out());
    require(total[0] == 63, "atomicMax");
  }
};

// ---- undefined in C++, and mostly something else on a GPU than on a CPU -----------------------

struct UndefinedShared {
  int a[8], b[8];
};

template <Bug kBug>
__global__ void undefined_kernel(const float* x, int* out, int n) {
  auto& s = lmx::shared_memory<UndefinedShared>();
  s.a[threadIdx.x] = s.b[threadIdx.x] = 1;
  __syncthreads();
  const int i = threadIdx.x + (kBug == "index_outside_array" ? n : 0);
  int v = s.a[i];
  v += 1 << (threadIdx.x + (kBug == "shift_too_far" ? 4 * n : 0));
  v += n / (static_cast<int>(threadIdx.x) - (kBug == "divides_by_zero" ? 3 : 9));
  v += static_cast<int>(x[threadIdx.x] * (kBug == "float_too_large" ? 1e12f : 1.f));
  out[threadIdx.x] = v;
}

struct Undefined {
  template <Bug kBug>
  static constexpr auto* kKernel = undefined_kernel<kBug>;
  static void run(decltype(kKernel<"none">) kernel, std::string_view) {
    Input<float> x(8, 1.f);
    Output<int> out(8);
    lmx::launch(kernel, 1, 8, sizeof(UndefinedShared), nullptr, x.in(), out.fresh(), 8);
    require(out[3] == 1 + 8 + 8 / (3 - 9) + 1, "defined arithmetic");
  }
};

}  // namespace

void add_scalar_cases(std::vector<Case>& cases) {
  add_cases<Values, "none">(cases, "values");
  add_cases<Undefined, "none", "index_outside_array", "shift_too_far", "divides_by_zero",
            "float_too_large">(cases, "undefined");
}

}  // namespace selftest
