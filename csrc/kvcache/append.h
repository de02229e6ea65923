// csrc/kvcache/append.h: stores new tokens in their slots.
//   kv_pages[slot(l, t, h)] of layer l and head h = key[l, t, h], value[l, t, h]
//   meta_pos[meta_slot(l, t, h)] = pos[t], meta_score[meta_slot(l, t, h)] = score(l, t, h)
// Slot -1: do not store. A slot may be shared by all heads, and by all layers. A token one of whose
// slots is in the null page or outside the pool is bad: nothing of it is stored. No two tokens of a
// call may share a slot, else what the slot holds is not defined.
#pragma once
#include "../common/isa.h"
#include "layout.h"

namespace lmx::kvcache {
struct AppendParams {
  Pool pool;
  Rows rows;
  const int64_t* slots;           // [map_layers, num_tokens, map_heads]
  int64_t map_layers, map_heads;  // 1 where layers or heads share a slot
  const int64_t* meta_slots;      // of the shape of slots, or null
  const int32_t* pos;             // [num_tokens], or null
  const float* score;             // of the shape of slots, or null
  int32_t* meta_pos;              // [num_meta_pages, meta_page_size], or null
  float* meta_score;              // likewise
  int64_t num_meta_pages, meta_page_size;
  int32_t* bad;     // workspace [num_tokens]: written by the check; null: no token can be bad
  int32_t* status;  // [num_tokens], or null
};

LMX_HD int64_t map_index(const AppendParams& p, int64_t layer, int64_t token, int64_t head) {
  const int64_t l = p.map_layers > 1 ? layer : 0, h = p.map_heads > 1 ? head : 0;
  return (l * p.rows.num_tokens + token) * p.map_heads + h;
}
// -1 also for a bad token.
LMX_HD int64_t slot_of(const AppendParams& p, int64_t layer, int64_t token, int64_t head) {
  if (p.bad && p.bad[token]) return -1;
  return p.slots[map_index(p, layer, token, head)];
}
LMX_HD bool one_slot_for_all_heads(const AppendParams& p) { return p.map_heads == 1; }

LMX_HD int32_t token_status(const AppendParams& p, int64_t token) {
  for (int64_t l = 0; l < p.map_layers; ++l)
    for (int64_t h = 0; h < p.map_heads; ++h) {
      const int64_t i = map_index(p, l, token, h), slot = p.slots[i];
      if (slot != -1 && !in_pool(slot, p.pool.num_pages, p.pool.page_size)) return kStatusBadPage;
      const int64_t meta = p.meta_slots ? p.meta_slots[i] : -1;
      if (meta != -1 && !in_pool(meta, p.num_meta_pages, p.meta_page_size)) return kStatusBadPage;
    }
  return kStatusOk;
}

LMX_HD void store_meta(const AppendParams& p, int64_t token) {
  if (!p.meta_slots) return;
  for (int64_t l = 0; l < p.map_layers; ++l)
    for (int64_t h = 0; h < p.map_heads; ++h) {
      const int64_t i = map_index(p, l, token, h), slot = p.meta_slots[i];
      if (slot == -1) continue;
      if (p.meta_pos) p.meta_pos[slot] = p.pos[token];
      if (p.meta_score) p.meta_score[slot] = p.score[i];
    }
}

LMX_CPU_KERNEL(append_cpu, AppendParams)
void append_cuda(const AppendParams& p, CUstream_st* stream);
}  // namespace lmx::kvcache
