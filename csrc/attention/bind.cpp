// csrc/attention/bind.cpp: the torch side of the room. Compiled once per backend, see
// common/backend.h.
#include <cmath>

#include "../common/backend.h"
#include "arguments.h"
#include "merge.h"
#include "paged.h"
#include "rope.h"
#include "split.h"

namespace lmx::attention {
namespace {
// ---- paged ------------------------------------------------------------------------------------
struct PagedArguments {
  const Tensor &query, &key, &value, &cu_seqlens_q, &cu_seqlens_k;
  const OptTensor& ancestors;
  const Tensor &kv_pages, &block_table, &num_slots, &query_pos, &key_pos;
};

void take_rows(const PagedArguments& a, PagedParams& p, const char* kOp) {
  const Tensor &query = a.query, &key = a.key, &value = a.value;
  LMX_CHECK_SHAPE(query, -1, -1, -1);
  const int64_t num_q = query.size(0), num_heads = query.size(1), head_dim = query.size(2);
  STD_TORCH_CHECK(head_dim >= 8 && head_dim <= kMaxHeadDim && head_dim % 8 == 0, kOp,
                  ": expected head_dim a multiple of 8, at most ", kMaxHeadDim, ", got ", head_dim);
  LMX_CHECK_SHAPE(key, -1, -1, head_dim);
  const int64_t num_k = key.size(0), num_kv_heads = key.size(1);
  LMX_CHECK_SHAPE(value, num_k, num_kv_heads, head_dim);
  STD_TORCH_CHECK(num_heads >= 1 && num_kv_heads >= 1 && num_heads % num_kv_heads == 0, kOp,
                  ": expected query heads a multiple of key heads, got ", num_heads, " and ",
                  num_kv_heads);
  p.dtype = LMX_DTYPE(query);
  check_like(key, query, kOp, "key", "query");
  check_like(value, query, kOp, "value", "query");
  p.query = heads_in(query, kOp, "query");
  p.key = heads_in(key, kOp, "key");
  p.value = heads_in(value, kOp, "value");
  p.num_q = num_q, p.num_k = num_k;
  p.num_heads = static_cast<int>(num_heads);
  p.num_kv_heads = static_cast<int>(num_kv_heads);
  p.head_dim = static_cast<int>(head_dim);
  p.query_pos = vector_in(a.query_pos, num_q, query, kOp, "query_pos", "(num_q)");
  p.key_pos = vector_in(a.key_pos, num_k, query, kOp, "key_pos", "(num_k)");
}

void take_sequences(const PagedArguments& a, PagedParams& p, const char* kOp) {
  const Tensor& cu_seqlens_q = a.cu_seqlens_q;
  LMX_CHECK_SHAPE(cu_seqlens_q, -1);
  STD_TORCH_CHECK(cu_seqlens_q.size(0) >= 1, kOp,
                  ": expected cu_seqlens_q of shape (num_seqs + 1), got [0]");
  const int64_t num_seqs = cu_seqlens_q.size(0) - 1;
  p.num_seqs = num_seqs;
  p.cu_seqlens_q =
      vector_in(cu_seqlens_q, num_seqs + 1, a.query, kOp, "cu_seqlens_q", "(num_seqs + 1)");
  p.cu_seqlens_k =
      vector_in(a.cu_seqlens_k, num_seqs + 1, a.query, kOp, "cu_seqlens_k", "(num_seqs + 1)");
  if (a.ancestors) {
    check_shape(*a.ancestors, kOp, "ancestors", {p.num_q, -1}, "(num_q, ancestor_words)");
    check_int(*a.ancestors, a.query, kOp, "ancestors");
    check_contiguous(*a.ancestors, kOp, "ancestors");
    p.ancestors = present(in<uint32_t>(*a.ancestors));
    p.ancestor_words = a.ancestors->size(1);
  }
}

void take_pages(const PagedArguments& a, PagedParams& p, const char* kOp) {
  const Tensor &kv_pages = a.kv_pages, &block_table = a.block_table;
  STD_TORCH_CHECK(kv_pages.dim() == 5, kOp,
                  ": expected kv_pages of one layer, (num_pages, 2, num_kv_heads, page_size, "
                  "head_dim), got sizes ",
                  spell(kv_pages.sizes()));
  check_table(block_table, p, a.query, kOp, "block_table");
  const int64_t page_size = kv_pages.size(3);
  STD_TORCH_CHECK(is_page_size(page_size), kOp,
                  ": expected kv_pages with 8, 16, 32, 64 or 128 slots a page, got ", page_size);
  check_shape(kv_pages, kOp, "kv_pages", {-1, 2, p.num_kv_heads, page_size, p.head_dim},
              "(num_pages, 2, num_kv_heads, page_size, head_dim)");
  check_like(kv_pages, a.query, kOp, "kv_pages", "query");
  const bool dense = kv_pages.stride(4) == 1 && kv_pages.stride(3) == p.head_dim;
  STD_TORCH_CHECK(dense || kv_pages.numel() == 0, kOp,
                  ": expected kv_pages contiguous in the last two dimensions, got strides ",
                  spell(kv_pages.strides()));
  p.pages = in(kv_pages);
  p.page_stride = kv_pages.stride(0);
  p.value_offset = kv_pages.stride(1);
  p.page_head_stride = kv_pages.stride(2);
  p.num_pages = std::min<int64_t>(kv_pages.size(0), INT32_MAX);
  p.page_size = static_cast<int>(page_size);
  p.block_table = in<int32_t>(block_table);
  p.table_stride = block_table.stride(0);
  p.table_width = block_table.size(2);
  const Tensor& num_slots = a.num_slots;
  LMX_CHECK_SHAPE(num_slots, p.num_seqs, 1);
  check_int(num_slots, a.query, kOp, "num_slots");
  p.num_slots = in<int32_t>(num_slots);
  p.slots_stride = num_slots.stride(0);
}

void take_slot_positions(const OptTensor& slot_pos, const OptTensor& slot_pos_table, PagedParams& p,
                         const Tensor& query, const char* kOp) {
  STD_TORCH_CHECK(slot_pos.has_value() == slot_pos_table.has_value(), kOp,
                  ": expected slot_pos and slot_pos_table together, got ",
                  slot_pos ? "slot_pos" : "slot_pos_table", " alone");
  if (!slot_pos) return;
  check_shape(*slot_pos, kOp, "slot_pos", {-1, p.page_size}, "(num_pos_pages, page_size)");
  check_int(*slot_pos, query, kOp, "slot_pos");
  check_contiguous(*slot_pos, kOp, "slot_pos");
  check_table(*slot_pos_table, p, query, kOp, "slot_pos_table");
  STD_TORCH_CHECK(slot_pos_table->size(2) == p.table_width, kOp,
                  ": expected slot_pos_table of the shape of block_table, got ",
                  spell(slot_pos_table->sizes()));
  p.slot_pos = present(in<int32_t>(*slot_pos));
  p.slot_pos_table = in<int32_t>(*slot_pos_table);
  p.slot_pos_stride = slot_pos_table->stride(0);
  p.num_pos_pages = slot_pos->size(0);
}

void take_heads(const OptTensor& key_keep, const OptTensor& alibi_slopes, PagedParams& p,
                const Tensor& query, const char* kOp) {
  if (key_keep) {
    check_shape(*key_keep, kOp, "key_keep", {p.num_k, p.num_kv_heads}, "(num_k, num_kv_heads)");
    check_dtype(*key_keep, kOp, "key_keep", ScalarType::Bool);
    check_contiguous(*key_keep, kOp, "key_keep");
    check_device(*key_keep, query, kOp, "key_keep", "query");
    p.key_keep = present(in<bool>(*key_keep));
  }
  if (alibi_slopes) {
    check_shape(*alibi_slopes, kOp, "alibi_slopes", {p.num_heads}, "(num_heads)");
    check_dtype(*alibi_slopes, kOp, "alibi_slopes", ScalarType::Float);
    check_contiguous(*alibi_slopes, kOp, "alibi_slopes");
    check_device(*alibi_slopes, query, kOp, "alibi_slopes", "query");
    p.alibi_slopes = in<float>(*alibi_slopes);
  }
}

void take_numbers(double softmax_scale, double softcap, int64_t num_sinks, int64_t max_q,
                  int64_t max_slots, PagedParams& p, const char* kOp) {
  STD_TORCH_CHECK(std::isfinite(softmax_scale), kOp, ": expected a finite softmax_scale, got ",
                  softmax_scale);
  STD_TORCH_CHECK(std::isfinite(softcap) && softcap >= 0, kOp,
                  ": expected softcap of at least 0, got ", softcap);
  STD_TORCH_CHECK(num_sinks >= 0, kOp, ": expected num_sinks of at least 0, got ", num_sinks);
  STD_TORCH_CHECK(max_q >= 0 && max_slots >= 0, kOp,
                  ": expected max_q and max_slots of at least 0, got ", max_q, " and ", max_slots);
  p.softmax_scale = static_cast<float>(softmax_scale);
  p.softcap = static_cast<float>(softcap);
  p.num_sinks = num_sinks, p.max_q = max_q, p.max_slots = max_slots;
}

using FourTensors = std::tuple<Tensor, Tensor, Tensor, Tensor>;
FourTensors attention_paged(
    const Tensor& query, const Tensor& key, const Tensor& value, const Tensor& cu_seqlens_q,
    const Tensor& cu_seqlens_k, const OptTensor& ancestors, const Tensor& kv_pages,
    const Tensor& block_table, const Tensor& num_slots, const Tensor& query_pos,
    const Tensor& key_pos, double softmax_scale, bool causal, int64_t window, int64_t num_sinks,
    double softcap, const OptTensor& alibi_slopes, const OptTensor& slot_pos,
    const OptTensor& slot_pos_table, const OptTensor& kv_scale, const OptTensor& key_keep,
    const std::string& part, const std::string& key_store, const std::string& positions,
    int64_t clamp, const OptTensor& cos, const OptTensor& sin, const OptTensor& slot_rank,
    const OptTensor& query_rank, const std::string& transform, int64_t transform_power,
    const OptTensor& transform_n, const OptTensor& row_weight, const OptTensor& lse_in,
    int64_t max_q, int64_t max_slots, const OptTensor& status) {
  constexpr auto kOp = "lmx::attention_paged";
  refuse({.kv_scale = kv_scale,
          .cos = cos,
          .sin = sin,
          .slot_rank = slot_rank,
          .query_rank = query_rank,
          .transform_n = transform_n,
          .row_weight = row_weight,
          .lse_in = lse_in,
          .key_store = key_store,
          .positions = positions,
          .transform = transform,
          .transform_power = transform_power,
          .clamp = clamp},
         kOp);
  const PagedArguments a{query,    key,         value,     cu_seqlens_q, cu_seqlens_k, ancestors,
                         kv_pages, block_table, num_slots, query_pos,    key_pos};
  PagedParams p{};
  take_rows(a, p, kOp);
  take_sequences(a, p, kOp);
  take_pages(a, p, kOp);
  take_slot_positions(slot_pos, slot_pos_table, p, query, kOp);
  take_heads(key_keep, alibi_slopes, p, query, kOp);
  take_numbers(softmax_scale, softcap, num_sinks, max_q, max_slots, p, kOp);
  p.causal = causal, p.window = window;
  p.part = part_of(part, kOp);
  p.status = status_of(status, p.num_seqs, "(num_seqs)", query, kOp);
  const Call call(query);
  Tensor out = new_tensor(query, {p.num_q, p.num_heads, p.head_dim}, query.scalar_type());
  Tensor lse = new_tensor(query, {p.num_q, p.num_heads}, ScalarType::Float);
  p.out = fresh<char>(out);
  p.lse = fresh<float>(lse);
  const Tensor space = new_tensor(query, {kOnDevice ? space_floats(p) : 0}, ScalarType::Float);
  p.space = fresh<float>(space);
  call.run(LMX_KERNEL(paged), p);
  return {out, lse, new_tensor(query, {0}, ScalarType::Float),
          new_tensor(query, {0}, ScalarType::Float)};
}

// ---- rope -------------------------------------------------------------------------------------
std::tuple<Tensor, Tensor> attention_rope(const Tensor& query, const Tensor& key, const Tensor& cos,
                                          const Tensor& sin, const Tensor& positions,
                                          bool interleaved, const OptTensor& status) {
  constexpr auto kOp = "lmx::attention_rope";
  LMX_CHECK_SHAPE(query, -1, -1, -1);
  const int64_t num_rows = query.size(0), head_dim = query.size(2);
  LMX_CHECK_SHAPE(key, num_rows, -1, head_dim);
  check_like(key, query, kOp, "key", "query");
  LMX_CHECK_SHAPE(cos, -1, -1);
  const int64_t num_positions = cos.size(0), half = cos.size(1);
  STD_TORCH_CHECK(2 * half <= head_dim, kOp,
                  ": expected cos of at most head_dim / 2 = ", head_dim / 2, " columns, got ",
                  half);
  LMX_CHECK_SHAPE(sin, num_positions, half);
  for (const Tensor* t : {&cos, &sin}) {
    const char* name = t == &cos ? "cos" : "sin";
    check_dtype(*t, kOp, name, ScalarType::Float);
    check_contiguous(*t, kOp, name);
    check_device(*t, query, kOp, name, "query");
  }
  const Heads q = heads_in(query, kOp, "query"), k = heads_in(key, kOp, "key");
  const int32_t* at = vector_in(positions, num_rows, query, kOp, "positions", "(num_rows)");
  int32_t* bits = status_of(status, num_rows, "(num_rows)", query, kOp);
  const Call call(query);
  Tensor out_q = new_tensor(query, {num_rows, query.size(1), head_dim}, query.scalar_type());
  Tensor out_k = new_tensor(query, {num_rows, key.size(1), head_dim}, query.scalar_type());
  call.run(LMX_KERNEL(rope),
           RopeParams{.query = {q.data, q.row_stride, q.head_stride, fresh<char>(out_q),
                                static_cast<int>(query.size(1))},
                      .key = {k.data, k.row_stride, k.head_stride, fresh<char>(out_k),
                              static_cast<int>(key.size(1))},
                      .cos = in<float>(cos),
                      .sin = in<float>(sin),
                      .positions = at,
                      .num_rows = num_rows,
                      .num_positions = num_positions,
                      .head_dim = static_cast<int>(head_dim),
                      .rotary_dim = static_cast<int>(2 * half),
                      .interleaved = interleaved,
                      .dtype = LMX_DTYPE(query),
                      .status = bits});
  return {out_q, out_k};
}

// ---- merge ------------------------------------------------------------------------------------
std::tuple<Tensor, Tensor> attention_merge(const Tensor& out_a, const Tensor& lse_a,
                                           const Tensor& out_b, const Tensor& lse_b) {
  constexpr auto kOp = "lmx::attention_merge";
  LMX_CHECK_SHAPE(out_a, -1, -1, -1);
  const int64_t num_tokens = out_a.size(0), num_heads = out_a.size(1), head_dim = out_a.size(2);
  LMX_CHECK_SHAPE(out_b, num_tokens, num_heads, head_dim);
  check_like(out_b, out_a, kOp, "out_b", "out_a");
  LMX_CHECK_CONTIGUOUS(out_a);
  LMX_CHECK_CONTIGUOUS(out_b);
  for (const Tensor* t : {&lse_a, &lse_b}) {
    const char* name = t == &lse_a ? "lse_a" : "lse_b";
    check_shape(*t, kOp, name, {num_tokens, num_heads}, "(num_tokens, num_heads)");
    check_dtype(*t, kOp, name, ScalarType::Float);
    check_contiguous(*t, kOp, name);
    check_device(*t, out_a, kOp, name, "out_a");
  }
  const DType dtype = LMX_DTYPE(out_a);
  const Call call(out_a);
  Tensor out = new_tensor(out_a, {num_tokens, num_heads, head_dim}, out_a.scalar_type());
  Tensor lse = new_tensor(out_a, {num_tokens, num_heads}, ScalarType::Float);
  call.run(LMX_KERNEL(merge), MergeParams{.out_a = in(out_a),
                                          .out_b = in(out_b),
                                          .lse_a = in<float>(lse_a),
                                          .lse_b = in<float>(lse_b),
                                          .out = fresh<char>(out),
                                          .lse = fresh<float>(lse),
                                          .num_rows = num_tokens * num_heads,
                                          .head_dim = head_dim,
                                          .dtype = dtype});
  return {out, lse};
}
}  // namespace

LMX_REGISTER(m) {
  LMX_IMPL(m, attention_paged);
  LMX_IMPL(m, attention_rope);
  m.impl("attention_merge", TORCH_BOX(&attention_merge));
}
}  // namespace lmx::attention
