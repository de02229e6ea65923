// csrc/ngram/bind.cpp: the torch side of the room. Compiled once per backend, see common/backend.h.
#include "../common/backend.h"
#include "find.h"
#include "locate.h"
#include "longest_prefix.h"
#include "longest_suffix.h"
#include "mix.h"
#include "next.h"
#include "sa_build.h"
#include "score.h"

namespace lmx::ngram {
namespace {
using OptTensor = std::optional<Tensor>;
constexpr int64_t kMaxVocab = int64_t{1} << 31;

// ---- checks -------------------------------------------------------------------------------
int token_bytes(const Tensor& text, const char* kOp) {
  switch (text.scalar_type()) {
    case ScalarType::Byte: return 1;
    case ScalarType::Short:
    case ScalarType::UInt16: return 2;
    case ScalarType::Int:
    case ScalarType::UInt32: return 4;
    default:
      STD_TORCH_CHECK(false, kOp,
                      ": expected text of dtype Byte, Short, UInt16, Int or UInt32, got ",
                      torch::headeronly::toString(text.scalar_type()));
  }
}

void check_in(int64_t value, int64_t least, int64_t most, const char* name, const char* kOp) {
  STD_TORCH_CHECK(least <= value && value <= most, kOp, ": expected ", name, " in [", least, ", ",
                  most, "], got ", value);
}

void check_vector(const Tensor& t, int64_t size, ScalarType type, const Tensor& text,
                  const char* kOp, const char* name, const char* spelled) {
  check_shape(t, kOp, name, {size}, spelled);
  check_dtype(t, kOp, name, type);
  check_contiguous(t, kOp, name);
  check_device(t, text, kOp, name, "text");
}

int32_t* status_of(const OptTensor& t, int64_t rows, const Tensor& text, const char* kOp) {
  if (!t) return nullptr;
  check_vector(*t, rows, ScalarType::Int, text, kOp, "status", "(num_rows)");
  return out<int32_t>(*t);
}

// The five tensors of an index.
struct IndexTensors {
  const Tensor &text, &sa, &lut, &skey, &shards;
};

void check_index(const IndexTensors& t, int64_t vocab_size, int64_t ptr_bytes, const char* kOp) {
  const Tensor &text = t.text, &sa = t.sa, &lut = t.lut, &skey = t.skey, &shards = t.shards;
  check_in(vocab_size, 0, kMaxVocab, "vocab_size", kOp);
  check_in(ptr_bytes, 0, 8, "ptr_bytes", kOp);
  LMX_CHECK_SHAPE(text, -1);
  LMX_CHECK_SHAPE(sa, -1);
  LMX_CHECK_SHAPE(skey, -1);
  LMX_CHECK_SHAPE(shards, -1, kShardColumns);
  check_in(shards.size(0), 0, kMaxShards, "the number of shards", kOp);
  if (ptr_bytes > 0) {
    LMX_CHECK_DTYPE(sa, Byte);
  } else {
    STD_TORCH_CHECK(sa.scalar_type() == ScalarType::Int || sa.scalar_type() == ScalarType::UInt32,
                    kOp, ": expected sa of dtype Int or UInt32, got ",
                    torch::headeronly::toString(sa.scalar_type()));
  }
  if (lut.numel() > 0) LMX_CHECK_SHAPE(lut, shards.size(0), vocab_size + 2);
  for (const auto& [name, tensor] : {std::pair{"lut", &lut}, {"skey", &skey}, {"shards", &shards}})
    check_dtype(*tensor, kOp, name, ScalarType::Long);
  for (const auto& [name, tensor] : {std::pair{"text", &text},
                                     {"sa", &sa},
                                     {"lut", &lut},
                                     {"skey", &skey},
                                     {"shards", &shards}}) {
    check_contiguous(*tensor, kOp, name);
    check_device(*tensor, text, kOp, name, "text");
  }
}

Index index_of(const IndexTensors& t, int64_t vocab_size, int64_t eos_id, int64_t ptr_bytes,
               const char* kOp) {
  check_index(t, vocab_size, ptr_bytes, kOp);
  check_in(eos_id, -1, vocab_size - 1, "eos_id", kOp);
  return {.text = in(t.text),
          .sa = in(t.sa),
          .lut = t.lut.numel() > 0 ? in<int64_t>(t.lut) : nullptr,
          .skey = t.skey.numel() > 0 ? in<uint64_t>(t.skey) : nullptr,
          .docs = nullptr,
          .shards = in<int64_t>(t.shards),
          .num_text = t.text.numel(),
          .num_sa = t.sa.numel(),
          .num_skey = t.skey.numel(),
          .num_docs = 0,
          .num_shards = t.shards.size(0),
          .vocab_size = vocab_size,
          .eos_id = eos_id,
          .token_bytes = token_bytes(t.text, kOp),
          .ptr_bytes = static_cast<int>(ptr_bytes)};
}

// Ragged rows of tokens; the number of rows.
int64_t check_ragged(const Tensor& qtok, const Tensor& qoff, const Tensor& text, const char* kOp) {
  check_vector(qtok, -1, ScalarType::Long, text, kOp, "qtok", "(-1)");
  check_vector(qoff, -1, ScalarType::Long, text, kOp, "qoff", "(num_rows + 1)");
  STD_TORCH_CHECK(qoff.numel() >= 1, kOp, ": expected qoff of at least one entry, got none");
  check_in(qtok.numel(), 0, INT32_MAX, "the number of tokens", kOp);
  return qoff.numel() - 1;
}

void check_ranges(const Tensor& rng, const Tensor& depth, const Tensor& text, int64_t num_shards,
                  const char* kOp) {
  check_shape(rng, kOp, "rng", {-1, num_shards, 2}, "(num_queries, num_shards, 2)");
  LMX_CHECK_DTYPE(rng, Long);
  LMX_CHECK_CONTIGUOUS(rng);
  LMX_CHECK_DEVICE(rng, text);
  check_vector(depth, rng.size(0), ScalarType::Int, text, kOp, "depth", "(num_queries)");
}

NextParams next_of(const IndexTensors& t, const Tensor& rng, const Tensor& depth,
                   int64_t vocab_size, int64_t eos_id, int64_t ptr_bytes, int64_t max_support,
                   const OptTensor& status, const char* kOp) {
  const Index index = index_of(t, vocab_size, eos_id, ptr_bytes, kOp);
  check_ranges(rng, depth, t.text, index.num_shards, kOp);
  check_in(max_support, 0, INT32_MAX, "max_support", kOp);
  return {.index = index,
          .rng = in<int64_t>(rng),
          .depth = in<int32_t>(depth),
          .num_queries = rng.size(0),
          .max_support = max_support,
          .status = status_of(status, rng.size(0), t.text, kOp)};
}

// ---- ops ----------------------------------------------------------------------------------
Tensor ngram_sa_build(const Tensor& text, int64_t vocab_size, int64_t num_suffixes) {
  constexpr auto kOp = "lmx::ngram_sa_build";
  LMX_CHECK_SHAPE(text, -1);
  LMX_CHECK_CONTIGUOUS(text);
  check_in(vocab_size, 0, kMaxVocab, "vocab_size", kOp);
  const int64_t n = text.numel();
  check_in(n, 0, kMaxShardTokens, "the number of tokens", kOp);
  check_in(num_suffixes, 0, n, "num_suffixes", kOp);
  const Call call(text);
  Tensor sa = new_tensor(text, {num_suffixes}, ScalarType::Int);
  const int64_t m = kOnDevice ? n : 0;  // workspaces
  Tensor keys = new_tensor(text, {2, m}, ScalarType::Long);
  Tensor words = new_tensor(text, {5, m}, ScalarType::Int);
  Tensor table = new_tensor(text, {256 * kSortChunks + 1}, ScalarType::Int);
  auto* key = fresh<uint64_t>(keys);
  auto* word = fresh<uint32_t>(words);
  auto* sums = fresh<uint32_t>(table);
  call.run(LMX_KERNEL(sa_build), SaBuildParams{.text = in(text),
                                               .num_tokens = n,
                                               .num_suffixes = num_suffixes,
                                               .vocab_size = vocab_size,
                                               .token_bytes = token_bytes(text, kOp),
                                               .sa = fresh<uint32_t>(sa),
                                               .keys = {key, key + m},
                                               .positions = {word, word + m},
                                               .order = word + 2 * m,
                                               .rank = word + 3 * m,
                                               .first = word + 4 * m,
                                               .table = sums + 1,
                                               .count = sums});
  return sa;
}

std::tuple<Tensor, Tensor> ngram_find(const Tensor& text, const Tensor& sa, const Tensor& lut,
                                      const Tensor& skey, const Tensor& shards, const Tensor& qtok,
                                      const Tensor& qoff, int64_t vocab_size, int64_t ptr_bytes,
                                      const OptTensor& hint, const OptTensor& status) {
  constexpr auto kOp = "lmx::ngram_find";
  const Index index = index_of({text, sa, lut, skey, shards}, vocab_size, -1, ptr_bytes, kOp);
  const int64_t rows = check_ragged(qtok, qoff, text, kOp);
  if (hint) {
    check_shape(*hint, kOp, "hint", {rows, index.num_shards, 3}, "(num_queries, num_shards, 3)");
    check_dtype(*hint, kOp, "hint", ScalarType::Long);
    check_contiguous(*hint, kOp, "hint");
    check_device(*hint, text, kOp, "hint", "text");
  }
  const Call call(text);
  Tensor rng = new_tensor(text, {rows, index.num_shards, 2}, ScalarType::Long);
  Tensor cnt = new_tensor(text, {rows}, ScalarType::Long);
  call.run(LMX_KERNEL(find), FindParams{.index = index,
                                        .qtok = in<int64_t>(qtok),
                                        .qoff = in<int64_t>(qoff),
                                        .hint = in<int64_t>(hint),
                                        .num_queries = rows,
                                        .num_tokens = qtok.numel(),
                                        .rng = fresh<int64_t>(rng),
                                        .cnt = fresh<int64_t>(cnt),
                                        .status = status_of(status, rows, text, kOp)});
  return {rng, cnt};
}

std::tuple<Tensor, Tensor, Tensor> ngram_longest_suffix(
    const Tensor& text, const Tensor& sa, const Tensor& lut, const Tensor& skey,
    const Tensor& shards, const Tensor& qtok, const Tensor& qoff, int64_t vocab_size,
    int64_t ptr_bytes, int64_t max_len, int64_t min_count, const OptTensor& prev_len,
    const OptTensor& status) {
  constexpr auto kOp = "lmx::ngram_longest_suffix";
  const Index index = index_of({text, sa, lut, skey, shards}, vocab_size, -1, ptr_bytes, kOp);
  const int64_t rows = check_ragged(qtok, qoff, text, kOp);
  check_in(max_len, 0, INT32_MAX, "max_len", kOp);
  check_in(min_count, 1, INT64_MAX, "min_count", kOp);
  if (prev_len)
    check_vector(*prev_len, rows, ScalarType::Int, text, kOp, "prev_len", "(num_queries)");
  const Call call(text);
  Tensor len = new_tensor(text, {rows}, ScalarType::Int);
  Tensor rng = new_tensor(text, {rows, index.num_shards, 2}, ScalarType::Long);
  Tensor cnt = new_tensor(text, {rows}, ScalarType::Long);
  call.run(LMX_KERNEL(longest_suffix),
           LongestSuffixParams{.index = index,
                               .qtok = in<int64_t>(qtok),
                               .qoff = in<int64_t>(qoff),
                               .prev_len = in<int32_t>(prev_len),
                               .num_queries = rows,
                               .num_tokens = qtok.numel(),
                               .max_len = max_len,
                               .min_count = min_count,
                               .len = fresh<int32_t>(len),
                               .rng = fresh<int64_t>(rng),
                               .cnt = fresh<int64_t>(cnt),
                               .status = status_of(status, rows, text, kOp)});
  return {len, rng, cnt};
}

Tensor ngram_longest_prefix(const Tensor& text, const Tensor& sa, const Tensor& lut,
                            const Tensor& skey, const Tensor& shards, const Tensor& qtok,
                            const Tensor& qoff, int64_t vocab_size, int64_t ptr_bytes,
                            const OptTensor& status) {
  constexpr auto kOp = "lmx::ngram_longest_prefix";
  const Index index = index_of({text, sa, lut, skey, shards}, vocab_size, -1, ptr_bytes, kOp);
  const int64_t rows = check_ragged(qtok, qoff, text, kOp);
  const Call call(text);
  Tensor len = new_tensor(text, {qtok.numel()}, ScalarType::Int);
  call.run(LMX_KERNEL(longest_prefix),
           LongestPrefixParams{.index = index,
                               .qtok = in<int64_t>(qtok),
                               .qoff = in<int64_t>(qoff),
                               .num_queries = rows,
                               .num_tokens = qtok.numel(),
                               .len = fresh<int32_t>(len),
                               .status = status_of(status, rows, text, kOp)});
  return len;
}

std::tuple<Tensor, Tensor> ngram_next_prob(const Tensor& text, const Tensor& sa, const Tensor& lut,
                                           const Tensor& skey, const Tensor& shards,
                                           const Tensor& rng, const Tensor& depth,
                                           const Tensor& tok, int64_t vocab_size, int64_t eos_id,
                                           int64_t ptr_bytes, const OptTensor& status) {
  constexpr auto kOp = "lmx::ngram_next_prob";
  const NextParams next = next_of({text, sa, lut, skey, shards}, rng, depth, vocab_size, eos_id,
                                  ptr_bytes, 0, status, kOp);
  check_vector(tok, next.num_queries, ScalarType::Long, text, kOp, "tok", "(num_queries)");
  const Call call(text);
  Tensor num = new_tensor(text, {next.num_queries}, ScalarType::Long);
  Tensor den = new_tensor(text, {next.num_queries}, ScalarType::Long);
  call.run(LMX_KERNEL(next_prob), NextProbParams{.next = next,
                                                 .tok = in<int64_t>(tok),
                                                 .num = fresh<int64_t>(num),
                                                 .den = fresh<int64_t>(den)});
  return {num, den};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> ngram_ntd(
    const Tensor& text, const Tensor& sa, const Tensor& lut, const Tensor& skey,
    const Tensor& shards, const Tensor& rng, const Tensor& depth, int64_t vocab_size,
    int64_t capacity, int64_t eos_id, int64_t ptr_bytes, int64_t max_support,
    const OptTensor& status) {
  constexpr auto kOp = "lmx::ngram_ntd";
  const NextParams next = next_of({text, sa, lut, skey, shards}, rng, depth, vocab_size, eos_id,
                                  ptr_bytes, max_support, status, kOp);
  check_in(capacity, 0, INT64_MAX / 16, "capacity", kOp);
  const int64_t rows = next.num_queries, lists = rows * (next.index.num_shards + 1) + 1;
  const Call call(text);
  Tensor crow = new_tensor(text, {rows + 1}, ScalarType::Long);
  Tensor tok = new_tensor(text, {capacity}, ScalarType::Long);
  Tensor num = new_tensor(text, {capacity}, ScalarType::Long);
  Tensor den = new_tensor(text, {rows}, ScalarType::Long);
  Tensor approx = new_tensor(text, {rows}, ScalarType::Bool);
  Tensor runs = new_tensor(text, {kOnDevice ? lists : 0}, ScalarType::Long);
  Tensor run_tok = new_tensor(text, {kOnDevice ? capacity : 0}, ScalarType::Long);
  Tensor run_num = new_tensor(text, {kOnDevice ? capacity : 0}, ScalarType::Long);
  call.run(LMX_KERNEL(ntd), NtdParams{.next = next,
                                      .capacity = capacity,
                                      .crow = fresh<int64_t>(crow),
                                      .tok = fresh<int64_t>(tok),
                                      .num = fresh<int64_t>(num),
                                      .den = fresh<int64_t>(den),
                                      .approx = fresh<bool>(approx),
                                      .runs = fresh<int64_t>(runs),
                                      .run_tok = fresh<int64_t>(run_tok),
                                      .run_num = fresh<int64_t>(run_num)});
  return {crow, tok, num, den, approx};
}

Tensor ngram_ntd_dense(const Tensor& text, const Tensor& sa, const Tensor& lut, const Tensor& skey,
                       const Tensor& shards, const Tensor& rng, const Tensor& depth,
                       int64_t vocab_size, int64_t eos_id, int64_t ptr_bytes, int64_t max_support,
                       const OptTensor& status) {
  constexpr auto kOp = "lmx::ngram_ntd_dense";
  const NextParams next = next_of({text, sa, lut, skey, shards}, rng, depth, vocab_size, eos_id,
                                  ptr_bytes, max_support, status, kOp);
  const Call call(text);
  Tensor probs = new_tensor(text, {next.num_queries, vocab_size}, ScalarType::Float);
  call.run(LMX_KERNEL(ntd_dense), NtdDenseParams{.next = next, .probs = fresh<float>(probs)});
  return probs;
}

std::tuple<Tensor, Tensor> ngram_ntd_topk(const Tensor& text, const Tensor& sa, const Tensor& lut,
                                          const Tensor& skey, const Tensor& shards,
                                          const Tensor& rng, const Tensor& depth,
                                          int64_t vocab_size, int64_t k, int64_t eos_id,
                                          int64_t ptr_bytes, int64_t max_support,
                                          const OptTensor& status) {
  constexpr auto kOp = "lmx::ngram_ntd_topk";
  const NextParams next = next_of({text, sa, lut, skey, shards}, rng, depth, vocab_size, eos_id,
                                  ptr_bytes, max_support, status, kOp);
  check_in(k, 0, INT32_MAX, "k", kOp);
  const Call call(text);
  Tensor tok = new_tensor(text, {next.num_queries, k}, ScalarType::Long);
  Tensor num = new_tensor(text, {next.num_queries, k}, ScalarType::Long);
  call.run(
      LMX_KERNEL(ntd_topk),
      NtdTopkParams{.next = next, .k = k, .tok = fresh<int64_t>(tok), .num = fresh<int64_t>(num)});
  return {tok, num};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> ngram_score(const Tensor& text, const Tensor& sa,
                                                       const Tensor& lut, const Tensor& skey,
                                                       const Tensor& shards, const Tensor& qtok,
                                                       const Tensor& qoff, int64_t vocab_size,
                                                       int64_t eos_id, int64_t ptr_bytes,
                                                       int64_t max_len, int64_t min_count,
                                                       const OptTensor& status) {
  constexpr auto kOp = "lmx::ngram_score";
  const Index index = index_of({text, sa, lut, skey, shards}, vocab_size, eos_id, ptr_bytes, kOp);
  const int64_t rows = check_ragged(qtok, qoff, text, kOp), n = qtok.numel();
  check_in(max_len, 0, INT32_MAX, "max_len", kOp);
  check_in(min_count, 1, INT64_MAX, "min_count", kOp);
  const Call call(text);
  Tensor suffix_len = new_tensor(text, {n}, ScalarType::Int);
  Tensor den = new_tensor(text, {n}, ScalarType::Long);
  Tensor num = new_tensor(text, {n}, ScalarType::Long);
  Tensor distinct = new_tensor(text, {n}, ScalarType::Int);
  call.run(LMX_KERNEL(score), ScoreParams{.index = index,
                                          .qtok = in<int64_t>(qtok),
                                          .qoff = in<int64_t>(qoff),
                                          .num_texts = rows,
                                          .num_tokens = n,
                                          .max_len = max_len,
                                          .min_count = min_count,
                                          .suffix_len = fresh<int32_t>(suffix_len),
                                          .den = fresh<int64_t>(den),
                                          .num = fresh<int64_t>(num),
                                          .distinct = fresh<int32_t>(distinct),
                                          .status = status_of(status, rows, text, kOp)});
  return {suffix_len, den, num, distinct};
}

Tensor ngram_locate(const Tensor& text, const Tensor& sa, const Tensor& lut, const Tensor& skey,
                    const Tensor& shards, const Tensor& docs, const Tensor& rng, int64_t vocab_size,
                    int64_t k, int64_t seed, int64_t ptr_bytes, const OptTensor& status) {
  constexpr auto kOp = "lmx::ngram_locate";
  Index index = index_of({text, sa, lut, skey, shards}, vocab_size, -1, ptr_bytes, kOp);
  check_vector(docs, -1, ScalarType::Long, text, kOp, "docs", "(-1)");
  check_shape(rng, kOp, "rng", {-1, index.num_shards, 2}, "(num_queries, num_shards, 2)");
  LMX_CHECK_DTYPE(rng, Long);
  LMX_CHECK_CONTIGUOUS(rng);
  LMX_CHECK_DEVICE(rng, text);
  check_in(k, 0, INT32_MAX, "k", kOp);
  static const int64_t kNoDocs = 0;
  index.docs = docs.numel() > 0 ? in<int64_t>(docs) : &kNoDocs;
  index.num_docs = docs.numel();
  const int64_t rows = rng.size(0);
  const Call call(text);
  Tensor found = new_tensor(text, {rows, k, 4}, ScalarType::Long);
  call.run(LMX_KERNEL(locate), LocateParams{.index = index,
                                            .rng = in<int64_t>(rng),
                                            .num_queries = rows,
                                            .k = k,
                                            .seed = seed,
                                            .where = fresh<int64_t>(found),
                                            .status = status_of(status, rows, text, kOp)});
  return found;
}

Tensor ngram_mix(const Tensor& logits, const Tensor& lse, const Tensor& crow, const Tensor& tok,
                 const Tensor& num, double lam_sparse, double lam_dense,
                 const OptTensor& suffix_len, int64_t min_suffix_len, const OptTensor& status) {
  constexpr auto kOp = "lmx::ngram_mix";
  LMX_CHECK_SHAPE(logits, -1, -1);
  const int64_t rows = logits.size(0), vocab_size = logits.size(1);
  STD_TORCH_CHECK(vocab_size <= 1 || rows == 0 || logits.stride(1) == 1, kOp,
                  ": expected logits contiguous in the last dimension, got strides ",
                  spell(logits.strides()));
  check_vector(lse, rows, ScalarType::Float, logits, kOp, "lse", "(num_rows)");
  check_vector(crow, rows + 1, ScalarType::Long, logits, kOp, "crow", "(num_rows + 1)");
  check_vector(tok, -1, ScalarType::Long, logits, kOp, "tok", "(-1)");
  check_vector(num, tok.numel(), ScalarType::Long, logits, kOp, "num", "(num_entries)");
  if (suffix_len)
    check_vector(*suffix_len, rows, ScalarType::Int, logits, kOp, "suffix_len", "(num_rows)");
  for (const auto& [name, value] : {std::pair{"lam_sparse", lam_sparse}, {"lam_dense", lam_dense}})
    STD_TORCH_CHECK(value >= 0 && value <= 1, kOp, ": expected ", name, " in [0, 1], got ", value);
  const Call call(logits);
  Tensor logprobs = new_tensor(logits, {rows, vocab_size}, ScalarType::Float);
  call.run(LMX_KERNEL(mix), MixParams{.logits = in(logits),
                                      .lse = in<float>(lse),
                                      .crow = in<int64_t>(crow),
                                      .tok = in<int64_t>(tok),
                                      .num = in<int64_t>(num),
                                      .suffix_len = in<int32_t>(suffix_len),
                                      .num_rows = rows,
                                      .vocab_size = vocab_size,
                                      .row_stride = rows > 1 ? logits.stride(0) : vocab_size,
                                      .num_entries = tok.numel(),
                                      .min_suffix_len = min_suffix_len,
                                      .lam_sparse = lam_sparse,
                                      .lam_dense = lam_dense,
                                      .out = fresh<float>(logprobs),
                                      .status = status_of(status, rows, logits, kOp),
                                      .dtype = LMX_DTYPE(logits)});
  return logprobs;
}
}  // namespace

LMX_REGISTER(m) {
  m.impl("ngram_sa_build", TORCH_BOX(&ngram_sa_build));
  LMX_IMPL(m, ngram_find);
  LMX_IMPL(m, ngram_longest_suffix);
  LMX_IMPL(m, ngram_longest_prefix);
  LMX_IMPL(m, ngram_next_prob);
  LMX_IMPL(m, ngram_ntd);
  LMX_IMPL(m, ngram_ntd_dense);
  LMX_IMPL(m, ngram_ntd_topk);
  LMX_IMPL(m, ngram_score);
  LMX_IMPL(m, ngram_locate);
  LMX_IMPL(m, ngram_mix);
}
}  // namespace lmx::ngram
