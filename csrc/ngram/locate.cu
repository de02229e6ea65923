// csrc/ngram/locate.cu: CUDA side of locate.h. A thread per occurrence.
#include "locate.h"

#include "index.cuh"

namespace lmx::ngram {
namespace {
constexpr int kThreads = 128;

template <typename Order>
__global__ void __launch_bounds__(kThreads) locate_kernel(LocateParams p) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= p.num_queries * p.k) return;
  set_bits(p.status, i / p.k, locate_one<Order>(p, i / p.k, i % p.k));
}
}  // namespace
void locate_cuda(const LocateParams& p, cudaStream_t stream) {
  if (p.num_queries == 0 || p.k == 0) return;
  visit_order(p.index, [&](auto order) {
    launch(locate_kernel<decltype(order)>, ceil_div<int64_t>(p.num_queries * p.k, kThreads),
           kThreads, 0, stream, p);
  });
}
}  // namespace lmx::ngram
