// kvcache/host/page_pool.cpp
#include "page_pool.h"

#include <algorithm>
#include <atomic>
#include <limits>

namespace lmx::kvcache {
namespace {
// Of all pools together, so that a handle of another pool is stale in this one.
uint32_t next_generation() {
  static std::atomic<uint32_t> last{0};
  const uint32_t generation = ++last & 0x7FFFFFFF;  // handles are positive
  return generation ? generation : next_generation();
}

std::string spell(int64_t number) { return std::to_string(number); }

[[noreturn]] void refuse(const std::string& what) {
  throw std::invalid_argument("lmx.PagePool." + what);
}
}  // namespace

PagePool::PagePool(int64_t num_pages, int64_t page_size, Tables tables)
    : page_size_(page_size), tables_(tables) {
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
  if (page_size < 1) refuse("PagePool: expected page_size at least 1, got " + spell(page_size));
  if (num_pages < 1 || num_pages > kMost / page_size)
    refuse("PagePool: expected num_pages in [1, " + spell(kMost / page_size) + "], got " +
           spell(num_pages));
  if (tables.max_pages > kMost / page_size)
    refuse("PagePool: expected a table of at most " + spell(kMost / page_size) +
           " pages a row, got " + spell(tables.max_pages));
  refcount_.assign(static_cast<size_t>(num_pages), 0);
  planned_.assign(static_cast<size_t>(num_pages), 0);
  for (auto page = static_cast<int32_t>(num_pages - 1); page > 0; --page)
    free_pages_.push_back(page);
  seqs_.resize(static_cast<size_t>(tables.num_rows));
  for (size_t row = seqs_.size(); row-- > 0;) free_rows_.push_back(row);
  std::fill_n(tables.block_table, tables.num_rows * tables.max_pages, 0);
  std::fill_n(tables.num_slots, tables.num_rows, 0);
}

// ---- pages and rows ---------------------------------------------------------------------

void PagePool::release(int32_t page) {
  if (--refcount_[static_cast<size_t>(page)] == 0) free_pages_.push_back(page);
}

int32_t PagePool::take() {
  const int32_t page = free_pages_.back();
  free_pages_.pop_back();
  refcount_[static_cast<size_t>(page)] = 1;
  return page;
}

void PagePool::need(int64_t pages) {
  const int64_t missing = pages - num_free_pages();
  if (missing <= 0) return;
  if (!reserve_ || reserve_->reclaimable() < missing) throw OutOfPages(pages, num_free_pages());
  reserve_->reclaim(missing);
}

void PagePool::keep_pages(size_t row, int64_t count) {
  Sequence& seq = seqs_[row];
  if (seq.num_pages > count) ++version_;
  for (; seq.num_pages > count; --seq.num_pages) {
    int32_t& entry = row_of(row)[seq.num_pages - 1];
    release(entry);
    entry = 0;
  }
}

size_t PagePool::open_row() {
  if (free_rows_.empty())
    throw OutOfRows("lmx: all " + spell(tables_.num_rows) + " rows of the tables are in use");
  return free_rows_.back();
}

int64_t PagePool::start(size_t row, std::span<const int32_t> pages, int64_t length) {
  Sequence& seq = seqs_[row];
  free_rows_.pop_back();
  seq = {.generation = next_generation(),
         .length = length,
         .num_pages = static_cast<int64_t>(pages.size()),
         .stamp = seq.stamp};
  for (const int32_t page : pages) hold(page);
  std::copy(pages.begin(), pages.end(), row_of(row));
  tables_.num_slots[row] = static_cast<int32_t>(length);
  if (!pages.empty()) ++version_;
  return static_cast<int64_t>(seq.generation) << 32 | static_cast<int64_t>(row);
}

size_t PagePool::find(int64_t handle) const {
  const auto row = static_cast<size_t>(handle & 0xFFFFFFFF);
  const int64_t generation = handle >> 32;
  if (generation <= 0 || row >= seqs_.size() || seqs_[row].generation != generation)
    throw StaleHandle("lmx: handle " + spell(handle) + " is of no sequence of this cache");
  return row;
}

size_t PagePool::find_resident(int64_t handle, const char* what) const {
  const size_t row = find(handle);
  if (seqs_[row].swapped)
    refuse(std::string(what) + ": sequence " + spell(handle) + " is swapped out");
  return row;
}

std::vector<size_t> PagePool::find_batch(std::span<const int64_t> handles,
                                         std::span<const int64_t> counts, const char* what) {
  if (handles.size() != counts.size())
    refuse(std::string(what) + ": expected one count for each of " +
           spell(static_cast<int64_t>(handles.size())) + " handles, got " +
           spell(static_cast<int64_t>(counts.size())));
  ++stamp_;
  std::vector<size_t> rows;
  for (size_t i = 0; i < handles.size(); ++i) {
    const size_t row = find_resident(handles[i], what);
    if (counts[i] < 0)
      refuse(std::string(what) + ": expected counts of at least 0, got " + spell(counts[i]) +
             " at " + spell(static_cast<int64_t>(i)));
    if (seqs_[row].stamp == stamp_)
      refuse(std::string(what) + ": handle " + spell(handles[i]) + " occurs twice");
    seqs_[row].stamp = stamp_;
    rows.push_back(row);
  }
  return rows;
}

// ---- life of a sequence -----------------------------------------------------------------

int64_t PagePool::create() { return start(open_row(), {}, 0); }

int64_t PagePool::adopt(std::span<const int32_t> pages) {
  if (static_cast<int64_t>(pages.size()) > tables_.max_pages)
    refuse("adopt: expected at most " + spell(tables_.max_pages) + " pages, got " +
           spell(static_cast<int64_t>(pages.size())));
  return start(open_row(), pages, static_cast<int64_t>(pages.size()) * page_size_);
}

void PagePool::free(std::span<const int64_t> handles) {
  ++stamp_;
  for (const int64_t handle : handles) {
    Sequence& seq = seqs_[find(handle)];
    if (seq.stamp == stamp_)
      throw StaleHandle("lmx: handle " + spell(handle) + " is freed twice in one call");
    seq.stamp = stamp_;
  }
  for (const int64_t handle : handles) {
    const size_t row = find(handle);
    keep_pages(row, 0);
    tables_.num_slots[row] = 0;
    seqs_[row] = {.stamp = seqs_[row].stamp};
    free_rows_.push_back(row);
  }
}

std::vector<int64_t> PagePool::fork(int64_t handle, int64_t count) {
  const size_t row = find_resident(handle, "fork");
  if (count < 0) refuse("fork: expected n at least 0, got " + spell(count));
  if (count > num_free_rows())
    throw OutOfRows("lmx: " + spell(count) + " forks need as many rows of the tables, " +
                    spell(num_free_rows()) + " are free");
  std::vector<int64_t> children;
  const std::vector<int32_t> shared = pages(handle);
  for (int64_t i = 0; i < count; ++i)
    children.push_back(start(open_row(), shared, seqs_[row].length));
  return children;
}

void PagePool::truncate(int64_t handle, int64_t length) {
  const size_t row = find_resident(handle, "truncate");
  Sequence& seq = seqs_[row];
  if (length < 0 || length > seq.length)
    refuse("truncate: expected a length in [0, " + spell(seq.length) + "], got " + spell(length));
  keep_pages(row, pages_for(length));
  seq.length = length;
  tables_.num_slots[row] = static_cast<int32_t>(length);
}

int64_t PagePool::share_prefix(int64_t handle, int64_t num_tokens) {
  const size_t row = find_resident(handle, "share_prefix");
  if (num_tokens < 0 || num_tokens > seqs_[row].length)
    refuse("share_prefix: expected num_tokens in [0, " + spell(seqs_[row].length) + "], got " +
           spell(num_tokens));
  const int64_t full = num_tokens / page_size_;
  const size_t child = open_row();
  return start(child, {row_of(row), static_cast<size_t>(full)}, full * page_size_);
}

// ---- tokens -----------------------------------------------------------------------------

// The rows of the batch whose last page must be copied. Of a page that only rows of the batch hold,
// the last of them writes in place.
std::vector<size_t> PagePool::shared_tails(std::span<const size_t> rows,
                                           std::span<const int64_t> counts) {
  std::vector<size_t> tails;
  for (size_t i = 0; i < rows.size(); ++i) {
    const int64_t length = seqs_[rows[i]].length;
    if (counts[i] == 0 || length % page_size_ == 0) continue;
    const auto page = static_cast<size_t>(row_of(rows[i])[length / page_size_]);
    if (refcount_[page] - planned_[page] < 2) continue;
    ++planned_[page];
    tails.push_back(rows[i]);
  }
  for (const size_t row : tails)
    planned_[static_cast<size_t>(row_of(row)[seqs_[row].length / page_size_])] = 0;
  return tails;
}

std::vector<PageCopy> PagePool::reserve(std::span<const int64_t> handles,
                                        std::span<const int64_t> counts,
                                        std::span<int64_t> slot_mapping) {
  const std::vector<size_t> rows = find_batch(handles, counts, "reserve");
  int64_t needed = 0, total = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    const Sequence& seq = seqs_[rows[i]];
    const int64_t room = tables_.max_pages * page_size_ - seq.length;
    if (counts[i] > room)
      refuse("reserve: expected at most " + spell(room) + " more tokens of sequence " +
             spell(handles[i]) + ", which has " + spell(seq.length) + ", got " + spell(counts[i]));
    needed += std::max<int64_t>(pages_for(seq.length + counts[i]) - seq.num_pages, 0);
    total += counts[i];
  }
  if (total != static_cast<int64_t>(slot_mapping.size()))
    refuse("reserve: expected slot_mapping of " + spell(total) + " tokens, got " +
           spell(static_cast<int64_t>(slot_mapping.size())));
  const std::vector<size_t> tails = shared_tails(rows, counts);
  need(needed + static_cast<int64_t>(tails.size()));

  std::vector<PageCopy> copies;
  for (const size_t row : tails) {
    int32_t& entry = row_of(row)[seqs_[row].length / page_size_];
    const int32_t page = take();
    copies.push_back({entry, page});
    release(entry);
    entry = page;
  }
  if (needed + static_cast<int64_t>(tails.size()) > 0) ++version_;
  int64_t* slot = slot_mapping.data();
  for (size_t i = 0; i < rows.size(); ++i) {
    Sequence& seq = seqs_[rows[i]];
    int32_t* entries = row_of(rows[i]);
    const int64_t end = seq.length + counts[i];
    while (seq.num_pages < pages_for(end)) entries[seq.num_pages++] = take();
    for (int64_t at = seq.length; at < end; ++at)
      *slot++ = entries[at / page_size_] * page_size_ + at % page_size_;
  }
  return copies;
}

void PagePool::commit(std::span<const int64_t> handles, std::span<const int64_t> counts) {
  const std::vector<size_t> rows = find_batch(handles, counts, "commit");
  for (size_t i = 0; i < rows.size(); ++i) {
    const Sequence& seq = seqs_[rows[i]];
    const int64_t reserved = seq.num_pages * page_size_ - seq.length;
    if (counts[i] > reserved)
      refuse("commit: expected at most " + spell(reserved) + " tokens of sequence " +
             spell(handles[i]) + ", for which there are pages, got " + spell(counts[i]));
  }
  for (size_t i = 0; i < rows.size(); ++i) {
    Sequence& seq = seqs_[rows[i]];
    seq.length += counts[i];
    tables_.num_slots[rows[i]] = static_cast<int32_t>(seq.length);
  }
}

void PagePool::abandon(std::span<const int64_t> handles) {
  const std::vector<int64_t> none(handles.size(), 0);
  for (const size_t row : find_batch(handles, none, "abandon"))
    keep_pages(row, pages_for(seqs_[row].length));
}

// ---- swapping ---------------------------------------------------------------------------

void PagePool::swap_out(int64_t handle) {
  const size_t row = find_resident(handle, "swap_out");
  keep_pages(row, 0);
  seqs_[row].swapped = true;
  tables_.num_slots[row] = 0;
}

std::vector<int32_t> PagePool::swap_in(int64_t handle) {
  const size_t row = find(handle);
  Sequence& seq = seqs_[row];
  if (!seq.swapped) refuse("swap_in: sequence " + spell(handle) + " is not swapped out");
  need(pages_for(seq.length));
  while (seq.num_pages < pages_for(seq.length)) row_of(row)[seq.num_pages++] = take();
  seq.swapped = false;
  tables_.num_slots[row] = static_cast<int32_t>(seq.length);
  if (seq.num_pages > 0) ++version_;
  return pages(handle);
}

// ---- questions --------------------------------------------------------------------------

int64_t PagePool::length(int64_t handle) const { return seqs_[find(handle)].length; }
bool PagePool::is_swapped(int64_t handle) const { return seqs_[find(handle)].swapped; }

std::vector<int32_t> PagePool::pages(int64_t handle) const {
  const size_t row = find_resident(handle, "pages");
  const int32_t* first = row_of(row);
  return {first, first + pages_for(seqs_[row].length)};
}

PoolStats PagePool::stats() const {
  PoolStats s{.pages_total = num_pages() - 1, .pages_free = num_free_pages()};
  std::vector<int32_t> filled(refcount_.size(), 0);  // slots in use, of the fullest holder
  if (reserve_) reserve_->count_holds(filled);
  for (int32_t& slots : filled) slots = slots > 0 ? static_cast<int32_t>(page_size_) : 0;
  for (size_t row = 0; row < seqs_.size(); ++row) {
    const int64_t length = seqs_[row].swapped ? 0 : seqs_[row].length;
    for (int64_t i = 0; i * page_size_ < length; ++i) {
      int32_t& slots = filled[static_cast<size_t>(row_of(row)[i])];
      const int64_t here = std::min(page_size_, length - i * page_size_);
      slots = std::max(slots, static_cast<int32_t>(here));
    }
  }
  for (const int32_t slots : filled) s.slots_live += slots;
  for (const int32_t count : refcount_) s.extra_holders += std::max(count - 1, 0);
  return s;
}

// Adds the rows' holds, by page.
void PagePool::check_rows(std::vector<int32_t>& holds) const {
  const auto require = [](bool holds_true, size_t row, const char* what) {
    if (!holds_true)
      throw Inconsistent("lmx.PagePool: row " + spell(static_cast<int64_t>(row)) + ": " + what);
  };
  int64_t live = 0;
  for (size_t row = 0; row < seqs_.size(); ++row) {
    const Sequence& seq = seqs_[row];
    const bool resident = seq.generation != 0 && !seq.swapped;
    live += seq.generation != 0;
    require(resident || seq.num_pages == 0, row, "pages without a sequence");
    require(seq.num_pages <= tables_.max_pages, row, "more pages than the table has");
    require(!resident || pages_for(seq.length) <= seq.num_pages, row, "slots without a page");
    require(tables_.num_slots[row] == (resident ? seq.length : 0), row, "num_slots was changed");
    for (int64_t i = 0; i < tables_.max_pages; ++i) {
      const int32_t page = row_of(row)[i];
      const bool in_use = i < seq.num_pages;
      require(in_use ? page > 0 && page < num_pages() : page == 0, row, "an entry was changed");
      if (in_use) ++holds[static_cast<size_t>(page)];
    }
  }
  require(live + num_free_rows() == tables_.num_rows, 0, "rows are lost");
}

void PagePool::check_invariants() const {
  const auto require = [](bool holds_true, const std::string& what) {
    if (!holds_true) throw Inconsistent("lmx.PagePool: " + what);
  };
  std::vector<int32_t> holds(refcount_.size(), 0);
  check_rows(holds);
  if (reserve_) reserve_->count_holds(holds);
  int64_t used = 0;
  for (size_t page = 0; page < holds.size(); ++page) {
    require(holds[page] == refcount_[page],
            "page " + spell(static_cast<int64_t>(page)) + " is held " + spell(holds[page]) +
                " times and counted " + spell(refcount_[page]) + " times");
    used += holds[page] > 0;
  }
  require(holds[0] == 0, "the null page is in use");
  require(used + num_free_pages() == num_pages() - 1, "pages are lost");
  std::vector<bool> seen(refcount_.size(), false);
  for (const int32_t page : free_pages_) {
    require(page > 0 && page < num_pages() && !seen[static_cast<size_t>(page)] &&
                refcount_[static_cast<size_t>(page)] == 0,
            "page " + spell(page) + " is free twice, or free and in use");
    seen[static_cast<size_t>(page)] = true;
  }
  require(std::all_of(planned_.begin(), planned_.end(), [](int32_t n) { return n == 0; }),
          "a plan was left");
}
}  // namespace lmx::kvcache
