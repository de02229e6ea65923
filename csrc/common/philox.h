// common/philox.h: Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2,
// 3", sections 3.3 and 5.2). A counter-based generator: the number depends on what it is for, not
// on who draws it or when, so a request's stream is the same in every batch, on every backend.
#pragma once
#include "hostdev.h"

namespace lmx {
// What a draw is for; part of the counter, so that no two purposes share a number.
enum class Purpose : uint32_t {
  node_coin = 0,
  final_draw = 1,
  gumbel = 2,
  draft_draw = 3,
  branch_seed = 4,  // the seeds of parallel answers to one prompt
  occurrence = 5,   // which of many occurrences of a string are shown
};

struct Philox4 {
  uint32_t word[4];
};

LMX_HD Philox4 philox4x32(Philox4 c, uint32_t key0, uint32_t key1) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * c.word[0];
    const uint64_t p1 = uint64_t{0xCD9E8D57u} * c.word[2];
    c = {{static_cast<uint32_t>(p1 >> 32) ^ c.word[1] ^ key0, static_cast<uint32_t>(p1),
          static_cast<uint32_t>(p0 >> 32) ^ c.word[3] ^ key1, static_cast<uint32_t>(p0)}};
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return c;
}

// The 32 random bits of (seed; base_pos, purpose, index, hi). base_pos is the number of tokens
// committed.
LMX_HD uint32_t philox_word(int64_t seed, int64_t base_pos, uint32_t purpose, uint32_t index,
                            uint32_t hi) {
  const auto s = static_cast<uint64_t>(seed), pos = static_cast<uint64_t>(base_pos);
  const Philox4 counter = {
      {static_cast<uint32_t>(pos), purpose | static_cast<uint32_t>(pos >> 32) << 8, index / 4, hi}};
  const Philox4 r = philox4x32(counter, static_cast<uint32_t>(s), static_cast<uint32_t>(s >> 32));
  return r.word[index % 4];
}

// A multiple of 2^-24 in [0, 1).
LMX_HD float uniform_from_word(uint32_t word) {
  return static_cast<float>(word >> 8) * 5.9604644775390625e-8f;
}
}  // namespace lmx
