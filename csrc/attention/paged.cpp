// csrc/attention/paged.cpp: CPU side of paged.h. Bound by the bytes of keys and values for few rows
// of query, each read once per key head, and by fma for many. Threads share out chunks of keys.
#include "paged.h"

#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "../common/parallel.h"
#include "tile_cpu.h"

namespace lmx::attention::LMX_ISA {
namespace {
// ---- checks -----------------------------------------------------------------------------------
[[noreturn]] void fail(const std::string& what) {
  throw std::invalid_argument("lmx::attention_paged: expected " + what);
}
std::string span(const char* name, int64_t b, int64_t first, int64_t count) {
  const auto at = [&](int64_t i, int64_t value) {
    return std::string(name) + "[" + std::to_string(i) + "] = " + std::to_string(value);
  };
  return at(b, first) + " and " + at(b + 1, first + count);
}
std::string at_most(const std::string& what, int64_t bound, const std::string& bound_name,
                    int64_t b, int64_t got) {
  return "at most " + bound_name + " = " + std::to_string(bound) + " " + what + " in sequence " +
         std::to_string(b) + ", got " + std::to_string(got);
}

[[noreturn]] void fail_counts(const PagedParams& p, const Sequence& s, int64_t b) {
  if (!has_rows(p, s, b))
    fail("cu_seqlens_q to ascend from 0 to at most " + std::to_string(p.num_q) + ", got " +
         span("cu_seqlens_q", b, s.first_q, s.num_q));
  if (s.first_k < 0 || s.num_k < 0 || s.first_k + s.num_k > p.num_k || (b == 0 && s.first_k != 0))
    fail("cu_seqlens_k to ascend from 0 to at most " + std::to_string(p.num_k) + ", got " +
         span("cu_seqlens_k", b, s.first_k, s.num_k));
  if (p.part != Part::prefix && !p.ancestors && s.num_q > s.num_k)
    fail("a fresh key for each query row without ancestors, got " + std::to_string(s.num_k) +
         " keys and " + std::to_string(s.num_q) + " rows in sequence " + std::to_string(b));
  if (s.num_q > p.max_q) fail(at_most("query rows", p.max_q, "max_q", b, s.num_q));
  if (s.num_k > kMaxFresh) fail(at_most("fresh keys", kMaxFresh, "the limit", b, s.num_k));
  if (p.ancestors && s.num_k > 32 * p.ancestor_words)
    fail(at_most("fresh keys", 32 * p.ancestor_words, "the bits of ancestors", b, s.num_k));
  const int64_t capacity = p.table_width * p.page_size;
  const std::string got =
      ", got num_slots[" + std::to_string(b) + "] = " + std::to_string(s.num_slots);
  if (s.num_slots < 0) fail("num_slots of at least 0" + got);
  if (s.num_slots > capacity)
    fail("num_slots of at most the table's " + std::to_string(capacity) + got);
  fail("num_slots of at most max_slots = " + std::to_string(p.max_slots) + got);
}

// Whether the sequence can be worked on. If not, it raises, or sets the status.
bool check(const PagedParams& p, const Sequence& s, int64_t b) {
  int32_t faults = count_faults(p, s, b);
  if (faults && !p.status) fail_counts(p, s, b);
  const int64_t entries = faults ? 0 : num_entries(p, s);
  for (int64_t i = 0; i < entries; ++i) {
    const bool page = bad_page(p, b, i);
    if (!page && !bad_pos_page(p, b, i)) continue;
    faults |= kStatusBadPage;
    if (p.status) break;
    const auto [name, table, stride, low, high] =
        page
            ? std::tuple("block_table", p.block_table, p.table_stride, 1, p.num_pages)
            : std::tuple("slot_pos_table", p.slot_pos_table, p.slot_pos_stride, 0, p.num_pos_pages);
    fail(std::string(name) + "[" + std::to_string(b) + ", 0, " + std::to_string(i) + "] in [" +
         std::to_string(low) + ", " + std::to_string(high) + "), got " +
         std::to_string(table[b * stride + i]));
  }
  if (faults) p.status[b] |= faults;
  return !faults;
}

// The rows of a sequence that counts as empty.
template <typename T>
void write_empty(const PagedParams& p, const Sequence& s) {
  const int64_t heads = s.num_q * p.num_heads, first = s.first_q * p.num_heads;
  std::fill_n(static_cast<T*>(p.out) + first * p.head_dim, heads * p.head_dim, T{});
  std::fill_n(p.lse + first, heads, -INFINITY);
}

// ---- work -------------------------------------------------------------------------------------
// A tile of rows and the chunks of keys that it may see.
struct Unit {
  int64_t b, head, first_row;
  int num_rows;
  KeyRange keys;
  int64_t first_task;          // one per chunk, counted through all units
  int64_t num_tasks() const {  // one where there are no keys
    return std::max<int64_t>(ceil_div<int64_t>(keys.end, kChunk) - keys.begin / kChunk, 1);
  }
  KeyRange chunk(int64_t i) const {  // empty behind the last one
    const int64_t first = (keys.begin / kChunk + i) * kChunk;
    return {std::clamp(first, keys.begin, keys.end), std::min(keys.end, first + kChunk)};
  }
};

class Work {
 public:
  explicit Work(const PagedParams& p) : p_(p) {
    const int64_t group = p.num_heads / p.num_kv_heads;
    for (int64_t b = 0; b < p.num_seqs; ++b) {
      const Sequence s = sequence_of(p, b);
      if (!check(p, s, b)) {
        if (has_rows(p, s, b))
          visit_dtype(p.dtype, [&](auto t) { write_empty<decltype(t)>(p, s); });
        continue;
      }
      for (int64_t head = 0; head < p.num_kv_heads; ++head)
        for (int64_t row = 0; row < s.num_q * group; row += kMaxTileRows) {
          const auto rows =
              static_cast<int>(std::min<int64_t>(kMaxTileRows, s.num_q * group - row));
          add({b, head, row, rows, keys_of(p, s, (row + rows - 1) / group), num_tasks_});
        }
    }
  }
  template <typename T>
  void run() const {
    const int64_t sums = Sums::floats(max_rows_, padded_dim(p_.head_dim));
    const int64_t work = max_rows_ * padded_dim(p_.head_dim) * kChunk;
    const int64_t grain = ceil_div<int64_t>(kGrainWork, work + 1);
    // With few units threads share one: its chunks' sums are kept, and added in order at the end.
    const bool shared = units_.size() < kManyUnits && num_tasks_ > grain;
    std::unique_ptr<float[]> space(shared ? new float[num_tasks_ * sums] : nullptr);
    std::vector<char> done(units_.size(), !shared);
    parallel_for(0, num_tasks_, grain, [&](int64_t begin, int64_t end) {
      const TileScope tiles(kInTiles<T>);
      Tile<T> tile(p_, max_rows_);
      for (size_t u = first_unit(begin); u < units_.size(); ++u) {
        const Unit& unit = units_[u];
        const int64_t last = unit.first_task + unit.num_tasks();
        if (unit.first_task >= end) break;
        const bool whole =
            shared ? unit.first_task >= begin && last <= end : unit.first_task >= begin;
        if (whole) {
          done[u] = true;
          finish_unit(tile, unit);
        } else if (shared) {
          open(tile, unit);
          for (int64_t t = std::max(begin, unit.first_task); t < std::min(end, last); ++t) {
            const Sums to = Sums::at(&space[t * sums], unit.num_rows);
            const int64_t i = t - unit.first_task;
            if (!tile.run(unit.chunk(i), unit.chunk(i + 1), to)) tile.clear(to);
          }
        }
      }
    });
    if (std::find(done.begin(), done.end(), 0) == done.end()) return;
    Tile<T> tile(p_, max_rows_);
    for (size_t u = 0; u < units_.size(); ++u) {
      if (done[u]) continue;
      open(tile, units_[u]);
      for (int64_t t = 0; t < units_[u].num_tasks(); ++t)
        tile.add(Sums::at(&space[(units_[u].first_task + t) * sums], units_[u].num_rows));
      tile.close();
    }
  }

 private:
  static constexpr size_t kManyUnits = 16;
  static constexpr int64_t kGrainWork = 1 << 18;  // products; some 20 microseconds

  void add(Unit unit) {
    num_tasks_ += unit.num_tasks();
    max_rows_ = std::max(max_rows_, unit.num_rows);
    units_.push_back(unit);
  }
  size_t first_unit(int64_t task) const {
    const auto after = [](int64_t t, const Unit& unit) { return t < unit.first_task; };
    return std::upper_bound(units_.begin(), units_.end(), task, after) - units_.begin() - 1;
  }
  template <typename T>
  void open(Tile<T>& tile, const Unit& u) const {
    tile.open(sequence_of(p_, u.b), u.b, u.head, u.first_row, u.num_rows);
  }
  template <typename T>
  void finish_unit(Tile<T>& tile, const Unit& u) const {
    open(tile, u);
    for (int64_t i = 0; i < u.num_tasks(); ++i) tile.add(u.chunk(i), u.chunk(i + 1));
    tile.close();
  }

  const PagedParams& p_;
  std::vector<Unit> units_;
  int64_t num_tasks_ = 0;
  int max_rows_ = 1;
};
}  // namespace

void paged_cpu(const PagedParams& p) {
  const Work work(p);
  visit_dtype(p.dtype, [&](auto type) { work.run<decltype(type)>(); });
}
}  // namespace lmx::attention::LMX_ISA
