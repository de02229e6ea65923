// csrc/kvcache/append.cpp: CPU side of append.h.
#include "append.h"

#include <stdexcept>
#include <string>

#include "rows_cpu.h"

namespace lmx::kvcache::LMX_ISA {
namespace {
// From here on the destination would push everything else out of the caches.
constexpr int64_t kStreamBytes = 4 << 20;

[[noreturn]] void refuse(const AppendParams& p, int64_t token) {
  const auto spelled = [](int64_t slot, int64_t num_pages, int64_t page_size) {
    return std::to_string(slot) + ", where -1 and [" + std::to_string(page_size) + ", " +
           std::to_string(num_pages * page_size) + ") are slots";
  };
  std::string got;
  for (int64_t l = 0; l < p.map_layers && got.empty(); ++l)
    for (int64_t h = 0; h < p.map_heads && got.empty(); ++h) {
      const int64_t i = map_index(p, l, token, h), slot = p.slots[i];
      const bool good = slot == -1 || in_pool(slot, p.pool.num_pages, p.pool.page_size);
      got = good ? "" : "slot_mapping " + spelled(slot, p.pool.num_pages, p.pool.page_size);
      if (good && p.meta_slots && p.meta_slots[i] != -1 &&
          !in_pool(p.meta_slots[i], p.num_meta_pages, p.meta_page_size))
        got = "meta_slots " + spelled(p.meta_slots[i], p.num_meta_pages, p.meta_page_size);
    }
  throw std::invalid_argument("lmx::kv_append: token " + std::to_string(token) + " has " + got);
}
}  // namespace

void append_cpu(const AppendParams& p) {
  for (int64_t token = 0; token < p.rows.num_tokens; ++token) {
    const int32_t bits = token_status(p, token);
    if (p.bad) p.bad[token] = bits;
    if (!bits) continue;
    if (!p.status) refuse(p, token);
    p.status[token] |= bits;
  }
  for (int64_t token = 0; token < p.rows.num_tokens; ++token)
    if (!p.bad || !p.bad[token]) store_meta(p, token);
  const int64_t bytes =
      2 * p.rows.num_layers * p.rows.num_tokens * p.rows.num_heads * p.pool.row_bytes;
  const bool lines =
      whole_lines(p.pool.data, p.pool.page_stride, p.pool.layer_stride, p.pool.row_bytes);
  move_rows<false>(p, lines && bytes >= kStreamBytes);
}
}  // namespace lmx::kvcache::LMX_ISA
