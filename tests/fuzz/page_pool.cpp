// tests/fuzz/page_pool.cpp: random calls of PagePool and PrefixIndex, sensible ones and others, for
// ASan and UBSan. After each the books must agree, and a call that throws must change nothing.
//   page_pool SEED SECONDS [LEAST ROUNDS]
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <random>

#include "kvcache/host/prefix_index.h"

namespace {
using namespace lmx::kvcache;
using Random = std::mt19937_64;

int64_t below(Random& random, int64_t n) {
  return static_cast<int64_t>(random() % static_cast<uint64_t>(n));
}

struct World {
  explicit World(Random& random)
      : num_rows(1 + below(random, 6)),
        max_pages(below(random, 8)),
        table(static_cast<size_t>(num_rows * max_pages), -1),
        slots(static_cast<size_t>(num_rows), -1),
        pool(1 + below(random, 30), 1 + below(random, 5),
             {table.data(), slots.data(), num_rows, max_pages}),
        index(pool) {}

  int64_t num_rows, max_pages;
  std::vector<int32_t> table, slots;
  PagePool pool;
  PrefixIndex index;
  std::vector<int64_t> handles;  // of sequences, stale ones too
};

int64_t some_handle(World& w, Random& random) {
  if (w.handles.empty() || random() % 50 == 0) return static_cast<int64_t>(random());
  return w.handles[random() % w.handles.size()];
}

std::vector<int64_t> some_tokens(Random& random, int64_t most) {
  std::vector<int64_t> tokens(static_cast<size_t>(below(random, most + 1)));
  for (int64_t& token : tokens) token = below(random, 2);
  return tokens;
}

void append(World& w, Random& random) {
  std::vector<int64_t> handles, counts;
  int64_t total = 0;
  for (int64_t n = below(random, 4); n > 0; --n) {
    handles.push_back(some_handle(w, random));
    counts.push_back(below(random, 12) - (random() % 100 == 0));
    total += std::max<int64_t>(counts.back(), 0);
  }
  if (random() % 100 == 0) ++total;
  std::vector<int64_t> mapping(static_cast<size_t>(total));
  for (const PageCopy& copy : w.pool.reserve(handles, counts, mapping))
    if (copy.from == copy.to || w.pool.refcount(copy.to) != 1) std::abort();
  for (const int64_t slot : mapping) {
    const int64_t page = slot / w.pool.page_size();
    if (page < 1 || w.pool.refcount(static_cast<int32_t>(page)) != 1) std::abort();
  }
  for (int64_t& count : counts) count = below(random, count + 1);
  w.pool.commit(handles, counts);
  if (random() % 2 == 0) w.pool.abandon(handles);
}

void call(World& w, Random& random) {
  const int64_t handle = some_handle(w, random);
  const int64_t number = below(random, 40) - 1;
  const std::string key(random() % 3, 'k');
  switch (random() % 12) {
    case 0: return w.handles.push_back(w.pool.create());
    case 1: return w.pool.free(std::vector<int64_t>(1 + random() % 20 / 19, handle));
    case 2:
      for (const int64_t child : w.pool.fork(handle, number % 4)) w.handles.push_back(child);
      return;
    case 3: return w.pool.truncate(handle, number);
    case 4: return w.handles.push_back(w.pool.share_prefix(handle, number));
    case 5: return w.pool.swap_out(handle);
    case 6: return static_cast<void>(w.pool.swap_in(handle));
    case 7: {
      const std::vector<int64_t> tokens = some_tokens(random, w.pool.length(handle));
      return w.index.insert(handle, tokens, key);
    }
    case 8: {
      int64_t count = 0;
      const std::vector<int64_t> tokens = some_tokens(random, 30);
      const int64_t multiple = w.pool.page_size() * (1 + below(random, 2)) + number / 38;
      return w.handles.push_back(w.index.match(tokens, key, multiple, count));
    }
    case 9:
      if (random() % 20 == 0) w.index.clear();
      return;
    default: return append(w, random);
  }
}

// What a call that throws must leave as it was.
struct State {
  std::vector<int32_t> table, slots;
  int64_t free_pages, free_rows, index_size;
  bool operator==(const State&) const = default;
};
State state_of(const World& w) {
  return {w.table, w.slots, w.pool.num_free_pages(), w.pool.num_free_rows(), w.index.size()};
}

int64_t run(Random& random) {
  World w(random);
  int64_t thrown = 0;
  for (int i = 0; i < 300; ++i) {
    const State before = state_of(w);
    try {
      call(w, random);
    } catch (const Inconsistent& error) {
      throw;
    } catch (const std::exception&) {
      ++thrown;
      if (!(state_of(w) == before)) {
        std::fprintf(stderr, "a call that threw changed something\n");
        std::abort();
      }
    }
    w.pool.check_invariants();
    if (w.handles.size() > 40) w.handles.erase(w.handles.begin(), w.handles.begin() + 20);
  }
  return thrown;
}
}  // namespace

int main(int argc, char** argv) {
  Random random(argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 1);
  const double seconds = argc > 2 ? std::atof(argv[2]) : 1;
  const int64_t least = argc > 3 ? std::atoll(argv[3]) : 1;  // rounds, however long they take
  const auto start = std::chrono::steady_clock::now();
  int64_t rounds = 0, thrown = 0;
  const auto spent = [&] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  while (spent() < seconds || rounds < least) {
    thrown += run(random);
    ++rounds;
  }
  std::printf("%lld rounds of 300 calls, %lld of which threw\n", static_cast<long long>(rounds),
              static_cast<long long>(thrown));
}
