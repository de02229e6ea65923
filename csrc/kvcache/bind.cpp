// csrc/kvcache/bind.cpp: the torch side of the room. Compiled once per backend, see
// common/backend.h.
#include <string>

#include "../common/backend.h"
#include "../common/overlap.h"
#include "append.h"
#include "pages.h"
#include "slots.h"

namespace lmx::kvcache {
namespace {
using OptTensor = std::optional<Tensor>;
using Shape = std::initializer_list<int64_t>;

// ---- checks -----------------------------------------------------------------------------
void check(const Tensor& t, const char* op, const char* name, Shape shape, const char* spelled,
           ScalarType type, const Tensor& like, const char* like_name) {
  check_shape(t, op, name, shape, spelled);
  check_dtype(t, op, name, type);
  check_contiguous(t, op, name);
  check_device(t, like, op, name, like_name);
}

// Dimensions [from, dim) lie without gaps; where they are empty there is nothing to lie.
bool packed_from(const Tensor& t, int64_t from) {
  int64_t stride = 1;
  for (int64_t d = t.dim(); d-- > from; stride *= t.size(d))
    if (t.size(d) != 1 && t.stride(d) != stride) return t.numel() == 0;
  return true;
}

// kv_pages of one layer, 5-D, or of all of them, 6-D.
Pool pool_of(const Tensor& kv_pages, const char* kOp, char* data) {
  const int64_t dim = kv_pages.dim();
  STD_TORCH_CHECK((dim == 5 || dim == 6) && kv_pages.size(dim - 4) == 2, kOp,
                  ": expected kv_pages of shape (num_pages, 2, heads_per_page, page_size, "
                  "head_dim), or with num_layers after num_pages, got ",
                  spell(kv_pages.sizes()));
  LMX_DTYPE(kv_pages);
  STD_TORCH_CHECK(packed_from(kv_pages, dim - 4), kOp,
                  ": expected kv_pages contiguous within a page of a layer, got sizes ",
                  spell(kv_pages.sizes()), " and strides ", spell(kv_pages.strides()));
  STD_TORCH_CHECK(kv_pages.size(dim - 2) > 0, kOp, ": expected page_size at least 1, got 0");
  const auto size = static_cast<int64_t>(kv_pages.element_size());
  return {.data = data,
          .num_pages = kv_pages.size(0),
          .page_stride = kv_pages.stride(0) * size,
          .layer_stride = dim == 6 ? kv_pages.stride(1) * size : 0,
          .heads_per_page = kv_pages.size(dim - 3),
          .page_size = kv_pages.size(dim - 2),
          .row_bytes = kv_pages.size(dim - 1) * size};
}

// key or value, [(num_layers,) num_tokens, num_heads, head_dim].
Tokens tokens_of(const Tensor& t, const Tensor& kv_pages, const char* kOp, const char* name,
                 char* data) {
  const int64_t dim = t.dim();
  STD_TORCH_CHECK(dim == 3 || dim == 4, kOp, ": expected ", name,
                  " of shape (num_tokens, num_heads, head_dim), or with num_layers before it, got ",
                  spell(t.sizes()));
  STD_TORCH_CHECK(t.scalar_type() == kv_pages.scalar_type(), kOp, ": expected ", name,
                  " of the dtype of kv_pages, ",
                  torch::headeronly::toString(kv_pages.scalar_type()), ", got ",
                  torch::headeronly::toString(t.scalar_type()));
  check_device(t, kv_pages, kOp, name, "kv_pages");
  STD_TORCH_CHECK(t.numel() == 0 || t.size(dim - 1) == 1 || t.stride(dim - 1) == 1, kOp,
                  ": expected ", name, " contiguous in the last dimension, got strides ",
                  spell(t.strides()));
  const int64_t head_dim = kv_pages.size(kv_pages.dim() - 1);
  STD_TORCH_CHECK(t.size(dim - 1) == head_dim, kOp, ": expected ", name, " with head_dim ",
                  head_dim, ", that of kv_pages, got ", t.size(dim - 1));
  const auto size = static_cast<int64_t>(t.element_size());
  return {.data = data,
          .layer_stride = dim == 4 ? t.stride(0) * size : 0,
          .token_stride = t.stride(dim - 3) * size,
          .head_stride = t.stride(dim - 2) * size};
}

Rows rows_of(const Tensor& key, const Tensor& value, const Tensor& kv_pages, const char* kOp,
             bool writes) {
  const auto data = [&](const Tensor& t) {
    return writes ? fresh<char>(t) : const_cast<char*>(in<char>(t));
  };
  Rows rows{.key = tokens_of(key, kv_pages, kOp, "key", data(key)),
            .value = tokens_of(value, kv_pages, kOp, "value", data(value)),
            .num_layers = key.dim() == 4 ? key.size(0) : 1,
            .num_tokens = key.size(key.dim() - 3),
            .num_heads = key.size(key.dim() - 2)};
  STD_TORCH_CHECK(spell(key.sizes()) == spell(value.sizes()), kOp,
                  ": expected value of the shape of key, ", spell(key.sizes()), ", got ",
                  spell(value.sizes()));
  return rows;
}

// Whether layers and heads of the call are those of the pool. `own_pages`: each head has its own.
void check_axes(const Rows& rows, const Tensor& kv_pages, bool layers_share, bool own_pages,
                const char* kOp) {
  const bool whole = kv_pages.dim() == 6;
  const int64_t heads = kv_pages.size(kv_pages.dim() - 3);
  STD_TORCH_CHECK(heads == (own_pages ? 1 : rows.num_heads), kOp, ": expected kv_pages with ",
                  own_pages ? 1 : rows.num_heads, " heads per page, got ", heads);
  if (whole) {
    STD_TORCH_CHECK(rows.num_layers == kv_pages.size(1), kOp, ": expected key of ",
                    kv_pages.size(1), " layers, those of kv_pages, got ", rows.num_layers);
  } else {
    STD_TORCH_CHECK(rows.num_layers == 1 || !layers_share, kOp,
                    ": expected kv_pages with an axis num_layers where all layers of key share a "
                    "slot, got ",
                    spell(kv_pages.sizes()));
  }
}

int32_t* status_of(const OptTensor& status, int64_t count, const char* spelled, const Tensor& like,
                   const char* kOp) {
  if (status) check(*status, kOp, "status", {count}, spelled, ScalarType::Int, like, "kv_pages");
  return out<int32_t>(status);
}

// Where a check tells the mover what to leave out: without a status a CPU has thrown before.
OptTensor workspace(const Tensor& like, int64_t count, const OptTensor& status) {
  if (!kOnDevice && !status) return {};
  return new_tensor(like, {count}, ScalarType::Int);
}
int32_t* workspace_of(const OptTensor& t) { return t ? fresh<int32_t>(*t) : nullptr; }

// ---- kv_append --------------------------------------------------------------------------
struct Meta {
  const OptTensor &slots, &pos, &score, &meta_pos, &meta_score;
};

void fill_meta(AppendParams& p, const Meta& meta, const Tensor& slot_mapping,
               const Tensor& kv_pages, const char* kOp) {
  const bool has_pos = meta.pos && meta.meta_pos, has_score = meta.score && meta.meta_score;
  STD_TORCH_CHECK(meta.pos.has_value() == meta.meta_pos.has_value() &&
                      meta.score.has_value() == meta.meta_score.has_value(),
                  kOp, ": expected pos with meta_pos, and score with meta_score");
  STD_TORCH_CHECK(meta.slots.has_value() == (has_pos || has_score), kOp,
                  ": expected meta_slots with pos or score, and not without them");
  if (!meta.slots) return;
  const auto like_slots = [&](const Tensor& t, const char* name, ScalarType type) {
    STD_TORCH_CHECK(spell(t.sizes()) == spell(slot_mapping.sizes()), kOp, ": expected ", name,
                    " of the shape of slot_mapping, ", spell(slot_mapping.sizes()), ", got ",
                    spell(t.sizes()));
    check_dtype(t, kOp, name, type);
    check_contiguous(t, kOp, name);
    check_device(t, kv_pages, kOp, name, "kv_pages");
  };
  like_slots(*meta.slots, "meta_slots", ScalarType::Long);
  p.meta_slots = in<int64_t>(*meta.slots);
  const Tensor& pages = has_pos ? *meta.meta_pos : *meta.meta_score;
  p.num_meta_pages = pages.size(0), p.meta_page_size = pages.dim() > 1 ? pages.size(1) : 0;
  const Shape shape = {p.num_meta_pages, p.meta_page_size};
  if (has_pos) {
    check(*meta.pos, kOp, "pos", {p.rows.num_tokens}, "(num_tokens)", ScalarType::Int, kv_pages,
          "kv_pages");
    check(*meta.meta_pos, kOp, "meta_pos", shape, "(num_meta_pages, page_size)", ScalarType::Int,
          kv_pages, "kv_pages");
    p.pos = in<int32_t>(*meta.pos), p.meta_pos = out<int32_t>(*meta.meta_pos);
  }
  if (has_score) {
    like_slots(*meta.score, "score", ScalarType::Float);
    check(*meta.meta_score, kOp, "meta_score", shape, "(num_meta_pages, page_size)",
          ScalarType::Float, kv_pages, "kv_pages");
    p.score = in<float>(*meta.score), p.meta_score = out<float>(*meta.meta_score);
  }
}

// The map's axes: num_layers if it has one, num_tokens, num_heads if it has one.
void fill_map(AppendParams& p, const Tensor& slot_mapping, const Tensor& kv_pages, bool one_layer,
              const char* kOp) {
  const int64_t dim = slot_mapping.dim();
  const bool per_layer = !one_layer && dim >= 2, per_head = dim == (one_layer ? 2 : 3);
  p.map_layers = per_layer ? p.rows.num_layers : 1;
  p.map_heads = per_head ? p.rows.num_heads : 1;
  const int64_t tokens = p.rows.num_tokens, layers = p.rows.num_layers, heads = p.rows.num_heads;
  bool fits = dim >= 1 && dim <= (one_layer ? 2 : 3);
  for (int64_t d = 0; fits && d < dim; ++d) {
    const int64_t axis = d + (per_layer ? 0 : 1);
    fits = slot_mapping.size(d) == (axis == 0 ? layers : axis == 1 ? tokens : heads);
  }
  STD_TORCH_CHECK(fits, kOp, ": expected slot_mapping of shape (num_tokens)",
                  one_layer ? " or (num_tokens, num_heads)"
                            : ", (num_layers, num_tokens) or (num_layers, num_tokens, num_heads)",
                  " with num_layers = ", layers, ", num_tokens = ", tokens, ", num_heads = ", heads,
                  ", got ", spell(slot_mapping.sizes()));
  check_dtype(slot_mapping, kOp, "slot_mapping", ScalarType::Long);
  check_contiguous(slot_mapping, kOp, "slot_mapping");
  check_device(slot_mapping, kv_pages, kOp, "slot_mapping", "kv_pages");
  STD_TORCH_CHECK(one_layer || per_layer == (kv_pages.dim() == 5), kOp,
                  ": expected slot_mapping with an axis num_layers where kv_pages has none, and "
                  "without one where it has, got ",
                  spell(slot_mapping.sizes()), " and ", spell(kv_pages.sizes()));
  check_axes(p.rows, kv_pages, !per_layer, per_head, kOp);
  p.slots = in<int64_t>(slot_mapping);
}

void kv_append(const Tensor& key, const Tensor& value, const Tensor& slot_mapping, Tensor kv_pages,
               const OptTensor& scale, const OptTensor& meta_slots, const OptTensor& pos,
               const OptTensor& score, const OptTensor& meta_pos, const OptTensor& meta_score,
               const OptTensor& status) {
  constexpr auto kOp = "lmx::kv_append";
  STD_TORCH_CHECK(!scale, kOp,
                  ": expected scale to be None: pools with quantised pages are not built yet");
  AppendParams p{};
  p.pool = pool_of(kv_pages, kOp, out<char>(kv_pages));
  p.rows = rows_of(key, value, kv_pages, kOp, false);
  fill_map(p, slot_mapping, kv_pages, key.dim() == 3, kOp);
  fill_meta(p, {meta_slots, pos, score, meta_pos, meta_score}, slot_mapping, kv_pages, kOp);
  STD_TORCH_CHECK(!overlap(kv_pages, key) && !overlap(kv_pages, value), kOp,
                  ": expected key and value without memory of kv_pages");
  p.status = status_of(status, p.rows.num_tokens, "(num_tokens)", kv_pages, kOp);
  const Call call(kv_pages);
  const OptTensor bad = workspace(kv_pages, p.rows.num_tokens, status);
  p.bad = workspace_of(bad);
  call.run(LMX_KERNEL(append), p);
}

// ---- kv_gather_slots, kv_scatter_slots ----------------------------------------------------
void fill_slots(SlotsParams& p, const Tensor& kv_pages, const Tensor& block_table,
                const Tensor& num_slots, const Tensor& slots, const char* kOp) {
  check(block_table, kOp, "block_table", {-1, -1, -1}, "(num_seqs, num_rows, max_pages)",
        ScalarType::Int, kv_pages, "kv_pages");
  p.num_seqs = block_table.size(0), p.table_rows = block_table.size(1);
  p.max_pages = block_table.size(2);
  check(num_slots, kOp, "num_slots", {p.num_seqs, p.table_rows}, "(num_seqs, num_rows)",
        ScalarType::Int, kv_pages, "kv_pages");
  check(slots, kOp, "slots", {p.num_seqs, p.table_rows, -1}, "(num_seqs, num_rows, n)",
        ScalarType::Int, kv_pages, "kv_pages");
  p.per_seq = slots.size(2);
  STD_TORCH_CHECK(p.table_rows >= 1, kOp, ": expected block_table with at least one row, got 0");
  p.block_table = in<int32_t>(block_table);
  p.num_slots = in<int32_t>(num_slots);
  p.slots = in<int32_t>(slots);
}

void run_slots(SlotsParams& p, const Tensor& kv_pages, const OptTensor& status, const char* kOp) {
  const bool own_pages = p.table_rows > 1;
  STD_TORCH_CHECK(!own_pages || p.table_rows == p.rows.num_heads, kOp,
                  ": expected block_table with 1 row a sequence, or one for each of ",
                  p.rows.num_heads, " heads, got ", p.table_rows);
  check_axes(p.rows, kv_pages, true, own_pages, kOp);
  p.status = status_of(status, p.num_seqs, "(num_seqs)", kv_pages, kOp);
  const Call call(kv_pages);
  const OptTensor bad = workspace(kv_pages, p.num_seqs, status);
  p.bad = workspace_of(bad);
  call.run(LMX_KERNEL(slots), p);
}

std::tuple<Tensor, Tensor> kv_gather_slots(const Tensor& kv_pages, const Tensor& block_table,
                                           const Tensor& num_slots, const Tensor& slots,
                                           const OptTensor& status) {
  constexpr auto kOp = "lmx::kv_gather_slots";
  SlotsParams p{};
  p.gather = true;
  p.pool = pool_of(kv_pages, kOp, const_cast<char*>(in<char>(kv_pages)));
  fill_slots(p, kv_pages, block_table, num_slots, slots, kOp);
  const int64_t dim = kv_pages.dim(), tokens = p.num_seqs * p.per_seq;
  const int64_t heads = p.table_rows > 1 ? p.table_rows : kv_pages.size(dim - 3);
  const auto make = [&] {
    const int64_t head_dim = kv_pages.size(dim - 1);
    const ScalarType type = kv_pages.scalar_type();
    return dim == 6 ? new_tensor(kv_pages, {kv_pages.size(1), tokens, heads, head_dim}, type)
                    : new_tensor(kv_pages, {tokens, heads, head_dim}, type);
  };
  Tensor key = make(), value = make();
  p.rows = rows_of(key, value, kv_pages, kOp, true);
  run_slots(p, kv_pages, status, kOp);
  return {key, value};
}

void kv_scatter_slots(const Tensor& key, const Tensor& value, const Tensor& block_table,
                      const Tensor& num_slots, const Tensor& slots, Tensor kv_pages,
                      const OptTensor& status) {
  constexpr auto kOp = "lmx::kv_scatter_slots";
  SlotsParams p{};
  p.pool = pool_of(kv_pages, kOp, out<char>(kv_pages));
  fill_slots(p, kv_pages, block_table, num_slots, slots, kOp);
  p.rows = rows_of(key, value, kv_pages, kOp, false);
  STD_TORCH_CHECK(p.rows.num_tokens == p.num_seqs * p.per_seq, kOp, ": expected key of ",
                  p.num_seqs * p.per_seq, " tokens, one for each slot, got ", p.rows.num_tokens);
  STD_TORCH_CHECK(!overlap(kv_pages, key) && !overlap(kv_pages, value), kOp,
                  ": expected key and value without memory of kv_pages");
  run_slots(p, kv_pages, status, kOp);
}

// ---- kv_copy_pages, kv_swap_pages ---------------------------------------------------------
// The bytes of a page; pages are contiguous, whatever lies between them.
int64_t page_bytes(const Tensor& pages, const char* kOp, const char* name) {
  STD_TORCH_CHECK(pages.dim() >= 1, kOp, ": expected ", name, " with at least one dimension");
  STD_TORCH_CHECK(packed_from(pages, 1), kOp, ": expected ", name,
                  " contiguous within a page, got sizes ", spell(pages.sizes()), " and strides ",
                  spell(pages.strides()));
  auto bytes = static_cast<int64_t>(pages.element_size());
  for (int64_t d = 1; d < pages.dim(); ++d) bytes *= pages.size(d);
  return bytes;
}
int64_t page_stride(const Tensor& pages) {
  return pages.stride(0) * static_cast<int64_t>(pages.element_size());
}

void kv_copy_pages(const Tensor& src, const Tensor& dst, Tensor kv_pages, const OptTensor& status) {
  constexpr auto kOp = "lmx::kv_copy_pages";
  const int64_t bytes = page_bytes(kv_pages, kOp, "kv_pages");
  check(src, kOp, "src", {-1}, "(n)", ScalarType::Int, kv_pages, "kv_pages");
  check(dst, kOp, "dst", {src.size(0)}, "(n)", ScalarType::Int, kv_pages, "kv_pages");
  const Call call(kv_pages);
  char* data = out<char>(kv_pages);
  PagesParams p{};
  p.from = data, p.to = data;
  p.from_ids = in<int32_t>(src), p.to_ids = in<int32_t>(dst);
  p.count = src.size(0);
  p.from_stride = p.to_stride = page_stride(kv_pages);
  p.page_bytes = bytes, p.num_pages = kv_pages.size(0), p.op = kOp;
  p.status = status_of(status, p.count, "(n)", kv_pages, kOp);
  call.run(LMX_KERNEL(pages), p);
}

void kv_swap_pages(const Tensor& page_ids, Tensor kv_pages, Tensor host_pages,
                   const std::string& direction, const OptTensor& status) {
  constexpr auto kOp = "lmx::kv_swap_pages";
  STD_TORCH_CHECK(direction == "out" || direction == "in", kOp,
                  ": expected direction to be one of out, in, got ", direction);
  const bool is_out = direction == "out";
  const int64_t bytes = page_bytes(kv_pages, kOp, "kv_pages");
  check(page_ids, kOp, "page_ids", {-1}, "(n)", ScalarType::Int, kv_pages, "kv_pages");
  const int64_t count = page_ids.size(0);
  bool same = host_pages.dim() == kv_pages.dim() && host_pages.size(0) >= count;
  for (int64_t d = 1; same && d < kv_pages.dim(); ++d)
    same = host_pages.size(d) == kv_pages.size(d);
  STD_TORCH_CHECK(same && host_pages.scalar_type() == kv_pages.scalar_type(), kOp,
                  ": expected host_pages of at least ", count, " pages of the shape and dtype of ",
                  "those of kv_pages, ", spell(kv_pages.sizes()), " ",
                  torch::headeronly::toString(kv_pages.scalar_type()), ", got ",
                  spell(host_pages.sizes()), " ",
                  torch::headeronly::toString(host_pages.scalar_type()));
  STD_TORCH_CHECK(host_pages.is_cpu(), kOp, ": expected host_pages on the device cpu, got ",
                  spell_device(host_pages));
  page_bytes(host_pages, kOp, "host_pages");
  STD_TORCH_CHECK(!overlap(kv_pages, host_pages), kOp,
                  ": expected host_pages without memory of kv_pages");
  const Call call(kv_pages);
  PagesParams p{};
  const Tensor &from = is_out ? kv_pages : host_pages, &to = is_out ? host_pages : kv_pages;
  p.from = in<char>(from), p.to = out<char>(to);
  (is_out ? p.from_ids : p.to_ids) = in<int32_t>(page_ids);
  p.count = count;
  p.from_stride = page_stride(from), p.to_stride = page_stride(to);
  p.page_bytes = bytes, p.num_pages = kv_pages.size(0), p.op = kOp;
  p.from_host = !is_out, p.to_host = is_out;
  p.status = status_of(status, count, "(n)", kv_pages, kOp);
  call.run(LMX_KERNEL(pages), p);
}
}  // namespace

LMX_REGISTER(m) {
  m.impl("kv_append", TORCH_BOX(&kv_append));
  m.impl("kv_copy_pages", TORCH_BOX(&kv_copy_pages));
  m.impl("kv_swap_pages", TORCH_BOX(&kv_swap_pages));
  LMX_IMPL(m, kv_gather_slots);
  m.impl("kv_scatter_slots", TORCH_BOX(&kv_scatter_slots));
}
}  // namespace lmx::kvcache
