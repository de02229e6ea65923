// csrc/ngram/cpu.h: what the CPU kernels share. Include it only from kernel files.
#pragma once
#include <stdexcept>
#include <string>
#include <vector>

#include "../common/parallel.h"
#include "search.h"

namespace lmx::ngram::LMX_ISA {
constexpr int kInFlight = 16;  // searches of one thread: enough to hide a miss behind the others

inline const char* say(int32_t bits) {
  if (bits & kStatusCorrupt) return "an index whose pointers and tables stay inside it";
  if (bits & kStatusBadOffsets) return "offsets that do not decrease and stay inside the tokens";
  if (bits & kStatusTooMany) return "a capacity that holds all results";
  return "ranges and depths of this index";
}

// Sets a row's bits, or throws where nobody would read them.
inline void report(const char* op, int32_t* status, int64_t row, int32_t bits) {
  if (!bits) return;
  if (!status)
    throw std::invalid_argument(std::string("lmx::") + op + ": expected " + say(bits) +
                                ", got others at row " + std::to_string(row));
  status[row] |= bits;
}

template <typename Order>
std::vector<Shard<Order>> shards_of(const Index& index, int32_t& bits) {
  std::vector<Shard<Order>> shards(static_cast<size_t>(index.num_shards));
  for (int64_t s = 0; s < index.num_shards; ++s)
    if (!shard_at(index, s, shards[static_cast<size_t>(s)])) bits |= kStatusCorrupt;
  return shards;
}

// Query tokens as the index stores them, so that words of them compare. A token that no document
// can hold becomes SEP, which is none either.
template <typename Order>
std::vector<typename Order::Token> stored_tokens(const int64_t* ids, int64_t count,
                                                 int64_t vocab_size) {
  using Token = typename Order::Token;
  std::vector<Token> tokens(static_cast<size_t>(count));
  parallel_for(0, count, 1 << 14, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      tokens[static_cast<size_t>(i)] =
          is_token(ids[i], vocab_size) ? static_cast<Token>(ids[i]) : Shard<Order>::kSep;
  });
  return tokens;
}

// How many tokens before the first that occurs nowhere; how many after the last.
template <typename Token>
int64_t known_prefix(const Token* tokens, int64_t size) {
  int64_t n = 0;
  while (n < size && tokens[n] != static_cast<Token>(~Token{0})) ++n;
  return n;
}
template <typename Token>
int64_t known_suffix(const Token* tokens, int64_t size) {
  int64_t n = 0;
  while (n < size && tokens[size - 1 - n] != static_cast<Token>(~Token{0})) ++n;
  return n;
}

// Runs a machine for each item of [begin, end), kInFlight of them in turns. start(machine, item,
// slot) and finish(machine, item, slot) are called once per item; a slot in [0, kInFlight) is the
// item's own between the two.
template <typename Machine, typename Start, typename Finish>
void interleave(int64_t begin, int64_t end, const Start& start, const Finish& finish) {
  struct Lane {
    Machine machine;
    int64_t item;
    int slot;
  };
  std::vector<Lane> lanes(kInFlight);
  int live = 0;
  int64_t next = begin;
  for (; live < kInFlight && next < end; ++live) {
    lanes[static_cast<size_t>(live)].item = next;
    lanes[static_cast<size_t>(live)].slot = live;
    start(lanes[static_cast<size_t>(live)].machine, next++, live);
  }
  while (live > 0) {
    for (int i = 0; i < live; ++i) {
      Lane& lane = lanes[static_cast<size_t>(i)];
      if (lane.machine.step()) continue;
      finish(lane.machine, lane.item, lane.slot);
      if (next < end) {
        lane.item = next;
        start(lane.machine, next++, lane.slot);
      } else if (--live > i) {
        std::swap(lane, lanes[static_cast<size_t>(live)]);
        --i;
      }
    }
  }
}
}  // namespace lmx::ngram::LMX_ISA
