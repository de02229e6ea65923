// csrc/layerskip/swiglu.cpp: CPU side of swiglu.h: two GEMMs over the same rows, block by block.
#include "swiglu.h"

#include "blocks_cpu.h"
#include "row_io.h"

namespace lmx::layerskip::LMX_ISA {
void swiglu_cpu(const SwigluParams& p) {
  const Weights& w = p.gate;
  check_plan("skip_swiglu", p.plan, p.num_rows, w.num_groups);
  const ActiveRows rows(p.x, w.k, order_of(w), p.plan, p.num_rows, w.num_groups);
  const auto live_gate = live_groups("skip_swiglu", "gate", w, rows, p.status);
  const auto live_up = live_groups("skip_swiglu", "up", p.up, rows, p.status);
  std::vector<int64_t> live;
  std::set_intersection(live_gate.begin(), live_gate.end(), live_up.begin(), live_up.end(),
                        std::back_inserter(live));
  visit_dtype(p.out.dtype, [&](auto type) {
    using T = decltype(type);
    const auto out = [&](int64_t row) { return static_cast<T*>(p.out.data) + row * p.out.stride; };
    const auto clear = [&](int64_t i) { std::fill_n(out(rows.row_id(i)), w.n, T{}); };
    for (int64_t i = rows.num_active(); i < p.num_rows; ++i) clear(i);
    for (int64_t g = 0; g < w.num_groups; ++g)
      if (!std::binary_search(live.begin(), live.end(), g))
        for (int64_t i = rows.begin(g); i < rows.end(g); ++i) clear(i);
    for_blocks(w, rows, live,
               [&](int64_t g, int64_t first, int count, int64_t row, int64_t num_rows,
                   MultiplySpace& space) {
                 multiply({&w, g, first, count, rows.at(row), num_rows}, space, space.products);
                 multiply({&p.up, g, first, count, rows.at(row), num_rows}, space, space.others);
                 for (int64_t r = 0; r < num_rows; ++r) {
                   float* gate = space.products[r];
                   const float* up = space.others[r];
                   for (int i = 0; i < count; ++i) gate[i] = swiglu(gate[i], up[i]);
                   narrow(gate, count, out(rows.row_id(row + r)) + first);
                 }
               });
  });
}
}  // namespace lmx::layerskip::LMX_ISA
