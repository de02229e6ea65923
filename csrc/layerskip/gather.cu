// csrc/layerskip/gather.cu: CUDA side of gather.h. Memory bound: a row is read and written once.
#include "../common/launch.h"
#include "gather.h"

namespace lmx::layerskip {
namespace {
// ---- launch parameters: a block moves kPieces pieces a thread of one row ------------------------
constexpr int kThreads = 128, kPieces = 4;
template <typename Piece>
constexpr int64_t kBlockBytes = int64_t{kThreads} * kPieces * sizeof(Piece);
// At least one block a row, also where rows are empty: the status is set all the same.
LMX_HD int64_t blocks_of(int64_t row_bytes, int64_t block_bytes) {
  return row_bytes > 0 ? ceil_div(row_bytes, block_bytes) : 1;
}

// ---- kernel -------------------------------------------------------------------------------
template <typename Piece>
__global__ void __launch_bounds__(kThreads) gather_kernel(GatherParams p) {
  const int64_t blocks = blocks_of(p.row_bytes, kBlockBytes<Piece>);
  const int64_t i = blockIdx.x / blocks, first = blockIdx.x % blocks * kThreads * kPieces;
  const int64_t number = p.perm[i], pieces = p.row_bytes / static_cast<int64_t>(sizeof(Piece));
  const bool bad = bad_number(p, i);
  if (bad && p.status && first == 0 && threadIdx.x == 0) p.status[i] |= kStatusBadGroup;
  if (bad && p.scatter) return;
  const int64_t from_row = p.scatter ? i : number, to_row = p.scatter ? number : i;
  const auto* from = reinterpret_cast<const Piece*>(static_cast<const char*>(p.from) +
                                                    (bad ? 0 : from_row) * p.from_stride);
  auto* to = reinterpret_cast<Piece*>(static_cast<char*>(p.to) + to_row * p.to_stride);
  Piece piece[kPieces] = {};
#pragma unroll
  for (int j = 0; j < kPieces; ++j) {
    const int64_t at = first + j * kThreads + threadIdx.x;
    if (!bad && at < pieces) piece[j] = from[at];
  }
#pragma unroll
  for (int j = 0; j < kPieces; ++j) {
    const int64_t at = first + j * kThreads + threadIdx.x;
    if (at < pieces) to[at] = piece[j];
  }
}

template <typename Piece>
void launch_gather(const GatherParams& p, cudaStream_t stream) {
  launch(gather_kernel<Piece>, p.num_rows * blocks_of(p.row_bytes, kBlockBytes<Piece>), kThreads, 0,
         stream, p);
}
}  // namespace

// ---- launcher: pieces of 16, 4 and 1 bytes = 3 instantiations -----------------------------------
void gather_cuda(const GatherParams& p, cudaStream_t stream) {
  if (p.num_rows == 0) return;
  const auto bits = reinterpret_cast<uintptr_t>(p.from) | reinterpret_cast<uintptr_t>(p.to) |
                    static_cast<uintptr_t>(p.from_stride | p.to_stride | p.row_bytes);
  if (bits % 16 == 0) return launch_gather<uint4>(p, stream);
  if (bits % 4 == 0) return launch_gather<uint32_t>(p, stream);
  launch_gather<uint8_t>(p, stream);
}
}  // namespace lmx::layerskip
