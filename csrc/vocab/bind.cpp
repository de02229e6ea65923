// csrc/vocab/bind.cpp: the torch side of the room. Compiled once per backend, see common/backend.h.
#include "../common/backend.h"
#include "argmax.h"
#include "logprobs.h"
#include "lse.h"
#include "mask.h"
#include "mask_gather.h"
#include "sample.h"
#include "softmax.h"
#include "uniform.h"

namespace lmx::vocab {
namespace {
using OptTensor = std::optional<Tensor>;
const OptTensor kNone;

// A tensor of one value per row, or none.
const Tensor* check_per_row(const OptTensor& t, int64_t num_rows, ScalarType type,
                            const Tensor& logits, const char* kOp, const char* name) {
  if (!t) return nullptr;
  check_shape(*t, kOp, name, {num_rows}, "(num_rows)");
  check_dtype(*t, kOp, name, type);
  check_contiguous(*t, kOp, name);
  check_device(*t, logits, kOp, name, "logits");
  return &*t;
}

template <typename T>
const T* per_row(const OptTensor& t, int64_t num_rows, ScalarType type, const Tensor& logits,
                 const char* kOp, const char* name) {
  const Tensor* checked = check_per_row(t, num_rows, type, logits, kOp, name);
  return checked ? in<T>(*checked) : nullptr;
}

int32_t* status_of(const OptTensor& t, int64_t num_rows, const Tensor& logits, const char* kOp) {
  const Tensor* checked = check_per_row(t, num_rows, ScalarType::Int, logits, kOp, "status");
  return checked ? out<int32_t>(*checked) : nullptr;
}

void check_logits(const Tensor& logits, const char* kOp) {
  LMX_CHECK_SHAPE(logits, -1, -1);
  STD_TORCH_CHECK(logits.size(1) <= kMaxVocab, kOp, ": expected logits with at most ", kMaxVocab,
                  " tokens a row, got ", logits.size(1));
  const bool dense = logits.numel() == 0 || logits.size(1) == 1 || logits.stride(1) == 1;
  STD_TORCH_CHECK(dense, kOp, ": expected logits contiguous in the last dimension, got strides ",
                  spell(logits.strides()));
}

Rows rows_of(const Tensor& logits, const OptTensor& token_bitmask, const OptTensor& mask_ids,
             const char* kOp) {
  check_logits(logits, kOp);
  Rows r{.logits = in(logits),
         .row_stride = logits.size(0) > 1 ? logits.stride(0) : logits.size(1),
         .bitmask = nullptr,
         .mask_ids = nullptr,
         .num_rows = logits.size(0),
         .vocab_size = logits.size(1),
         .num_masks = 0,
         .mask_words = 0,
         .dtype = LMX_DTYPE(logits)};
  if (!token_bitmask) {
    STD_TORCH_CHECK(!mask_ids, kOp, ": expected token_bitmask where mask_ids is given, got None");
    return r;
  }
  const Tensor& mask = *token_bitmask;
  check_shape(mask, kOp, "token_bitmask", {mask_ids ? -1 : r.num_rows, -1},
              mask_ids ? "(num_masks, mask_words)" : "(num_rows, mask_words)");
  const int64_t needed = ceil_div<int64_t>(r.vocab_size, 32);
  STD_TORCH_CHECK(mask.size(1) <= needed, kOp, ": expected token_bitmask with at most ", needed,
                  " words a row for ", r.vocab_size, " tokens, got ", mask.size(1));
  check_dtype(mask, kOp, "token_bitmask", ScalarType::Int);
  check_contiguous(mask, kOp, "token_bitmask");
  check_device(mask, logits, kOp, "token_bitmask", "logits");
  r.bitmask = in<uint32_t>(mask);
  r.num_masks = mask.size(0);
  r.mask_words = mask.size(1);
  r.mask_ids = per_row<int32_t>(mask_ids, r.num_rows, ScalarType::Int, logits, kOp, "mask_ids");
  // An empty tensor has no address; a mask without words must not read as "no mask".
  static const uint32_t kNoWords = 0;
  if (!r.bitmask) r.bitmask = &kNoWords;
  return r;
}

// Workspaces must outlive the call of the kernel; on CUDA the stream's allocator keeps them until
// it is done. A CPU kernel keeps a row's total to itself.
struct BlockSpace {
  std::optional<Tensor> space;
  int64_t num_blocks, num_rows;
  BlockSpace(const Tensor& logits, bool wanted = true)
      : num_blocks(ceil_div<int64_t>(logits.size(1), kDrawBlock)), num_rows(logits.size(0)) {
    if (wanted) space = new_tensor(logits, {num_rows, num_blocks + 2}, ScalarType::Double);
  }
  Blocks get() const {
    if (!space) return {};
    double* row_total = fresh<double>(*space);
    float* row_top = reinterpret_cast<float*>(row_total + num_rows);
    float* top = row_top + num_rows;
    float* sum = top + num_rows * num_blocks;
    return {.top = top,
            .sum = sum,
            .num_blocks = num_blocks,
            .row_top = row_top,
            .row_total = row_total};
  }
};

struct CutTensors {
  std::optional<Tensor> logit, id;
  CutTensors(const Tensor& logits, const Shaping& shaping) {
    if (!may_truncate(shaping)) return;
    logit = new_tensor(logits, {logits.size(0)}, ScalarType::Float);
    id = new_tensor(logits, {logits.size(0)}, ScalarType::Int);
  }
  CutSpace get() const {
    if (!logit) return {};
    return {fresh<float>(*logit), fresh<int32_t>(*id)};
  }
};

Shaping shaping_of(const Tensor& logits, const OptTensor& temperature, const OptTensor& top_k,
                   const OptTensor& top_p, const OptTensor& min_p, const char* kOp) {
  const int64_t n = logits.size(0);
  return {
      .temperature = per_row<float>(temperature, n, ScalarType::Float, logits, kOp, "temperature"),
      .top_k = per_row<int32_t>(top_k, n, ScalarType::Int, logits, kOp, "top_k"),
      .top_p = per_row<float>(top_p, n, ScalarType::Float, logits, kOp, "top_p"),
      .min_p = per_row<float>(min_p, n, ScalarType::Float, logits, kOp, "min_p")};
}

Tensor vocab_argmax(const Tensor& logits, const OptTensor& token_bitmask, const OptTensor& mask_ids,
                    const OptTensor& status) {
  constexpr auto kOp = "lmx::vocab_argmax";
  const Rows rows = rows_of(logits, token_bitmask, mask_ids, kOp);
  const Call call(logits);
  const int64_t num_parts = argmax_parts(rows.vocab_size);
  Tensor token = new_tensor(logits, {rows.num_rows}, ScalarType::Long);
  Tensor top = new_tensor(logits, {rows.num_rows, num_parts}, ScalarType::Float);
  Tensor id = new_tensor(logits, {rows.num_rows, num_parts}, ScalarType::Int);
  call.run(LMX_KERNEL(argmax),
           ArgmaxParams{.rows = rows,
                        .token = fresh<int64_t>(token),
                        .part_top = fresh<float>(top),
                        .part_id = fresh<int32_t>(id),
                        .num_parts = num_parts,
                        .status = status_of(status, rows.num_rows, logits, kOp)});
  return token;
}

Tensor vocab_softmax(const Tensor& logits, const OptTensor& token_bitmask,
                     const OptTensor& mask_ids, const OptTensor& temperature,
                     const OptTensor& top_k, const OptTensor& top_p, const OptTensor& min_p,
                     const OptTensor& status) {
  constexpr auto kOp = "lmx::vocab_softmax";
  const Rows rows = rows_of(logits, token_bitmask, mask_ids, kOp);
  const Shaping shaping = shaping_of(logits, temperature, top_k, top_p, min_p, kOp);
  const Call call(logits);
  Tensor probs = new_tensor(logits, {rows.num_rows, rows.vocab_size}, ScalarType::Float);
  const BlockSpace blocks(logits);
  const CutTensors cut(logits, shaping);
  call.run(LMX_KERNEL(softmax),
           SoftmaxParams{.rows = rows,
                         .shaping = shaping,
                         .probs = fresh<float>(probs),
                         .blocks = blocks.get(),
                         .cut = cut.get(),
                         .status = status_of(status, rows.num_rows, logits, kOp)});
  return probs;
}

std::tuple<Tensor, Tensor> vocab_lse(const Tensor& logits, const OptTensor& token_bitmask,
                                     const OptTensor& mask_ids, const OptTensor& temperature,
                                     const OptTensor& status) {
  constexpr auto kOp = "lmx::vocab_lse";
  const Rows rows = rows_of(logits, token_bitmask, mask_ids, kOp);
  const Call call(logits);
  Tensor lse_all = new_tensor(logits, {rows.num_rows}, ScalarType::Float);
  Tensor lse_masked = new_tensor(logits, {rows.num_rows}, ScalarType::Float);
  const BlockSpace masked(logits), all(logits, rows.bitmask != nullptr);
  call.run(LMX_KERNEL(lse),
           LseParams{.rows = rows,
                     .shaping = shaping_of(logits, temperature, kNone, kNone, kNone, kOp),
                     .lse_all = fresh<float>(lse_all),
                     .lse_masked = fresh<float>(lse_masked),
                     .masked = masked.get(),
                     .all = all.get(),
                     .status = status_of(status, rows.num_rows, logits, kOp)});
  return {lse_all, lse_masked};
}

Tensor vocab_logprobs(const Tensor& logits, const Tensor& targets, const OptTensor& status) {
  constexpr auto kOp = "lmx::vocab_logprobs";
  const Rows rows = rows_of(logits, kNone, kNone, kOp);
  const int64_t* ids =
      per_row<int64_t>(targets, rows.num_rows, ScalarType::Long, logits, kOp, "targets");
  const Call call(logits);
  Tensor logprob = new_tensor(logits, {rows.num_rows}, ScalarType::Float);
  const BlockSpace blocks(logits);
  call.run(LMX_KERNEL(logprobs),
           LogprobsParams{.rows = rows,
                          .targets = ids,
                          .logprob = fresh<float>(logprob),
                          .blocks = blocks.get(),
                          .status = status_of(status, rows.num_rows, logits, kOp)});
  return logprob;
}

std::tuple<Tensor, Tensor> vocab_sample(const Tensor& logits, const Tensor& uniforms,
                                        const OptTensor& token_bitmask, const OptTensor& mask_ids,
                                        const OptTensor& temperature, const OptTensor& top_k,
                                        const OptTensor& top_p, const OptTensor& min_p,
                                        const OptTensor& status) {
  constexpr auto kOp = "lmx::vocab_sample";
  const Rows rows = rows_of(logits, token_bitmask, mask_ids, kOp);
  const Shaping shaping = shaping_of(logits, temperature, top_k, top_p, min_p, kOp);
  const float* u =
      per_row<float>(uniforms, rows.num_rows, ScalarType::Float, logits, kOp, "uniforms");
  const Call call(logits);
  Tensor token = new_tensor(logits, {rows.num_rows}, ScalarType::Long);
  Tensor logprob = new_tensor(logits, {rows.num_rows}, ScalarType::Float);
  const BlockSpace blocks(logits);
  const CutTensors cut(logits, shaping);
  call.run(LMX_KERNEL(sample),
           SampleParams{.rows = rows,
                        .shaping = shaping,
                        .uniforms = u,
                        .token = fresh<int64_t>(token),
                        .logprob = fresh<float>(logprob),
                        .blocks = blocks.get(),
                        .cut = cut.get(),
                        .status = status_of(status, rows.num_rows, logits, kOp)});
  return {token, logprob};
}

Tensor vocab_uniform(const Tensor& seeds, const Tensor& positions, int64_t purpose,
                     const OptTensor& indices, const OptTensor& hi) {
  constexpr auto kOp = "lmx::vocab_uniform";
  LMX_CHECK_SHAPE(seeds, -1);
  LMX_CHECK_DTYPE(seeds, Long);
  LMX_CHECK_CONTIGUOUS(seeds);
  STD_TORCH_CHECK(purpose >= 0 && purpose < 256, kOp, ": expected purpose in [0, 256), got ",
                  purpose);
  const int64_t n = seeds.size(0);
  const auto numbers = [&](const OptTensor& t, const char* name) {
    if (!t) return static_cast<const int64_t*>(nullptr);
    check_shape(*t, kOp, name, {n}, "(n)");
    check_dtype(*t, kOp, name, ScalarType::Long);
    check_contiguous(*t, kOp, name);
    check_device(*t, seeds, kOp, name, "seeds");
    return in<int64_t>(*t);
  };
  const Call call(seeds);
  Tensor uniform = new_tensor(seeds, {n}, ScalarType::Float);
  call.run(LMX_KERNEL(uniform), UniformParams{.seeds = in<int64_t>(seeds),
                                              .positions = numbers(positions, "positions"),
                                              .indices = numbers(indices, "indices"),
                                              .hi = numbers(hi, "hi"),
                                              .uniform = fresh<float>(uniform),
                                              .n = n,
                                              .purpose = static_cast<uint32_t>(purpose)});
  return uniform;
}

void vocab_mask_apply_(const Tensor& logits, const Tensor& token_bitmask, const OptTensor& mask_ids,
                       const OptTensor& status) {
  constexpr auto kOp = "lmx::vocab_mask_apply_";
  const Rows rows = rows_of(logits, token_bitmask, mask_ids, kOp);
  STD_TORCH_CHECK(rows.num_rows <= 1 || rows.row_stride >= rows.vocab_size, kOp,
                  ": expected logits whose rows do not overlap, got sizes ", spell(logits.sizes()),
                  " and strides ", spell(logits.strides()));
  out(logits);
  const Call call(logits);
  call.run(LMX_KERNEL(mask_apply),
           MaskApplyParams{.rows = rows, .status = status_of(status, rows.num_rows, logits, kOp)});
}

void check_words(const Tensor& token_bitmask, const char* kOp) {
  LMX_CHECK_SHAPE(token_bitmask, -1, -1);
  LMX_CHECK_DTYPE(token_bitmask, Int);
  LMX_CHECK_CONTIGUOUS(token_bitmask);
}

Tensor vocab_mask_from_bool(const Tensor& allowed) {
  constexpr auto kOp = "lmx::vocab_mask_from_bool";
  LMX_CHECK_SHAPE(allowed, -1, -1);
  LMX_CHECK_DTYPE(allowed, Bool);
  LMX_CHECK_CONTIGUOUS(allowed);
  const int64_t num_rows = allowed.size(0), vocab_size = allowed.size(1);
  const int64_t words = ceil_div<int64_t>(vocab_size, 32);
  const Call call(allowed);
  Tensor token_bitmask = new_tensor(allowed, {num_rows, words}, ScalarType::Int);
  call.run(LMX_KERNEL(mask_from_bool),
           MaskBoolParams{.allowed = const_cast<uint8_t*>(in<uint8_t>(allowed)),
                          .words = fresh<uint32_t>(token_bitmask),
                          .num_rows = num_rows,
                          .vocab_size = vocab_size,
                          .mask_words = words});
  return token_bitmask;
}

Tensor vocab_mask_to_bool(const Tensor& token_bitmask, int64_t vocab_size) {
  constexpr auto kOp = "lmx::vocab_mask_to_bool";
  check_words(token_bitmask, kOp);
  const int64_t num_rows = token_bitmask.size(0), words = token_bitmask.size(1);
  STD_TORCH_CHECK(vocab_size >= 0 && ceil_div<int64_t>(vocab_size, 32) == words, kOp,
                  ": expected vocab_size in (", 32 * (words - 1), ", ", 32 * words, "] for ", words,
                  " words a row, got ", vocab_size);
  const Call call(token_bitmask);
  Tensor allowed = new_tensor(token_bitmask, {num_rows, vocab_size}, ScalarType::Bool);
  call.run(LMX_KERNEL(mask_to_bool),
           MaskBoolParams{.allowed = fresh<uint8_t>(allowed),
                          .words = const_cast<uint32_t*>(in<uint32_t>(token_bitmask)),
                          .num_rows = num_rows,
                          .vocab_size = vocab_size,
                          .mask_words = words});
  return allowed;
}

void combine(const Tensor& token_bitmask, const Tensor& other, bool is_or, const char* kOp) {
  check_words(token_bitmask, kOp);
  LMX_CHECK_SHAPE(other, token_bitmask.size(0), token_bitmask.size(1));
  LMX_CHECK_DTYPE(other, Int);
  LMX_CHECK_CONTIGUOUS(other);
  LMX_CHECK_DEVICE(other, token_bitmask);
  const auto distance = static_cast<const char*>(other.data_ptr()) -
                        static_cast<const char*>(token_bitmask.data_ptr());
  const int64_t bytes = token_bitmask.numel() * 4;
  STD_TORCH_CHECK(distance == 0 || distance >= bytes || -distance >= bytes, kOp,
                  ": expected other to be token_bitmask or memory apart from it, got ", distance,
                  " bytes between them");
  const Call call(token_bitmask);
  call.run(LMX_KERNEL(mask_combine), MaskCombineParams{.words = out<uint32_t>(token_bitmask),
                                                       .other = in<uint32_t>(other),
                                                       .num_words = token_bitmask.numel(),
                                                       .is_or = is_or});
}
void vocab_mask_and_(const Tensor& token_bitmask, const Tensor& other) {
  combine(token_bitmask, other, false, "lmx::vocab_mask_and_");
}
void vocab_mask_or_(const Tensor& token_bitmask, const Tensor& other) {
  combine(token_bitmask, other, true, "lmx::vocab_mask_or_");
}

Tensor vocab_mask_popcount(const Tensor& token_bitmask, int64_t vocab_size) {
  constexpr auto kOp = "lmx::vocab_mask_popcount";
  check_words(token_bitmask, kOp);
  const int64_t num_rows = token_bitmask.size(0), words = token_bitmask.size(1);
  STD_TORCH_CHECK(vocab_size >= -1 && vocab_size <= 32 * words, kOp,
                  ": expected vocab_size in [-1, ", 32 * words, "], got ", vocab_size);
  const Call call(token_bitmask);
  Tensor count = new_tensor(token_bitmask, {num_rows}, ScalarType::Int);
  call.run(LMX_KERNEL(mask_popcount),
           MaskCountParams{.words = in<uint32_t>(token_bitmask),
                           .count = fresh<int32_t>(count),
                           .num_rows = num_rows,
                           .mask_words = words,
                           .vocab_size = vocab_size < 0 ? 32 * words : vocab_size});
  return count;
}

Tensor vocab_mask_gather(const Tensor& pool, const Tensor& mask_ids, int64_t vocab_size,
                         const OptTensor& status) {
  constexpr auto kOp = "lmx::vocab_mask_gather";
  check_words(pool, kOp);
  LMX_CHECK_SHAPE(mask_ids, -1);
  LMX_CHECK_DTYPE(mask_ids, Int);
  LMX_CHECK_CONTIGUOUS(mask_ids);
  LMX_CHECK_DEVICE(mask_ids, pool);
  const int64_t num_rows = mask_ids.size(0), words = pool.size(1);
  STD_TORCH_CHECK(vocab_size >= -1 && vocab_size <= 32 * words, kOp,
                  ": expected vocab_size in [-1, ", 32 * words, "], got ", vocab_size);
  const Call call(pool);
  Tensor token_bitmask = new_tensor(pool, {num_rows, words}, ScalarType::Int);
  call.run(LMX_KERNEL(mask_gather),
           MaskGatherParams{.pool = in<uint32_t>(pool),
                            .mask_ids = in<int32_t>(mask_ids),
                            .out = fresh<uint32_t>(token_bitmask),
                            .status = status_of(status, num_rows, pool, kOp),
                            .num_rows = num_rows,
                            .num_masks = pool.size(0),
                            .mask_words = words,
                            .vocab_size = vocab_size < 0 ? 32 * words : vocab_size});
  return token_bitmask;
}
}  // namespace

LMX_REGISTER(m) {
  LMX_IMPL(m, vocab_argmax);
  LMX_IMPL(m, vocab_softmax);
  LMX_IMPL(m, vocab_lse);
  LMX_IMPL(m, vocab_logprobs);
  LMX_IMPL(m, vocab_sample);
  m.impl("vocab_uniform", TORCH_BOX(&vocab_uniform));
  m.impl("vocab_mask_apply_", TORCH_BOX(&vocab_mask_apply_));
  m.impl("vocab_mask_from_bool", TORCH_BOX(&vocab_mask_from_bool));
  m.impl("vocab_mask_to_bool", TORCH_BOX(&vocab_mask_to_bool));
  m.impl("vocab_mask_and_", TORCH_BOX(&vocab_mask_and_));
  m.impl("vocab_mask_or_", TORCH_BOX(&vocab_mask_or_));
  m.impl("vocab_mask_popcount", TORCH_BOX(&vocab_mask_popcount));
  LMX_IMPL(m, vocab_mask_gather);
}
}  // namespace lmx::vocab
