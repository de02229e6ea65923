// Software AMX, put before a kernel file with -include: the tile intrinsics as Intel's manual
// spells them out (Instruction Set Extensions Programming Reference 319433). What would be a fault
// of the processor ends the program.
#pragma once
#include <immintrin.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace amx_emulation {
enum class Fault { none, overread, pair, order };
inline Fault fault = Fault::none;  // what to do wrong, so that tests can be seen to notice

struct Tile {
  int rows, row_bytes;
  alignas(64) uint8_t data[16][64];
};
struct State {
  bool live = false;
  Tile tile[8];
};
inline thread_local State state;

inline void require(bool ok, const char* what) {
  if (ok) return;
  std::fprintf(stderr, "amx: %s\n", what);
  std::abort();
}
inline Tile& use(int i) {
  require(state.live, "a tile is used without a configuration");
  Tile& t = state.tile[i];
  require(t.rows > 0 && t.row_bytes > 0, "a tile is used that is not configured");
  return t;
}

inline void load_config(const void* p) {
  const auto* bytes = static_cast<const uint8_t*>(p);
  require(reinterpret_cast<uintptr_t>(p) % 64 == 0, "the configuration is not on a cache line");
  require(bytes[0] == 1 && bytes[1] == 0, "palette is not 1, or start_row not 0");
  for (int i = 2; i < 64; ++i)
    if (i < 16 || (i >= 32 && i < 48) || i >= 56) require(bytes[i] == 0, "reserved bytes not 0");
  for (int i = 0; i < 8; ++i) {
    uint16_t row_bytes;
    std::memcpy(&row_bytes, bytes + 16 + 2 * i, 2);
    state.tile[i] = {bytes[48 + i], row_bytes, {}};
    require(bytes[48 + i] <= 16 && row_bytes <= 64, "a tile is too large");
  }
  state.live = true;
}
inline void release() { state.live = false; }
inline void zero(int i) { std::memset(use(i).data, 0, sizeof use(i).data); }

inline void load(int i, const void* base, long stride) {
  Tile& t = use(i);
  std::memset(t.data, 0, sizeof t.data);
  const auto* from = static_cast<const char*>(base);
  for (int r = 0; r < t.rows; ++r, from += stride) {
    std::memcpy(t.data[r], from, static_cast<size_t>(t.row_bytes));
    if (fault == Fault::overread) [[maybe_unused]]
      const volatile char beyond = from[t.row_bytes];
  }
}
inline void store(int i, void* base, long stride) {
  const Tile& t = use(i);
  auto* to = static_cast<char*>(base);
  for (int r = 0; r < t.rows; ++r, to += stride)
    std::memcpy(to, t.data[r], static_cast<size_t>(t.row_bytes));
}

// Subnormals are zeros on the way in and on the way out.
inline float flushed(float x) { return std::fabs(x) < 0x1p-126f ? std::copysign(0.f, x) : x; }
inline float wide(uint16_t bits) {
  const uint32_t u = uint32_t{bits} << 16;
  float x;
  std::memcpy(&x, &u, 4);
  return flushed(x);
}

inline void dpbf16ps(int to, int left, int right) {
  Tile &c = use(to), &a = use(left), &b = use(right);
  require(to != left && to != right && left != right, "a tile is used twice");
  require(a.rows == c.rows && b.row_bytes == c.row_bytes && a.row_bytes == 4 * b.rows &&
              c.row_bytes % 4 == 0,
          "shapes of tiles do not fit");
  const int pairs = b.rows - (fault == Fault::pair), columns = c.row_bytes / 4;
  for (int m = 0; m < c.rows; ++m) {
    uint16_t x[32], y[16][32];
    float even[16] = {}, odd[16] = {}, sum[16];
    std::memcpy(x, a.data[m], sizeof x);
    std::memcpy(y, b.data, sizeof y);
    std::memcpy(sum, c.data[m], sizeof sum);
    for (int k = 0; k < pairs; ++k)
      for (int n = 0; n < columns; ++n) {
        even[n] = flushed(std::fma(wide(x[2 * k]), wide(y[k][2 * n]), even[n]));
        odd[n] = flushed(std::fma(wide(x[2 * k + 1]), wide(y[k][2 * n + 1]), odd[n]));
      }
    for (int n = 0; n < columns; ++n)
      sum[n] = fault == Fault::order ? flushed(flushed(sum[n] + even[n]) + odd[n])
                                     : flushed(flushed(sum[n]) + flushed(even[n] + odd[n]));
    std::memcpy(c.data[m], sum, sizeof sum);
  }
}
}  // namespace amx_emulation

#undef _tile_loadd
#undef _tile_stream_loadd
#undef _tile_stored
#undef _tile_zero
#undef _tile_dpbf16ps
#define _tile_loadconfig amx_emulation::load_config
#define _tile_release amx_emulation::release
#define _tile_loadd amx_emulation::load
#define _tile_stream_loadd amx_emulation::load
#define _tile_stored amx_emulation::store
#define _tile_zero amx_emulation::zero
#define _tile_dpbf16ps amx_emulation::dpbf16ps
#define __AMX_BF16__ 1
#define LMX_AMX_EMULATION 1
