// tests/simt/selftest_warp.cu: the masks of warp operations, common/warp.cuh, and order.
#include "common/launch.h"
#include "common/warp.cuh"
#include "selftest.h"

namespace selftest {
namespace {

// ---- what the masks of warp operations promise ------------------------------------------------

struct MaskShared {
  int value[32];
};

template <Bug kBug>
__global__ void mask_kernel(int* out) {
  auto& s = lmx::shared_memory<MaskShared>();
  const int lane = threadIdx.x;
  s.value[lane] = -1;
  __syncwarp();
  s.value[lane] = lane;
  if (lane < 16) {
    if (kBug == "lane_not_in_mask") __syncwarp(0x7fff);
    if (kBug == "shuffle_from_absent_lane") __shfl_sync(0xffff, lane, 16);
    __syncwarp(0xffff);
    // Orders the lower lanes only; what an upper lane wrote may not be there yet.
    out[lane] = s.value[kBug == "syncwarp_of_others" ? lane + 16 : lane ^ 1];
  }
  if (kBug == "mask_beyond_block" && lane < 16) __syncwarp();
  if (kBug == "shuffles_in_branches") {
    if (lane < 16)
      __shfl_sync(~0u, lane, 0);
    else
      __shfl_sync(~0u, lane, 0);
  }
  __syncwarp();
  if (lane >= 16) out[lane] = s.value[lane - 16];
}

// Order is handed on: lane 0 to lane 1 by one __syncwarp, lane 1 to lane 2 by the next.
__global__ void chain_kernel(int* out) {
  auto& s = lmx::shared_memory<MaskShared>();
  const int lane = threadIdx.x;
  if (lane == 0) s.value[0] = 42;
  if (lane == 0 || lane == 1) __syncwarp(0b011);
  if (lane == 1 || lane == 2) __syncwarp(0b110);
  if (lane == 2) out[0] = s.value[0];
}

struct Masks {
  template <Bug kBug>
  static constexpr auto* kKernel = mask_kernel<kBug>;
  static void run(decltype(kKernel<"none">) kernel, std::string_view bug) {
    Output<int> out(32);
    lmx::launch(kernel, 1, bug == "mask_beyond_block" ? 16 : 32, sizeof(MaskShared), nullptr,
                out.fresh());
    for (int i = 0; i < 32; ++i) require(out[i] == (i < 16 ? i ^ 1 : i - 16), "masks");
    lmx::launch(chain_kernel, 1, 32, sizeof(MaskShared), nullptr, out.out());
    require(out[0] == 42, "chain of two __syncwarp");
  }
};

// ---- the reductions of common/warp.cuh --------------------------------------------------------

struct ReduceShared {
  float sum[4];
  lmx::ValueAt<float> best[4];
};

__global__ void reduce_kernel(const float* x, float* sum, float* widest, int* best, int n) {
  auto& s = lmx::shared_memory<ReduceShared>();
  float total = 0.f;
  lmx::ValueAt<float> top{-INFINITY, INT32_MAX};
  for (int i = threadIdx.x; i < n; i += 128) {
    total += x[i];
    top = lmx::ArgMax{}(top, {x[i], i});
  }
  const float pair = lmx::warp_reduce<2>(static_cast<float>(threadIdx.x), lmx::Max{});
  if (pair != static_cast<float>(threadIdx.x | 1)) __trap();
  total = lmx::block_reduce<128>(total, lmx::Sum{}, s.sum);
  top = lmx::block_reduce<128>(top, lmx::ArgMax{}, s.best);
  sum[threadIdx.x] = total;
  best[threadIdx.x] = top.index;
  widest[threadIdx.x] = lmx::warp_max(lmx::warp_sum(1.f) + static_cast<float>(threadIdx.x % 32));
}

struct Reductions {
  template <Bug kBug>
  static constexpr auto* kKernel = reduce_kernel;
  static void run(decltype(kKernel<"none">) kernel, std::string_view) {
    auto x = normal<float>(1000);
    x[700] = x[123] = x[401] = 9.f;
    x[5] = NAN;
    Output<float> sum(128), widest(128);
    Output<int> best(128);
    lmx::launch(kernel, 1, 128, sizeof(ReduceShared), nullptr, x.in(), sum.fresh(), widest.fresh(),
                best.fresh(), 1000);
    for (int i = 0; i < 128; ++i) {
      require(best[i] == 123, "the lowest index of the largest value");
      require(std::isnan(sum[i]) && widest[i] == 63.f, "sum and max");
    }
  }
};

// ---- order ------------------------------------------------------------------------------------

// Numbers blocks and threads in the order in which they come by: not wrong for the checker, but the
// result depends on what nobody promises, which running in another order shows.
template <Bug kBug>
__global__ void ticket_kernel(int* counter, int* out) {
  const bool mine = kBug == "depends_on_block_order" ? threadIdx.x == 0 : blockIdx.x == 0;
  if (mine) out[blockIdx.x + threadIdx.x] = atomicAdd(counter, 1);
}

struct Tickets {
  template <Bug kBug>
  static constexpr auto* kKernel = ticket_kernel<kBug>;
  static void run(decltype(kKernel<"none">) kernel, std::string_view bug) {
    Output<int> counter(1), out(64);
    const bool blocks = bug == "depends_on_block_order";
    lmx::launch(kernel, blocks ? 64 : 1, blocks ? 1 : 64, 0, nullptr, counter.out(), out.fresh());
    for (int i = 0; i < 64; ++i)
      require(out[i] == i, "it depends on an order that nobody promises");
  }
};

}  // namespace

void add_warp_cases(std::vector<Case>& cases) {
  add_cases<Masks, "none", "lane_not_in_mask", "shuffle_from_absent_lane", "syncwarp_of_others",
            "mask_beyond_block", "shuffles_in_branches">(cases, "masks");
  add_cases<Reductions, "none">(cases, "reductions");
  add_cases<Tickets, "depends_on_block_order", "depends_on_thread_order">(cases, "tickets");
}

}  // namespace selftest
