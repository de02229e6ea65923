// The GEMM's AMX level against its definition, on software tiles (amx_emulation.h) or, compiled for
// the level itself, on a machine that has them. Prints how much was checked, or what is wrong.
// Every matrix ends where a page begins that may not be touched.
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "common/convert.h"
#include "common/parallel.h"
#include "layerskip/gemm.h"
#include "layerskip/swiglu.h"

namespace lmx {
static int64_t num_threads = 1;

static void check_released() {
#if defined(LMX_AMX_EMULATION)
  amx_emulation::require(!amx_emulation::state.live, "a thread keeps its tiles");
#endif
}
void parallel_for_impl(int64_t begin, int64_t end, int64_t grain,
                       void (*body)(int64_t, int64_t, void*), void* context) {
  const int64_t piece = std::max(grain, (end - begin + num_threads - 1) / num_threads);
  std::vector<std::thread> threads;
  for (int64_t b = begin; b < end; b += piece)
    threads.emplace_back([=] {
      body(b, std::min(b + piece, end), context);
      check_released();
    });
  for (auto& t : threads) t.join();
}
}  // namespace lmx

namespace lmx::layerskip {
namespace {
std::mt19937 generator(1);
int64_t num_checks = 0;

[[noreturn]] void fail(const std::string& what) {
  std::printf("wrong: %s\n", what.c_str());
  std::exit(1);
}
void expect(bool ok, const std::string& what) {
  if (!ok) fail(what);
  ++num_checks;
}

// Bytes whose end is the end of a page; what lies before them is NaN, what lies behind cannot be
// read.
class Guarded {
 public:
  explicit Guarded(int64_t size) : size_(size) {
    const int64_t page = sysconf(_SC_PAGESIZE), inner = (size + page - 1) / page * page;
    whole_ = inner + page;
    void* at = mmap(nullptr, whole_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED || mprotect(static_cast<char*>(at) + inner, page, PROT_NONE) != 0)
      fail("no memory");
    start_ = static_cast<char*>(at);
    std::memset(start_, 0xff, inner);
    data_ = start_ + inner - size;
  }
  ~Guarded() { munmap(start_, whole_); }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;
  template <typename T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }
  bool canary_is_whole() const {
    return std::all_of(start_, data_, [](char c) { return c == '\xff'; });
  }

 private:
  int64_t size_, whole_;
  char *start_, *data_;
};

float normal() { return std::clamp(std::normal_distribution<float>()(generator), -3.f, 3.f); }
float bf16_of(float x) { return to_float(from_float<Bf16>(x)); }

// Element i of an array becomes x, rounded, which is returned.
float put(void* array, DType dtype, int64_t i, float x) {
  const auto as = [&](auto type) {
    const auto rounded = from_float<decltype(type)>(x);
    std::memcpy(static_cast<char*>(array) + i * int64_t{sizeof rounded}, &rounded, sizeof rounded);
    return to_float(rounded);
  };
  return dtype == DType::f32 ? as(float{}) : dtype == DType::f16 ? as(F16{}) : as(Bf16{});
}
int64_t size_of(DType dtype) { return dtype == DType::f32 ? 4 : 2; }

// One group's weights as stored, and their values.
struct Stored {
  Format format;
  DType dtype;
  int64_t n, k, stride;
  Guarded bytes;
  std::vector<float> value;

  Stored(Format f, DType type, int64_t n_, int64_t k_, int64_t gap)
      : format(f),
        dtype(type),
        n(n_),
        k(k_),
        stride(row_bytes(f, type, k_) + gap),
        bytes(n_ ? (n_ - 1) * stride + row_bytes(f, type, k_) : 0),
        value(n_ * k_) {
    for (int64_t i = 0; i < n; ++i) fill(bytes.as<char>() + i * stride, value.data() + i * k);
  }
  Stored(const Stored& other, int64_t gap)
      : Stored(Format::dense, other.dtype, other.n, other.k, gap) {
    for (int64_t i = 0; i < n * k; ++i) set(i / k, i % k, other.value[i]);
  }
  void set(int64_t row, int64_t column, float x) {
    value[row * k + column] = put(bytes.as<char>() + row * stride, dtype, column, x);
  }

  void fill(char* row, float* out) {
    const float scale = 1 / std::sqrt(static_cast<float>(std::max<int64_t>(k, 1)));
    if (format == Format::int8) {
      for (int64_t i = 0; i < k; ++i)
        out[i] = row[i] = static_cast<signed char>(generator() % 255 - 127);
    } else if (format == Format::dense) {
      for (int64_t i = 0; i < k; ++i) out[i] = put(row, dtype, i, normal() * scale);
    } else {
      for (int64_t i = 0; i < k; i += kBlockWeights, row += unit_bytes(format, DType::bf16))
        fill_block(row, out + i, scale);
    }
  }
  void fill_block(char* block, float* out, float scale) {
    const F16 d = from_float<F16>((generator() % 7 + 1) * scale / 64);
    const F16 m = from_float<F16>(-normal() * scale);
    std::memcpy(block, &d, 2);
    if (format == Format::q4_1) std::memcpy(block + 2, &m, 2);
    const float dd = to_float(d), mm = to_float(m);
    char* q = block + (format == Format::q4_1 ? 4 : 2);
    if (format == Format::q8_0)
      for (int i = 0; i < 32; ++i) out[i] = bf16_of(dd * (q[i] = static_cast<char>(generator())));
    else
      for (int i = 0; i < 16; ++i) {
        const auto both = static_cast<uint8_t>(generator());
        q[i] = static_cast<char>(both);
        for (int h = 0; h < 2; ++h) {
          const auto half = static_cast<float>(h ? both >> 4 : both & 15);
          out[i + 16 * h] =
              bf16_of(format == Format::q4_1 ? std::fma(dd, half, mm) : dd * (half - 8));
        }
      }
  }
};

struct Case {
  Format format = Format::dense;
  int64_t num_rows, n, k, num_groups = 1, gap = 0;
  DType x_dtype = DType::bf16;
};
std::string name(const Case& c) {
  return std::to_string(c.num_rows) + " rows, " + std::to_string(c.n) + " x " +
         std::to_string(c.k) + ", format " + std::to_string(static_cast<int>(c.format)) +
         ", dtype " + std::to_string(static_cast<int>(c.x_dtype)) + ", " +
         std::to_string(c.num_groups) + " groups";
}

// Rows of x in groups, weights for each, and what the op makes of them.
struct Call {
  Case c;
  std::vector<std::unique_ptr<Stored>> stored;
  std::vector<WeightGroup> where;
  std::vector<float> scale, x_value;
  std::vector<int> group;
  std::unique_ptr<Guarded> x;
  int64_t x_stride;

  explicit Call(const Case& given) : c(given), x_stride(given.k + 3) {
    for (int64_t g = 0; g < c.num_groups; ++g)
      stored.push_back(std::make_unique<Stored>(c.format, c.x_dtype, c.n, c.k, c.gap));
    locate();
    for (int64_t i = 0; i < c.num_groups * c.n; ++i)
      scale.push_back(0.01f + generator() % 9 * 0.01f);
    for (int64_t r = 0; r < c.num_rows; ++r)
      group.push_back(c.num_groups == 1 ? 0
                                        : static_cast<int>(generator() % (c.num_groups + 1)) - 1);
    for (int64_t i = 0; i < c.num_rows * c.k; ++i) x_value.push_back(normal());
    place_x();
  }
  void locate() {
    where.clear();
    for (const auto& s : stored)
      where.push_back({s->n > 0 && s->k > 0 ? s->bytes.as<char>() : nullptr, s->stride});
  }
  void place_x() {
    const int64_t size = size_of(c.x_dtype);
    x = std::make_unique<Guarded>(c.num_rows ? ((c.num_rows - 1) * x_stride + c.k) * size : 0);
    for (int64_t i = 0; i < c.num_rows * c.k; ++i)
      x_value[i] = put(x->as<char>(), c.x_dtype, i / c.k * x_stride + i % c.k, x_value[i]);
  }

  Weights weights() const {
    return {where.data(), c.format == Format::int8 ? scale.data() : nullptr,
            c.num_groups, c.n,
            c.k,          c.format,
            c.x_dtype};
  }
  // The rows picked, in that order.
  std::vector<float> run(const std::vector<int64_t>& rows, bool swiglu = false) const {
    const auto count = static_cast<int64_t>(rows.size());
    std::vector<int32_t> perm, offsets{0};
    for (int g = 0; g < c.num_groups; ++g) {
      for (int64_t i = 0; i < count; ++i)
        if (group[rows[i]] == g) perm.push_back(static_cast<int32_t>(i));
      offsets.push_back(static_cast<int32_t>(perm.size()));
    }
    for (int64_t i = 0; i < count; ++i)
      if (group[rows[i]] < 0) perm.push_back(static_cast<int32_t>(i));
    const int64_t size = size_of(c.x_dtype);
    const Guarded picked(count ? ((count - 1) * x_stride + c.k) * size : 0);
    for (int64_t i = 0; i < count; ++i)
      std::memcpy(picked.as<char>() + i * x_stride * size,
                  x->as<char>() + rows[i] * x_stride * size, c.k * size);
    const int64_t out_stride = c.n + 2;
    const Guarded out(count ? ((count - 1) * out_stride + c.n) * 4 : 0);
    Plan plan;
    if (c.num_groups > 1) plan.perm = perm.data(), plan.offsets = offsets.data();
    const Matrix in{picked.as<void>(), x_stride, c.x_dtype},
        to{out.as<void>(), out_stride, DType::f32};
    if (swiglu) {
      SwigluParams p{};
      p.x = in, p.gate = weights(), p.up = weights(), p.plan = plan, p.num_rows = count, p.out = to;
      LMX_ISA::swiglu_cpu(p);
    } else {
      GemmParams p{};
      p.x = in, p.weights = weights(), p.plan = plan, p.num_rows = count, p.out = to;
      LMX_ISA::gemm_cpu(p);
    }
    check_released();
    std::vector<float> result(count * c.n);
    for (int64_t i = 0; i < count; ++i) {
      if (c.n > 0) std::memcpy(result.data() + i * c.n, out.as<float>() + i * out_stride, c.n * 4);
      for (int64_t j = c.n; j < out_stride && i + 1 < count; ++j)
        expect(std::bit_cast<uint32_t>(out.as<float>()[i * out_stride + j]) == ~0u,
               "written between rows of out: " + name(c));
    }
    expect(out.canary_is_whole(), "written before out: " + name(c));
    return result;
  }
  std::vector<float> run(bool swiglu = false) const {
    std::vector<int64_t> all(c.num_rows);
    for (int64_t i = 0; i < c.num_rows; ++i) all[i] = i;
    return run(all, swiglu);
  }
};

bool same(const float* a, const float* b, int64_t n) { return n == 0 || !std::memcmp(a, b, n * 4); }
bool same(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && same(a.data(), b.data(), static_cast<int64_t>(a.size()));
}

// ---- checks -----------------------------------------------------------------------------------
// The one order of a sum, see amx.h; all numbers normal.
float in_order(const float* x, const float* w, int64_t k) {
  float sum = 0;
  for (int64_t i = 0; i < k; i += 32) {
    float part[2] = {};
    for (int64_t j = i; j < std::min(i + 32, k); ++j)
      part[j % 2] = std::fma(w[j], x[j], part[j % 2]);
    sum += part[0] + part[1];
  }
  return sum;
}

// Within tests/layerskip_bounds.py's bound; with bfloat16 also the very bits.
void check_values(const Case& c) {
  const Call call(c);
  const auto ours = call.run();
  for (int64_t r = 0; r < c.num_rows; ++r)
    for (int64_t i = 0; i < c.n; ++i) {
      const float got = ours[r * c.n + i];
      if (call.group[r] < 0) {
        expect(std::bit_cast<uint32_t>(got) == 0, "skipped row: " + name(c));
        continue;
      }
      const float *x = call.x_value.data() + r * c.k,
                  *w = call.stored[call.group[r]]->value.data() + i * c.k;
      const float scale = c.format == Format::int8 ? call.scale[call.group[r] * c.n + i] : 1.f;
      double exact = 0, magnitude = 0;
      for (int64_t j = 0; j < c.k; ++j) {
        exact += double{x[j]} * w[j] * scale;
        magnitude += std::fabs(double{x[j]} * w[j] * scale);
      }
      const double bound =
          static_cast<double>(c.k + 8) * 0x1p-24 * magnitude + 0x1p-24 * std::fabs(exact);
      expect(std::fabs(got - exact) <= bound + 0x1p-149, "value: " + name(c));
      if (c.x_dtype == DType::bf16)
        expect(got == in_order(x, w, c.k) * scale, "order of a sum: " + name(c));
    }
}

// Each row alone has the bits it has among others, at any place, with any number of threads.
void check_invariance(const Case& c, const std::vector<int64_t>& sizes) {
  const Call call(c);
  const auto all = call.run(), all_swiglu = call.run(true);
  for (const int64_t size : sizes) {
    std::vector<int64_t> rows(size);
    for (auto& r : rows) r = static_cast<int64_t>(generator() % c.num_rows);
    num_threads = size % 3 + 1;
    const auto some = call.run(rows), some_swiglu = call.run(rows, true);
    num_threads = 1;
    for (int64_t i = 0; i < size; ++i)
      expect(same(some.data() + i * c.n, all.data() + rows[i] * c.n, c.n) &&
                 same(some_swiglu.data() + i * c.n, all_swiglu.data() + rows[i] * c.n, c.n),
             "row " + std::to_string(i) + " of " + std::to_string(size) + ": " + name(c));
  }
}

void check_blocks(const Case& c) {
  Call call(c);
  const auto ours = call.run(), ours_swiglu = call.run(true);
  for (auto& s : call.stored) s = std::make_unique<Stored>(*s, c.gap);
  call.locate();
  call.c.format = Format::dense;
  expect(same(call.run(), ours) && same(call.run(true), ours_swiglu),
         "not the dense bits: " + name(c));
}

// What follows the sums, in blocks of any width.
void check_epilogue(const Case& c) {
  const Call call(c);
  const auto sums = call.run();
  std::vector<float> bias(c.n), residual(c.num_rows * c.n), scale(c.num_rows);
  for (auto* values : {&bias, &residual, &scale})
    for (float& v : *values) v = normal();
  std::vector<float> out(residual.size());
  const Matrix in{call.x->as<void>(), call.x_stride, c.x_dtype};
  GemmParams p{};
  p.x = in, p.weights = call.weights(), p.num_rows = c.num_rows, p.row_scale = scale.data();
  p.bias = bias.data(), p.bias_dtype = DType::f32;
  p.residual = {residual.data(), c.n, DType::f32}, p.out = {out.data(), c.n, DType::f32};
  LMX_ISA::gemm_cpu(p);
  for (int64_t i = 0; i < c.num_rows * c.n; ++i) {
    const float expected = residual[i] + scale[i / c.n] * (sums[i] + bias[i % c.n]);
    expect(out[i] == expected, "bias, scale or residual: " + name(c));
  }
}

// NaN in a row of x or of weights stays there; bfloat16 subnormals are zeros.
void check_isolation() {
  Call call({.num_rows = 37, .n = 41, .k = 70});
  const auto clean = call.run();
  call.x->as<Bf16>()[5 * call.x_stride + 69] = {0x7fc0};
  call.stored[0]->set(17, 69, NAN);
  const auto ours = call.run();
  for (int64_t r = 0; r < 37; ++r)
    for (int64_t i = 0; i < 41; ++i) {
      const float got = ours[r * 41 + i];
      expect(r == 5 || i == 17 ? std::isnan(got) : got == clean[r * 41 + i], "a NaN spreads");
    }
  Call tiny({.num_rows = 1, .n = 1, .k = 1});
  tiny.x->as<Bf16>()[0] = from_float<Bf16>(0x1p100f);
  const Bf16 subnormal{1};
  std::memcpy(tiny.stored[0]->bytes.as<char>(), &subnormal, 2);
  expect(tiny.run()[0] == 0, "a subnormal weight counts");
}

constexpr Format kPacked[] = {Format::q8_0, Format::q4_0, Format::q4_1};

void check_many_values() {
  for (const int64_t num_rows : {0, 1, 2, 7, 16, 17, 33, 48, 70})
    for (const auto& [n, k] :
         {std::pair{1, 1}, {3, 5}, {16, 31}, {33, 33}, {48, 64}, {65, 270}, {32, 576}})
      for (const int64_t num_groups : {1, 3}) {
        check_values({.num_rows = num_rows, .n = n, .k = k, .num_groups = num_groups});
        check_values({Format::int8, num_rows, n, k, num_groups, 5});
      }
  for (const int64_t k : {0, 31, 32, 300})
    check_values({.num_rows = 20, .n = 40, .k = k, .gap = 26});
  check_values({.num_rows = 5, .n = 0, .k = 32});
  check_values({.num_rows = 300, .n = 33, .k = 65});
  for (const Format f : kPacked) check_values({f, 35, 50, 288, 2});
  for (const DType dtype : {DType::f32, DType::f16}) {  // as at level v4
    for (const int64_t num_rows : {1, 70})
      check_values({.num_rows = num_rows, .n = 70, .k = 1100, .x_dtype = dtype});
    if (dtype == DType::f16) check_values({Format::int8, 50, 40, 70, 2, 0, dtype});
  }
}

void check_many_blocks() {
  for (const Format f : kPacked)
    for (const int64_t num_rows : {1, 5, 33, 70})
      for (const auto& [n, k] : {std::pair{1, 32}, {37, 96}, {48, 544}})
        check_blocks({f, num_rows, n, k, 2, 6});
}

void check_many_sizes() {
  std::vector<int64_t> sizes;
  for (int64_t i = 1; i <= 70; ++i) sizes.push_back(i);
  check_invariance({.num_rows = 70, .n = 35, .k = 75}, sizes);
  check_invariance({.num_rows = 70, .n = 32, .k = 320, .num_groups = 3}, sizes);
}

// Rows of x beyond the second-level cache: blocks of 128 weight rows.
void check_wide_blocks() {
  check_values({.num_rows = 260, .n = 150, .k = 2080});
  check_epilogue({.num_rows = 260, .n = 150, .k = 2080});
  for (const Format f : {Format::dense, Format::int8, Format::q8_0})
    check_invariance({f, 260, 150, 2080, f == Format::int8 ? 2 : 1}, {1, 31, 132});
}

void check_all() {
  const std::pair<const char*, void (*)()> parts[] = {{"isolation", check_isolation},
                                                      {"values", check_many_values},
                                                      {"blocks", check_many_blocks},
                                                      {"sizes", check_many_sizes},
                                                      {"wide blocks", check_wide_blocks}};
  for (const auto& [part, run] : parts) {
    num_checks = 0;
    run();
    std::printf("%s: %lld checks\n", part, static_cast<long long>(num_checks));
    std::fflush(stdout);
  }
}
}  // namespace
}  // namespace lmx::layerskip

int main(int argc, char** argv) {
#if defined(LMX_AMX_EMULATION)
  using amx_emulation::Fault;
  const std::string fault = argc > 1 ? argv[1] : "none";
  amx_emulation::fault = fault == "overread" ? Fault::overread
                         : fault == "pair"   ? Fault::pair
                         : fault == "order"  ? Fault::order
                                             : Fault::none;
#else
  constexpr long kArchReqXcompPerm = 0x1023, kTileData = 18;
  if (argc > 1 || syscall(SYS_arch_prctl, kArchReqXcompPerm, kTileData) != 0) {
    std::printf("%s: no arguments, and a machine with tiles\n", argv[0]);
    return 2;
  }
#endif
  lmx::layerskip::check_all();
}
