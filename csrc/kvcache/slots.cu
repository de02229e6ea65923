// csrc/kvcache/slots.cu: CUDA side of slots.h. A block per sequence checks its slots; then a warp
// per token and layer moves the rows.
#include "slots.h"

#include "rows.cuh"

namespace lmx::kvcache {
namespace {
// ---- launch parameters ----------------------------------------------------------------
constexpr int kCheckThreads = 128;

struct Scratch {
  int32_t warp[kCheckThreads / kWarpSize];
};
struct Or {
  __device__ int32_t operator()(int32_t a, int32_t b) const { return a | b; }
};

// ---- kernel ---------------------------------------------------------------------------
__global__ void __launch_bounds__(kCheckThreads) check_seqs_kernel(SlotsParams p) {
  auto& s = shared_memory<Scratch>();
  const int64_t seq = blockIdx.x;
  int32_t bits = kStatusOk;
  for (int64_t i = threadIdx.x; i < p.table_rows * p.per_seq; i += kCheckThreads)
    bits |= slot_status(p, seq, i / p.per_seq, i % p.per_seq);
  bits = block_reduce<kCheckThreads>(bits, Or{}, s.warp);
  if (threadIdx.x != 0) return;
  p.bad[seq] = bits;
  if (bits && p.status) p.status[seq] |= bits;
}
}  // namespace

// ---- launcher -------------------------------------------------------------------------
void slots_cuda(const SlotsParams& p, cudaStream_t stream) {
  if (p.rows.num_tokens == 0) return;
  launch(check_seqs_kernel, p.num_seqs, kCheckThreads, sizeof(Scratch), stream, p);
  if (p.gather)
    move_rows<true>(p, stream);
  else
    move_rows<false>(p, stream);
}
}  // namespace lmx::kvcache
