// csrc/vocab/truncate.h: which tokens top-k, top-p and min-p keep. Each keeps a prefix of the
// allowed tokens ordered by descending logit, equals by ascending id; the result is the shortest of
// the three prefixes.
//   top-k: the first k
//   top-p: the shortest prefix whose probability, among what top-k kept, reaches top_p
//          (arXiv 1904.09751, section 3.1)
//   min-p: tokens with at least min_p times the largest probability (arXiv 2407.01082, section 3)
// Probabilities are added in fixed point, so that a sum has one value in whatever order it is
// taken.
#pragma once
#include "rows.h"

namespace lmx::vocab {
// What a row asks for; off: 0, 1, 0. A greedy row keeps its best token.
struct Limits {
  int64_t top_k = 0;
  float top_p = 1.f, min_p = 0.f;

  LMX_HD Limits(const Shaping& s, int64_t row, int64_t vocab_size) {
    if (is_greedy(s, row)) {
      top_k = 1;
      return;
    }
    if (s.top_k && s.top_k[row] < vocab_size) top_k = s.top_k[row];
    if (s.top_p) top_p = s.top_p[row];
    if (s.min_p) min_p = s.min_p[row];
  }
  LMX_HD bool none() const { return top_k == 0 && top_p == 1.f && min_p == 0.f; }
};

// The last token kept. A token is kept if its logit is larger, or equal and its id not larger.
struct Cut {
  float logit = -INFINITY;
  int32_t id = INT32_MAX;
};
LMX_HD bool keeps(Cut cut, float logit, int64_t id) {
  return logit > cut.logit || (logit == cut.logit && id <= cut.id);
}

struct CutSpace {
  float* logit;  // [num_rows]
  int32_t* id;   // [num_rows]
};

// Whether a row of the call may need a cut. Temperature alone may: it may be 0.
LMX_HD bool may_truncate(const Shaping& s) {
  return s.temperature || s.top_k || s.top_p || s.min_p;
}

// A weight in units of 2^(row_top - 38). A weight is below 2, so 2^24 tokens cannot overflow.
constexpr int64_t kMaxVocab = int64_t{1} << 24;
constexpr float kMassUnits = 274877906944.f;  // 2^38
LMX_HD uint64_t weight_mass(float logit, float scale, float row_top) {
  const float w = exact::weight(exact::cap_logit(logit, scale), scale, row_top);
  return static_cast<uint64_t>(w * kMassUnits);
}
LMX_HD uint64_t total_mass(RowTotal t) { return static_cast<uint64_t>(t.total * kMassUnits); }
LMX_HD uint64_t needed_mass(float top_p, uint64_t total) {
  const double needed = ceil(static_cast<double>(top_p) * static_cast<double>(total));
  return needed < 1.0 ? 1 : static_cast<uint64_t>(needed);
}

// A bound on logits, from one on capped ones: what would cut at the lowest cap cuts nothing finite.
LMX_HD float uncapped_bound(double bound, float scale) {
  return bound * static_cast<double>(scale) <= -static_cast<double>(exact::kMaxExponent)
             ? -INFINITY
             : static_cast<float>(bound);
}

// The logit at which a token has min_p times the probability of the largest logit.
LMX_HD float min_p_logit(float largest, float min_p, float scale) {
  const double temperature = 1.0 / (static_cast<double>(scale) * exact::kLn2);
  const auto capped = static_cast<double>(exact::cap_logit(largest, scale));
  return uncapped_bound(capped + exact::log(static_cast<double>(min_p)) * temperature, scale);
}
}  // namespace lmx::vocab
