// tests/simt/tensor_core.cpp: ldmatrix and mma. A fragment spreads a matrix over the registers of
// 32 lanes; PTX ISA, "Matrix fragments for mma.m16n8k16" and "ldmatrix", g = lane / 4, c = lane %
// 4.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <bit>
#include <cstring>

#include "machine.h"

namespace simt {
namespace {

struct Load {
  const void* row;
  uint32_t* out;
  int count;
  bool transposed;
};

struct Multiply {
  float* d;
  const uint32_t *a, *b;
  Half type;
};

float half_of(uint32_t reg, int which, Half type) {
  const auto bits = static_cast<uint16_t>(which ? reg >> 16 : reg);
  if (type == Half::bf16) return std::bit_cast<float>(uint32_t{bits} << 16);
  return __half2float(std::bit_cast<__half>(bits));
}

// Lane i gives the address of row i % 8 of matrix i / 8; register j of lane (g, c) gets elements 2c
// and 2c + 1 of row g of matrix j or, transposed, rows 2c and 2c + 1 of column g.
void load_for_warp(void* const* lanes, int) {
  const auto& any = *static_cast<Load*>(lanes[0]);
  uint16_t m[4][8][8];
  for (int i = 0; i < 8 * any.count; ++i)
    std::memcpy(m[i / 8][i % 8], static_cast<Load*>(lanes[i])->row, 16);
  for (int i = 0; i < kWarpSize; ++i) {
    const int g = i / 4, c = i % 4 * 2;
    for (int j = 0; j < any.count; ++j) {
      const uint16_t low = any.transposed ? m[j][c][g] : m[j][g][c];
      const uint16_t high = any.transposed ? m[j][c + 1][g] : m[j][g][c + 1];
      static_cast<Load*>(lanes[i])->out[j] = low | uint32_t{high} << 16;
    }
  }
}

// A product of two 16-bit floats is exact in fp32. A real tensor core adds in an order of its own.
void multiply_for_warp(void* const* lanes, int) {
  float a[16][16], b[16][8];
  for (int i = 0; i < kWarpSize; ++i) {
    const auto& l = *static_cast<Multiply*>(lanes[i]);
    const int g = i / 4, c = i % 4 * 2;
    for (int h = 0; h < 2; ++h) {
      for (int r = 0; r < 4; ++r) a[g + r % 2 * 8][c + r / 2 * 8 + h] = half_of(l.a[r], h, l.type);
      for (int r = 0; r < 2; ++r) b[c + r * 8 + h][g] = half_of(l.b[r], h, l.type);
    }
  }
  for (int i = 0; i < kWarpSize; ++i) {
    for (int r = 0; r < 4; ++r) {
      float& d = static_cast<Multiply*>(lanes[i])->d[r];
      for (int k = 0; k < 16; ++k) d += a[i / 4 + r / 2 * 8][k] * b[k][i % 4 * 2 + r % 2];
    }
  }
}

}  // namespace

void load_matrices(uint32_t* out, int count, bool transposed, const void* row, Site site) {
  const Machine& m = *active;
  if (m.running->lane < 8 * count) {  // the other lanes' addresses are not used
    if (!m.memory.is_shared(row)) fail(site, "ldmatrix from memory that is not shared");
    if (reinterpret_cast<uintptr_t>(row) % 16)
      fail(site, "misaligned: an ldmatrix row is not at a multiple of 16");
    touch(row, 16, Access::read, site);
  }
  Load arg{row, out, count, transposed};
  meet_warp("ldmatrix", site, ~0u, &arg, load_for_warp, false);
}

void multiply_16x8x16(float* d, const uint32_t* a, const uint32_t* b, Half type, Site site) {
  Multiply arg{d, a, b, type};
  meet_warp(type == Half::bf16 ? "mma bf16" : "mma f16", site, ~0u, &arg, multiply_for_warp, false);
}

}  // namespace simt
