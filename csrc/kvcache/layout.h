// csrc/kvcache/layout.h: where the keys and values of a slot lie. Both backends use it.
//   kv_pages [num_pages, (num_layers,) 2, heads_per_page, page_size, head_dim]
// axis 2 from the end of [2, heads_per_page, ...]: 0 = keys, 1 = values. A page is contiguous
// within a layer. With the axis num_layers (scope seq) a page id stands for a page of every layer.
// A slot is page * page_size + offset. Page 0 is the null page: never written, never needed.
#pragma once
#include "../common/hostdev.h"
#include "../common/status.h"

struct CUstream_st;  // cudaStream_t without a CUDA header
namespace lmx::kvcache {
struct Pool {
  char* data;
  int64_t num_pages;
  int64_t page_stride, layer_stride;  // bytes
  int64_t heads_per_page;             // num_kv_heads, or 1: each head has pages of its own
  int64_t page_size;
  int64_t row_bytes;  // of a slot's keys, or values, of one head
};

// The row of a slot, in bytes from the pool's start; kv is 0 for keys, 1 for values.
LMX_HD int64_t row_at(const Pool& pool, int64_t slot, int64_t layer, int kv, int64_t head) {
  const int64_t page = slot / pool.page_size, offset = slot % pool.page_size;
  const int64_t block = kv * pool.heads_per_page + (pool.heads_per_page > 1 ? head : 0);
  return page * pool.page_stride + layer * pool.layer_stride +
         (block * pool.page_size + offset) * pool.row_bytes;
}

// Whether a slot lies in the pool, and not in the null page.
LMX_HD bool in_pool(int64_t slot, int64_t num_pages, int64_t page_size) {
  return slot >= page_size && slot < num_pages * page_size;
}

// Keys or values of a call, [num_layers, num_tokens, num_heads, head_dim]; strides in bytes.
struct Tokens {
  char* data;
  int64_t layer_stride, token_stride, head_stride;
};
struct Rows {
  Tokens key, value;
  int64_t num_layers, num_tokens, num_heads;
};
LMX_HD char* row_of(const Tokens& t, int64_t layer, int64_t token, int64_t head) {
  return t.data + layer * t.layer_stride + token * t.token_stride + head * t.head_stride;
}
}  // namespace lmx::kvcache
