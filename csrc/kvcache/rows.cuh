// csrc/kvcache/rows.cuh: rows between packed tokens and pages, on CUDA. Memory bound: a row is read
// and written once. A warp moves one token of one layer; neighbouring lanes move neighbouring
// pieces of a row.
#pragma once
#include "../common/launch.h"
#include "../common/warp.cuh"
#include "layout.h"

namespace lmx::kvcache {
// ---- launch parameters ----------------------------------------------------------------
constexpr int kMoveWarps = 8;

// ---- kernel: P has pool, rows, slot_of and one_slot_for_all_heads ---------------------
template <typename Piece, bool kGather, typename P>
__global__ void __launch_bounds__(kMoveWarps* kWarpSize) move_kernel(P p) {
  const int64_t item = int64_t{blockIdx.x} * kMoveWarps + threadIdx.y;
  if (item >= p.rows.num_layers * p.rows.num_tokens) return;
  const int64_t layer = item / p.rows.num_tokens, token = item % p.rows.num_tokens;
  const bool shared = one_slot_for_all_heads(p);
  const int64_t shared_slot = shared ? slot_of(p, layer, token, 0) : -1;
  if (!kGather && shared && shared_slot < 0) return;
  const int per_row = static_cast<int>(p.pool.row_bytes / sizeof(Piece));
  const int count = 2 * static_cast<int>(p.rows.num_heads) * per_row;
#pragma unroll 4
  for (int j = threadIdx.x; j < count; j += kWarpSize) {
    const int row = j / per_row, at = j % per_row;
    const int head = row >> 1, kv = row & 1;
    const int64_t slot = shared ? shared_slot : slot_of(p, layer, token, head);
    const Tokens& tokens = kv == 0 ? p.rows.key : p.rows.value;
    auto* piece = reinterpret_cast<Piece*>(row_of(tokens, layer, token, head)) + at;
    if (slot < 0) {
      if (kGather) *piece = Piece{};
      continue;
    }
    auto* page_piece =
        reinterpret_cast<Piece*>(p.pool.data + row_at(p.pool, slot, layer, kv, head)) + at;
    if (kGather)
      *piece = *page_piece;
    else
      *page_piece = *piece;
  }
}

// ---- launcher -------------------------------------------------------------------------
template <typename Piece, bool kGather, typename P>
void launch_move(const P& p, cudaStream_t stream) {
  const int64_t items = p.rows.num_layers * p.rows.num_tokens;
  launch(move_kernel<Piece, kGather, P>, ceil_div<int64_t>(items, kMoveWarps),
         dim3(kWarpSize, kMoveWarps), 0, stream, p);
}

// ---- dispatch: pieces of 16, 4 and 2 bytes = 3 instantiations a direction and op -------
template <bool kGather, typename P>
void move_rows(const P& p, cudaStream_t stream) {
  if (p.rows.num_layers * p.rows.num_tokens * p.rows.num_heads * p.pool.row_bytes == 0) return;
  uintptr_t bits = reinterpret_cast<uintptr_t>(p.pool.data);
  bits |= static_cast<uintptr_t>(p.pool.page_stride | p.pool.layer_stride | p.pool.row_bytes);
  const Tokens both[] = {p.rows.key, p.rows.value};  // nvcc takes no list in the loop's head
  for (const Tokens& t : both) {
    bits |= reinterpret_cast<uintptr_t>(t.data);
    bits |= static_cast<uintptr_t>(t.layer_stride | t.token_stride | t.head_stride);
  }
  if (bits % 16 == 0) return launch_move<uint4, kGather>(p, stream);
  if (bits % 4 == 0) return launch_move<uint32_t, kGather>(p, stream);
  launch_move<uint16_t, kGather>(p, stream);
}
}  // namespace lmx::kvcache
