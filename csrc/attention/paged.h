// csrc/attention/paged.h: softmax attention of packed query rows over a sequence's slots in pages
// and the keys of this step.
//
// Sequence b has n = num_slots[b] slots in pages, and the fresh keys and values, k of them, of rows
// [cu_seqlens_k[b], cu_seqlens_k[b + 1]). Together they are its keys 0 .. n + k - 1: key e is slot
// e for e < n, else fresh row e - n. Its q query rows are [cu_seqlens_q[b], cu_seqlens_q[b + 1]);
// query head h reads key head h / group, group = num_heads / num_kv_heads.
//
// Row i sees key e if allowed(its position, the key's), and of fresh keys only
//   - with ancestors: those whose bit is set in row i; without, where causal: those up to its own,
//     its own being fresh key k - q + i;
//   - with key_keep: those kept for the head, and its own (with ancestors the last one it sees).
// A slot whose position is negative is dead. Then, over the keys that a row sees,
//   x = softmax_scale * <query, key>;  x = softcap * tanh(x / softcap) where softcap > 0
//   x = x - alibi_slopes[h] * (position - key position);  s = x * log2(e)
//   out = sum 2^s value / sum 2^s,  lse = ln sum 2^s;  without a key out = 0 and lse = -inf
// A NaN or +inf among the scores that a row sees makes its out and lse NaN.
//
// How it is summed, so that a row's bits depend on its own sequence only, and a chain of rows gives
// those of one row at a time: the keys are cut into chunks [256 c, 256 c + 256), of which dead
// slots are dropped. In a chunk a row has top = the least integer at or above its largest s,
// weights 2^(s - top), their sum, and the sum of the weights, rounded to the dtype, times the
// values. Chunks are added in ascending order, each scaled by a power of two, which is exact.
// Sources: Dao et al. 2022 (arXiv 2205.14135), section 3.1; Kwon et al. 2023 (arXiv 2309.06180),
// section 4.1; rounding the maximum up to an integer makes the rescaling exact.
#pragma once
#include "../common/exact.h"
#include "../common/isa.h"
#include "../common/status.h"
struct CUstream_st;

namespace lmx::attention {
constexpr int kChunk = 256;          // keys whose weights share one top
constexpr int kMaxHeadDim = 256;     // head_dim is a multiple of 8
constexpr int64_t kMaxFresh = 2048;  // fresh keys of a sequence

enum class Part : int { all, prefix, fresh };

// Rows of heads: element (t, h, d) lies at data + t * row_stride + h * head_stride + d.
struct Heads {
  const void* data;
  int64_t row_stride, head_stride;
};

struct PagedParams {
  Heads query;                  // [num_q, num_heads, head_dim]
  Heads key, value;             // [num_k, num_kv_heads, head_dim]
  const int32_t* cu_seqlens_q;  // [num_seqs + 1]
  const int32_t* cu_seqlens_k;  // [num_seqs + 1]
  const uint32_t* ancestors;    // [num_q, ancestor_words] or null
  int64_t ancestor_words;
  const void* pages;    // page e, key head h: [page_size, head_dim] keys at element
                        // e * page_stride + h * page_head_stride, values value_offset further
  int64_t page_stride;  // in elements
  int64_t page_head_stride, value_offset;
  int64_t num_pages;
  int page_size;               // 8, 16, 32, 64 or 128
  const int32_t* block_table;  // [num_seqs, table_width], rows table_stride apart
  int64_t table_stride, table_width;
  const int32_t* num_slots;  // [num_seqs], slots_stride apart
  int64_t slots_stride;
  const int32_t* query_pos;       // [num_q]
  const int32_t* key_pos;         // [num_k]
  const int32_t* slot_pos;        // [num_pos_pages, page_size] or null: the position of slot s is s
  const int32_t* slot_pos_table;  // [num_seqs, table_width], as block_table; entry 0: as if null
  int64_t slot_pos_stride, num_pos_pages;
  const bool* key_keep;       // [num_k, num_kv_heads] or null
  const float* alibi_slopes;  // [num_heads] or null
  float softmax_scale, softcap;
  bool causal;
  int64_t window;     // negative: none
  int64_t num_sinks;  // positions below it stay in sight of a window
  Part part;
  int64_t num_seqs, num_q, num_k;
  int num_heads, num_kv_heads, head_dim;
  DType dtype;
  int64_t max_q, max_slots;  // bounds of a sequence's rows and slots; they change no bit
  void* out;                 // [num_q, num_heads, head_dim], contiguous
  float* lse;                // [num_q, num_heads]
  int32_t* status;           // [num_seqs] or null
  float* space;              // CUDA workspace of space_floats(...), see split.h
};

// ---- sequences --------------------------------------------------------------------------------
struct Sequence {
  int64_t first_q, num_q, first_k, num_k, num_slots;
};
LMX_HD Sequence sequence_of(const PagedParams& p, int64_t b) {
  const int64_t q = p.cu_seqlens_q[b], k = p.cu_seqlens_k[b];
  return {q, p.cu_seqlens_q[b + 1] - q, k, p.cu_seqlens_k[b + 1] - k,
          p.num_slots[b * p.slots_stride]};
}
// Whether its query rows can be named at all. Those of a sequence with another fault are 0, their
// lse -inf.
LMX_HD bool has_rows(const PagedParams& p, const Sequence& s, int64_t b) {
  return s.first_q >= 0 && s.num_q >= 0 && s.first_q + s.num_q <= p.num_q &&
         (b > 0 || s.first_q == 0);
}
// What is wrong with a sequence's counts.
LMX_HD int32_t count_faults(const PagedParams& p, const Sequence& s, int64_t b) {
  int32_t faults = 0;
  if (!has_rows(p, s, b)) faults |= kStatusBadOffsets;
  if (s.first_k < 0 || s.num_k < 0 || s.first_k + s.num_k > p.num_k || (b == 0 && s.first_k != 0))
    faults |= kStatusBadOffsets;
  if (p.part != Part::prefix && !p.ancestors && s.num_q > s.num_k) faults |= kStatusBadOffsets;
  if (faults) return faults;
  if (s.num_q > p.max_q || s.num_k > kMaxFresh) faults |= kStatusTooMany;
  if (p.ancestors && s.num_k > 32 * p.ancestor_words) faults |= kStatusTooMany;
  if (s.num_slots < 0 || s.num_slots > p.max_slots || s.num_slots > p.table_width * p.page_size)
    faults |= kStatusTooMany;
  return faults;
}
// How many entries of its tables a sequence needs; the others are never read.
LMX_HD int64_t num_entries(const PagedParams& p, const Sequence& s) {
  return p.part == Part::fresh ? 0 : ceil_div<int64_t>(s.num_slots, p.page_size);
}
LMX_HD bool bad_page(const PagedParams& p, int64_t b, int64_t entry) {
  const int32_t page = p.block_table[b * p.table_stride + entry];
  return page <= 0 || page >= p.num_pages;
}
LMX_HD bool bad_pos_page(const PagedParams& p, int64_t b, int64_t entry) {
  if (!p.slot_pos) return false;
  const int32_t page = p.slot_pos_table[b * p.slot_pos_stride + entry];
  return page < 0 || page >= p.num_pos_pages;
}
// The position of a slot; negative: dead.
LMX_HD int32_t slot_position(const PagedParams& p, int64_t b, int64_t slot) {
  if (!p.slot_pos) return static_cast<int32_t>(slot);
  const int64_t page = p.slot_pos_table[b * p.slot_pos_stride + slot / p.page_size];
  return page ? p.slot_pos[page * p.page_size + slot % p.page_size] : static_cast<int32_t>(slot);
}
// The keys of a sequence that count: [begin, end) of 0 .. num_slots + num_k.
struct KeyRange {
  int64_t begin, end;
};
LMX_HD KeyRange key_range(const PagedParams& p, const Sequence& s) {
  return {p.part == Part::fresh ? s.num_slots : 0,
          p.part == Part::prefix ? s.num_slots : s.num_slots + s.num_k};
}
// Those that query rows up to `last` may see, by their order.
LMX_HD KeyRange keys_of(const PagedParams& p, const Sequence& s, int64_t last) {
  KeyRange range = key_range(p, s);
  const int64_t seen = s.num_slots + s.num_k - s.num_q + last + 1;
  if (p.causal && !p.ancestors && p.part != Part::prefix && seen < range.end) range.end = seen;
  return range;
}

// ---- sight ------------------------------------------------------------------------------------
// By position, for slots and fresh keys alike.
LMX_HD bool allowed(const PagedParams& p, int64_t query_pos, int64_t key_pos) {
  if (p.causal && key_pos > query_pos) return false;
  return p.window < 0 || query_pos - key_pos < p.window || key_pos < p.num_sinks;
}
// Whether row i of a sequence sees fresh key j, positions and key_keep apart.
LMX_HD bool sees_fresh(const PagedParams& p, const Sequence& s, int64_t i, int64_t j) {
  if (!p.ancestors) return !p.causal || j <= s.num_k - s.num_q + i;
  return p.ancestors[(s.first_q + i) * p.ancestor_words + j / 32] >> (j % 32) & 1;
}
// The fresh key that is row i itself, for key_keep; -1: none.
LMX_HD int64_t own_key(const PagedParams& p, const Sequence& s, int64_t i) {
  if (!p.ancestors) return s.num_k - s.num_q + i;
  int64_t j = s.num_k - 1;
  while (j >= 0 && !sees_fresh(p, s, i, j)) --j;
  return j;
}

// ---- scores -----------------------------------------------------------------------------------
// 2^e for an integer e <= 0, as a float: 0 below 2^-125, and for -inf and NaN.
LMX_HD float pow2_at_most_1(float e) { return exact::scale_exp2(1.f, e); }

// 2^x for x <= 0; 0 below about 2^-125. F = float or the SIMD type of vec.h.
template <typename F>
LMX_HD F exp2_at_most_1(F x) {
  using exact::round_even, exact::scale_exp2;
  const F n = round_even(x);
  return scale_exp2(exact::exp2_fraction(x - n), n);
}

// tanh y, absolute error below 2^-23: (1 - e) / (1 + e), e = 2^(-2 |y| log2 e).
LMX_HD float tanh_of(float y) {
  const float e = exp2_at_most_1(fabsf(y) * (-2.f * exact::kLog2E));
  const float t = (1.f - e) / (1.f + e);
  return y < 0.f ? -t : y == y ? t : y;
}

// From a dot product to s, the exponent of 2.
struct Score {
  float scale;    // softmax_scale, times log2(e) where nothing else is to be done
  float softcap;  // 0: none
  float slope;    // 0: none
};
LMX_HD Score score_of(const PagedParams& p, int head) {
  const float slope = p.alibi_slopes ? p.alibi_slopes[head] : 0.f;
  const bool plain = p.softcap <= 0.f && !p.alibi_slopes;
  return {plain ? p.softmax_scale * exact::kLog2E : p.softmax_scale, p.softcap, slope};
}
LMX_HD bool is_plain(const PagedParams& p) { return p.softcap <= 0.f && !p.alibi_slopes; }
LMX_HD float exponent(const Score& c, bool plain, float dot, int64_t query_pos, int64_t key_pos) {
  if (plain) return dot * c.scale;
  float x = dot * c.scale;
  if (c.softcap > 0.f) x = c.softcap * tanh_of(x / c.softcap);
  x = x - c.slope * static_cast<float>(query_pos - key_pos);
  return x * exact::kLog2E;
}
// The integer that a chunk's weights refer to, from the largest s that a row sees in it; -inf: it
// sees none, or only -inf. NaN and +inf make a row NaN.
LMX_HD float top_of(float largest) {
  return largest == INFINITY ? largest - largest : ceilf(largest);
}
// 2^(s - top); s - round(s) is exact, so a weight is the same number whatever top is.
template <typename F>
LMX_HD F weight(F s, F top) {
  using exact::round_even, exact::scale_exp2;
  const F n = round_even(s);
  return scale_exp2(exact::exp2_fraction(s - n), n - top);
}

// ---- partial results --------------------------------------------------------------------------
// Two sets of keys, with sums that refer to the tops a and b: what their sums are multiplied with
// before they are added. Powers of two, the larger one 1; -inf is a set without keys.
struct Rescale {
  float top, a, b;
};
LMX_HD Rescale rescale(float a, float b) {
  const float top = a != a || b != b ? a + b : a > b ? a : b;
  return {top, a == top ? 1.f : pow2_at_most_1(a - top), b == top ? 1.f : pow2_at_most_1(b - top)};
}
// What the sum of weighted values is multiplied with, and lse, from a row's top and sum of weights.
struct Finish {
  float scale, lse;
};
LMX_HD Finish finish(float top, float sum) {
  if (top != top) return {top, top};
  if (!(sum > 0.f)) return {0.f, -INFINITY};
  return {1.f / sum, static_cast<float>(exact::fma(static_cast<double>(top), exact::kLn2,
                                                   exact::log(static_cast<double>(sum))))};
}

LMX_CPU_KERNEL_AMX(paged_cpu, PagedParams)
void paged_cuda(const PagedParams& p, CUstream_st* stream);
}  // namespace lmx::attention
