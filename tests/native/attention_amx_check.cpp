// The AMX level of attention_paged against its definition in double, on software tiles
// (amx_emulation.h) or, compiled for the level itself, on a machine that has them. Prints how much
// was checked, or what is wrong.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "attention/paged.h"
#include "common/convert.h"
#include "common/parallel.h"

namespace lmx {
void parallel_for_impl(int64_t begin, int64_t end, int64_t, void (*body)(int64_t, int64_t, void*),
                       void* context) {
  if (begin < end) body(begin, end, context);
}
}  // namespace lmx

namespace lmx::attention {
namespace {
std::mt19937 generator(1);
int64_t num_checks = 0;

void expect(bool ok, const std::string& what) {
  ++num_checks;
  if (ok) return;
  std::printf("wrong: %s\n", what.c_str());
  std::exit(1);
}
int below(int n) { return static_cast<int>(generator() % static_cast<unsigned>(n)); }
std::vector<Bf16> normal(int64_t count) {
  std::normal_distribution<float> law;
  std::vector<Bf16> x(count);
  for (Bf16& v : x) v = from_float<Bf16>(law(generator));
  return x;
}

// One sequence; pages in any order, NaN where nothing is.
struct Case {
  int num_q, num_k, num_slots, heads, kv_heads, dim;
  bool tree, dead;
  static constexpr int kPageSize = 16;
  std::vector<Bf16> query{}, key{}, value{}, pages{}, out{};
  std::vector<float> lse{};
  std::vector<int32_t> table{}, pos{}, slot_pos{}, pos_table{}, ends_q{}, ends_k{};
  std::vector<uint32_t> bits{};
  int32_t slots = 0;
  PagedParams p{};

  void fill() {
    query = normal(int64_t{num_q} * heads * dim);
    key = normal(int64_t{num_k} * kv_heads * dim), value = normal(int64_t{num_k} * kv_heads * dim);
    const int entries = (num_slots + kPageSize - 1) / kPageSize;
    const int64_t block = int64_t{kPageSize} * dim, page = 2 * kv_heads * block;
    pages.assign((entries + 1) * page, Bf16{0x7fc0});
    for (int i = 0; i < entries; ++i) table.push_back(i + 1);
    std::shuffle(table.begin(), table.end(), generator);
    slot_pos.assign((entries + 1) * kPageSize, -1);
    for (int s = 0; s < num_slots; ++s) {
      const bool gone = dead && below(3) == 0;
      slot_pos[(1 + s / kPageSize) * kPageSize + s % kPageSize] = gone ? -1 : s;
      for (int h = 0; h < 2 * kv_heads && !gone; ++h) {
        const auto row = normal(dim);
        std::copy(row.begin(), row.end(),
                  pages.begin() + table[s / kPageSize] * page + h * block + s % kPageSize * dim);
      }
    }
    for (int i = 0; i < entries; ++i) pos_table.push_back(i + 1);
    slots = num_slots, ends_q = {0, num_q}, ends_k = {0, num_k};
    const int words = (num_k + 31) / 32;
    bits.assign(num_k * words, 0);
    for (int i = 0; i < num_k; ++i) {
      const int parent = i ? below(i) : 0;
      for (int w = 0; w < words && i; ++w) bits[i * words + w] = bits[parent * words + w];
      bits[i * words + i / 32] |= 1u << i % 32;
      pos.push_back(num_slots + i);
    }
    out.resize(query.size()), lse.resize(num_q * heads);
    p.query = {query.data(), int64_t{heads} * dim, dim};
    p.key = {key.data(), int64_t{kv_heads} * dim, dim};
    p.value = {value.data(), int64_t{kv_heads} * dim, dim};
    p.cu_seqlens_q = ends_q.data(), p.cu_seqlens_k = ends_k.data();
    if (tree) p.ancestors = bits.data(), p.ancestor_words = words;
    p.pages = pages.data(), p.page_stride = page, p.page_head_stride = block;
    p.value_offset = kv_heads * block, p.num_pages = entries + 1, p.page_size = kPageSize;
    p.block_table = table.data(), p.table_stride = p.table_width = entries;
    p.num_slots = &slots, p.slots_stride = 1;
    p.query_pos = pos.data() + num_k - num_q, p.key_pos = pos.data();
    if (dead) {
      p.slot_pos = slot_pos.data(), p.slot_pos_table = pos_table.data();
      p.slot_pos_stride = entries, p.num_pos_pages = entries + 1;
    }
    p.softmax_scale = 1.f / std::sqrt(static_cast<float>(dim));
    p.causal = true, p.window = -1, p.num_seqs = 1, p.num_q = num_q, p.num_k = num_k;
    p.num_heads = heads, p.num_kv_heads = kv_heads, p.head_dim = dim, p.dtype = DType::bf16;
    p.max_q = num_q, p.max_slots = num_slots, p.out = out.data(), p.lse = lse.data();
  }

  const Bf16* row(const Heads& fresh, int kind, int e, int h) const {
    if (e >= num_slots)
      return static_cast<const Bf16*>(fresh.data) + (e - num_slots) * fresh.row_stride + h * dim;
    return pages.data() + table[e / kPageSize] * p.page_stride + kind * p.value_offset +
           h * p.page_head_stride + e % kPageSize * dim;
  }
  bool sees(const Sequence& s, int i, int e) const {
    if (e >= num_slots) return sees_fresh(p, s, i, e - num_slots);
    return slot_position(p, 0, e) >= 0;
  }

  // One row and head against its definition.
  void check(int i, int h) const {
    const Sequence s = sequence_of(p, 0);
    const int kv = h / (heads / kv_heads);
    const Bf16* q = query.data() + (int64_t{i} * heads + h) * dim;
    std::vector<double> sum(dim), size(dim);
    double weights = 0;
    for (int e = 0; e < num_slots + num_k; ++e) {
      if (!sees(s, i, e)) continue;
      const Bf16 *k = row(p.key, 0, e, kv), *v = row(p.value, 1, e, kv);
      double x = 0;
      for (int d = 0; d < dim; ++d) x += double{to_float(q[d])} * to_float(k[d]);
      const double w = std::exp(x * p.softmax_scale);
      weights += w;
      for (int d = 0; d < dim; ++d) {
        sum[d] += w * to_float(v[d]);
        size[d] += w * std::fabs(to_float(v[d]));
      }
    }
    const std::string where = "row " + std::to_string(i) + " of head " + std::to_string(h);
    expect(std::fabs(lse[i * heads + h] - std::log(weights)) < 1e-4, where + ": lse");
    for (int d = 0; d < dim; ++d) {
      const double exact = sum[d] / weights, unit = 1.0 / 256;
      const double got = to_float(out[(int64_t{i} * heads + h) * dim + d]);
      const double bound = (unit + 1e-4) * size[d] / weights + unit * std::fabs(exact);
      expect(std::fabs(got - exact) <= bound, where + ", element " + std::to_string(d));
    }
  }
};

void values() {
  for (int dim : {8, 40, 64, 128, 200, 256})
    for (int round = 0; round < 4; ++round) {
      const int q = 1 + below(40), group = 1 + below(4);
      Case c{q, q, below(300), 2 * group, 2, dim, round % 2 == 1, round >= 2};
      c.fill();
      amx::paged_cpu(c.p);
      for (int i = 0; i < q; i += 5)
        for (int h = 0; h < c.heads; ++h) c.check(i, h);
    }
}

// A chain's rows have the bits of the last rows alone, whose tiles are others.
void rows_alone() {
  for (int dim : {64, 80}) {
    Case c{37, 37, 250, 6, 2, dim, false, false};
    c.fill();
    amx::paged_cpu(c.p);
    const auto all = c.out;
    for (int last : {1, 3, 20}) {
      const int first = c.num_q - last;
      const int32_t ends[2] = {0, last};
      std::vector<Bf16> out(all.size());
      PagedParams p = c.p;
      p.query.data = c.query.data() + int64_t{first} * c.heads * dim;
      p.cu_seqlens_q = ends, p.query_pos += first, p.num_q = last, p.out = out.data();
      amx::paged_cpu(p);
      for (int64_t i = 0; i < int64_t{last} * c.heads * dim; ++i)
        expect(out[i].bits == all[int64_t{first} * c.heads * dim + i].bits,
               "the last " + std::to_string(last) + " rows alone");
    }
  }
}
}  // namespace
}  // namespace lmx::attention

int main([[maybe_unused]] int argc, [[maybe_unused]] char** argv) {
  using namespace lmx::attention;
#if defined(LMX_AMX_EMULATION)
  if (argc > 1 && std::string(argv[1]) == "pair") amx_emulation::fault = amx_emulation::Fault::pair;
#endif
  values();
  std::printf("values: %ld checks\n", static_cast<long>(num_checks));
  num_checks = 0;
  rows_alone();
  std::printf("rows alone: %ld checks\n", static_cast<long>(num_checks));
}
