// tests/simt/selftest_global.cu: global memory: bounds, inputs, alignment, blocks that meet in it.
#include "common/launch.h"
#include "common/ptx.cuh"
#include "selftest.h"

namespace selftest {
namespace {

// ---- y = 2 * x, four floats per thread --------------------------------------------------------

int library_counter = 0;

__device__ uint4 twice(uint4 v) {
  const auto twice = [](unsigned bits) { return __float_as_uint(2.f * __uint_as_float(bits)); };
  return {twice(v.x), twice(v.y), twice(v.z), twice(v.w)};
}

template <Bug kBug>
__global__ void scale_kernel(const float* x, float* y, int n) {
  const int i = (blockIdx.x * blockDim.x + threadIdx.x) * 4;
  if (i >= n + 4 * (kBug == "streams_past_the_end")) return;
  uint4 v = lmx::ptx::load_streaming(x + i + (kBug == "misaligned_streaming" ? 2 : 0));
  if (kBug == "misaligned_vector") v = *reinterpret_cast<const uint4*>(x + i + 2);
  if (kBug == "memcpy_past_the_end") memcpy(&v, x + i + n - 3, static_cast<size_t>(n) % 7 + 9);
  if (kBug == "streams_shared") v = lmx::ptx::load_streaming(&lmx::shared_memory<uint4>());
  if (kBug == "writes_input") const_cast<float*>(x)[i] = 0.f;
  if (kBug == "writes_library_data") ++library_counter;
  if (kBug == "reads_fresh_output") y[i] += 1.f;
  lmx::ptx::store_streaming(y + i + (kBug == "stores_past_the_end" ? n : 0), twice(v));
}

// The same with 8-byte pieces of a struct of two words, which need no alignment to 16.
struct Pair {
  int64_t a, b;
};
__global__ void pairs_kernel(const Pair* x, Pair* y, int n) {
  const int i = threadIdx.x;
  if (i < n) y[i] = {x[i].b, __ldg(&x[i].a)};
}

struct Scale {
  template <Bug kBug>
  static constexpr auto* kKernel = scale_kernel<kBug>;
  static void run(decltype(kKernel<"none">) kernel, std::string_view) {
    const int n = 1000;
    const auto x = normal<float>(n);
    Output<float> y(n);
    lmx::launch(kernel, 4, 64, 16, nullptr, x.in(), y.fresh(), n);
    for (int i = 0; i < n; ++i) require(y[i] == 2.f * x[i], "scaled");

    alignas(16) int64_t words[2 * 9 + 1];  // the pairs begin at 8 modulo 16
    std::iota(words, words + 19, 0);
    Output<Pair> swapped(9);
    simt::expose(words + 1, 9 * sizeof(Pair), false);
    lmx::launch(pairs_kernel, 1, 32, 0, nullptr, reinterpret_cast<const Pair*>(words + 1),
                swapped.fresh(), 9);
    require(swapped[8].a == 18 && swapped[8].b == 17, "pairs");
  }
};

// ---- in place, and through two views of one tensor --------------------------------------------

__global__ void negate_kernel(const float* x, float* y, int n) {
  for (int i = threadIdx.x; i < n; i += blockDim.x) y[i] = -x[i];
}

struct InPlace {
  template <Bug kBug>
  static constexpr auto* kKernel = negate_kernel;
  static void run(decltype(kKernel<"none">) kernel, std::string_view) {
    Output<float> x(100, 1.f);
    simt::expose(x.data(), 400, false);  // an input as well
    lmx::launch(kernel, 1, 32, 0, nullptr, x.data(), x.out(), 100);
    simt::clear_exposed();
    simt::expose(x.data() + 30, 280, false);  // inputs [30, 100), outputs [0, 60)
    simt::expose(x.data(), 240, true);
    lmx::launch(kernel, 1, 32, 0, nullptr, x.data() + 40, x.data(), 40);
    require(x[0] == 1.f && x[39] == 1.f && x[40] == -1.f, "in place");
  }
};

// ---- sums per block, added by a second launch -------------------------------------------------

template <Bug kBug>
__global__ void partial_kernel(float* x, float* partial, float* total, int n) {
  const int b = blockIdx.x, t = threadIdx.x;
  float sum = 0.f;
  for (int i = t; i < n; i += 32) sum += x[b * n + i];
  for (int d = 16; d > 0; d /= 2) sum += __shfl_xor_sync(~0u, sum, d);
  if (t == 0) partial[kBug == "blocks_write_one_place" ? 0 : b] = sum;
  if (kBug == "block_reads_another" && b > 0 && t == 0) total[0] = partial[b - 1];
  if (kBug == "block_writes_what_another_read" && b == 3) x[t] = 0.f;
  if (kBug == "thread_reads_another") x[b * n + t] = x[b * n + (t ^ 1)];
  if (kBug == "constant_path") {
    __syncthreads();
    if (__ldg(partial + b) != sum) __trap();
  }
  if (kBug == "plain_beside_atomic" && t == 0) {
    if (b == 0)
      total[0] = 0.f;
    else
      atomicAdd(total, sum);
  }
}

__global__ void total_kernel(const float* partial, float* total, int* num_blocks, int n) {
  if (threadIdx.x == 0) atomicAdd(num_blocks, 1);
  if (blockIdx.x > 0 || threadIdx.x > 0) return;
  float sum = 0.f;
  for (int i = 0; i < n; ++i) sum += partial[i];
  total[0] = sum;
}

struct Partial {
  template <Bug kBug>
  static constexpr auto* kKernel = partial_kernel<kBug>;
  static void run(decltype(kKernel<"none">) kernel, std::string_view) {
    const int blocks = 4, n = 32;
    Output<float> x(blocks * n, 1.f), partial(blocks), total(2);
    Output<int> num_blocks(1);
    lmx::launch(kernel, blocks, 32, 0, nullptr, x.out(), partial.fresh(), total.fresh(), n);
    lmx::launch(total_kernel, blocks, 32, 0, nullptr, partial.data(), total.data(),
                num_blocks.out(), blocks);
    require(total[0] == blocks * n && num_blocks[0] == blocks, "sum of partial sums");
  }
};

// ---- waiting, private memory, shapes ----------------------------------------------------------

struct OddShared {
  int words[40];
  int* pointer;
};

template <Bug kBug>
__global__ void odd_kernel(int* flag) {
  auto& s = lmx::shared_memory<OddShared>();
  int local[2] = {static_cast<int>(threadIdx.x), 1};
  if (threadIdx.x == 0) s.pointer = local;
  __syncthreads();
  if (kBug == "local_of_another_thread") flag[threadIdx.x] = *s.pointer;
  if (kBug == "waits_for_a_flag") {
    while (*static_cast<volatile int*>(flag) == 0) {
    }
  }
  if (kBug == "sleeps") __nanosleep(100);
  if (kBug == "shared_past_the_end") (&s.words[0])[threadIdx.x + 42] = 1;
  if (kBug == "shared_view_too_large") lmx::shared_memory<int[64]>()[0] = 1;
  if (threadIdx.x < 2) flag[threadIdx.x] = local[threadIdx.x];
}

struct Odd {
  template <Bug kBug>
  static constexpr auto* kKernel = odd_kernel<kBug>;
  static void run(decltype(kKernel<"none">) kernel, std::string_view bug) {
    Output<int> flag(32);
    const dim3 grid(1, bug == "grid_too_large" ? 65536 : 1, bug == "empty_grid" ? 0 : 1);
    const dim3 block(bug == "too_many_threads" ? 1025 : 32);
    const size_t bytes = bug == "too_much_shared" ? 100 << 10 : sizeof(OddShared);
    lmx::launch(kernel, grid, block, bytes, nullptr, flag.out());
    require(flag[1] == 1, "local variables");
  }
};

}  // namespace

void add_global_cases(std::vector<Case>& cases) {
  add_cases<Scale, "none", "streams_past_the_end", "misaligned_streaming", "misaligned_vector",
            "memcpy_past_the_end", "streams_shared", "writes_input", "writes_library_data",
            "reads_fresh_output", "stores_past_the_end">(cases, "scale");
  add_cases<InPlace, "none">(cases, "in place");
  add_cases<Partial, "none", "blocks_write_one_place", "block_reads_another",
            "block_writes_what_another_read", "thread_reads_another", "constant_path",
            "plain_beside_atomic">(cases, "partial sums");
  add_cases<Odd, "none", "local_of_another_thread", "waits_for_a_flag", "sleeps",
            "shared_past_the_end", "shared_view_too_large", "grid_too_large", "empty_grid",
            "too_many_threads", "too_much_shared">(cases, "odd");
}

}  // namespace selftest
