// csrc/kvcache/slots.cpp: CPU side of slots.h.
#include "slots.h"

#include <stdexcept>
#include <string>

#include "rows_cpu.h"

namespace lmx::kvcache::LMX_ISA {
namespace {
[[noreturn]] void refuse(const SlotsParams& p, int64_t seq, int64_t row, int64_t i) {
  const int64_t at = seq * p.table_rows + row, slot = p.slots[at * p.per_seq + i];
  const std::string where = std::string("lmx::kv_") + (p.gather ? "gather" : "scatter") +
                            "_slots: sequence " + std::to_string(seq) + " has slot " +
                            std::to_string(slot);
  if (slot_status(p, seq, row, i) == kStatusBadPage)
    throw std::invalid_argument(where + " in page " + std::to_string(page_of(p, seq, row, slot)) +
                                ", where pages are [1, " + std::to_string(p.pool.num_pages) + ")");
  throw std::invalid_argument(where + ", where -1 and [0, " + std::to_string(p.num_slots[at]) +
                              ") are slots, and the table has " + std::to_string(p.max_pages) +
                              " pages");
}
}  // namespace

void slots_cpu(const SlotsParams& p) {
  for (int64_t seq = 0; seq < p.num_seqs; ++seq) {
    int32_t bits = kStatusOk;
    for (int64_t row = 0; row < p.table_rows; ++row)
      for (int64_t i = 0; i < p.per_seq; ++i) {
        const int32_t bit = slot_status(p, seq, row, i);
        if (bit && !p.status) refuse(p, seq, row, i);
        bits |= bit;
      }
    if (p.bad) p.bad[seq] = bits;
    if (p.status) p.status[seq] |= bits;
  }
  if (p.gather)
    move_rows<true>(p, false);
  else
    move_rows<false>(p, false);
}
}  // namespace lmx::kvcache::LMX_ISA
