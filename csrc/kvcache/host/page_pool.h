// kvcache/host/page_pool.h: who owns which page. Knows no keys and values, no torch and no Python.
//
// A sequence is a row of the tables, and keeps it for life. Pages are counted by the rows, and the
// prefix index, that hold them; one that several hold is copied before it is written to. A method
// either does all of its work or throws and changes nothing. For one thread at a time.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "errors.h"

namespace lmx::kvcache {
// The persistent tables, shared with whoever reads them. The pool writes every entry.
struct Tables {
  int32_t* block_table;  // [num_rows, max_pages]: page ids in order, then 0
  int32_t* num_slots;    // [num_rows]: committed slots
  int64_t num_rows, max_pages;
};

struct PageCopy {
  int32_t from, to;
};

struct PoolStats {
  int64_t pages_total = 0;    // without the null page
  int64_t pages_free = 0;     //
  int64_t slots_live = 0;     // in pages; of a page that several hold, once
  int64_t extra_holders = 0;  // sum of refcount - 1 over pages in use
};

// Pages that may be given back when there are too few: those of the prefix index.
class Reserve {
 public:
  virtual ~Reserve() = default;
  virtual int64_t reclaimable() const = 0;
  virtual void reclaim(int64_t count) = 0;                          // at most reclaimable()
  virtual void count_holds(std::vector<int32_t>& holds) const = 0;  // adds its holds, by page
};

class PagePool {
 public:
  PagePool(int64_t num_pages, int64_t page_size, Tables tables);

  int64_t create();
  void free(std::span<const int64_t> handles);
  std::vector<int64_t> fork(int64_t handle, int64_t count);
  void truncate(int64_t handle, int64_t length);
  int64_t share_prefix(int64_t handle, int64_t num_tokens);
  // A new sequence of full pages, which it holds beside whoever holds them already.
  int64_t adopt(std::span<const int32_t> pages);

  // Room for counts[i] more tokens of handles[i]: their slots go to slot_mapping, one sequence
  // after the other, and what must be copied before any of them is written is returned. A
  // sequence's length stays until commit; what was reserved and not committed is reserved still,
  // until abandon.
  std::vector<PageCopy> reserve(std::span<const int64_t> handles, std::span<const int64_t> counts,
                                std::span<int64_t> slot_mapping);
  void commit(std::span<const int64_t> handles, std::span<const int64_t> counts);
  void abandon(std::span<const int64_t> handles);

  // Swapping: pages() names what to save, swap_out gives the pages back, swap_in takes as many.
  void swap_out(int64_t handle);
  std::vector<int32_t> swap_in(int64_t handle);

  int64_t length(int64_t handle) const;
  bool is_swapped(int64_t handle) const;
  std::vector<int32_t> pages(int64_t handle) const;  // of committed slots
  int64_t num_pages() const { return static_cast<int64_t>(refcount_.size()); }
  int64_t num_free_pages() const { return static_cast<int64_t>(free_pages_.size()); }
  int64_t num_free_rows() const { return static_cast<int64_t>(free_rows_.size()); }
  int64_t page_size() const { return page_size_; }
  int32_t refcount(int32_t page) const { return refcount_[static_cast<size_t>(page)]; }
  // Rises whenever an entry of block_table changes.
  uint64_t version() const { return version_; }

  void set_reserve(Reserve* reserve) { reserve_ = reserve; }
  void hold(int32_t page) { ++refcount_[static_cast<size_t>(page)]; }
  void release(int32_t page);

  PoolStats stats() const;
  void check_invariants() const;  // throws Inconsistent

 private:
  struct Sequence {
    uint32_t generation = 0;  // 0: the row is free
    bool swapped = false;
    int64_t length = 0;     // committed tokens
    int64_t num_pages = 0;  // entries of the row: those of committed slots, then reserved ones
    uint64_t stamp = 0;     // of the last batch that it was in
  };

  int64_t pages_for(int64_t tokens) const { return (tokens + page_size_ - 1) / page_size_; }
  int32_t* row_of(size_t row) {
    return tables_.block_table + static_cast<int64_t>(row) * tables_.max_pages;
  }
  const int32_t* row_of(size_t row) const {
    return tables_.block_table + static_cast<int64_t>(row) * tables_.max_pages;
  }
  size_t find(int64_t handle) const;                             // throws StaleHandle
  size_t find_resident(int64_t handle, const char* what) const;  // not one that is swapped out
  // Rows of a batch, each of them once.
  std::vector<size_t> find_batch(std::span<const int64_t> handles, std::span<const int64_t> counts,
                                 const char* what);
  std::vector<size_t> shared_tails(std::span<const size_t> rows, std::span<const int64_t> counts);
  void need(int64_t pages);  // throws OutOfPages, or makes them free
  int32_t take();
  void keep_pages(size_t row, int64_t count);  // gives back the row's pages behind the first ones
  size_t open_row();                           // throws OutOfRows
  int64_t start(size_t row, std::span<const int32_t> pages, int64_t length);
  void check_rows(std::vector<int32_t>& holds) const;

  int64_t page_size_;
  Tables tables_;
  std::vector<int32_t> refcount_;
  std::vector<int32_t> free_pages_, planned_;  // planned_: scratch of shared_tails, all 0
  std::vector<size_t> free_rows_;
  std::vector<Sequence> seqs_;
  Reserve* reserve_ = nullptr;
  uint64_t version_ = 0, stamp_ = 0;
};
}  // namespace lmx::kvcache
