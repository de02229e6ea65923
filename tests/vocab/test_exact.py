"""The functions that decide token ids, by themselves: more of their bits than a float shows."""

import os
import shlex
import shutil
import subprocess

import pytest
from helpers import ROOT

PROGRAM = r"""
#include <cstdio>
#include <cstdlib>
#include <initializer_list>
#include "common/draw.h"
#include "common/exact.h"
using namespace lmx;

#define CHECK(what, x) check(what, #what, static_cast<double>(x))
void check(bool holds, const char* what, double x) {
  if (holds) return;
  std::printf("%s at %.17g\n", what, x);
  std::exit(1);
}

int main() {
  for (double x = 1e-300; x < 1e300; x *= 1.0137) {
    const double error = std::fabs(exact::log(x) - std::log(x));
    CHECK(error <= 1e-14 * std::fabs(std::log(x)) + 1e-16, x);
  }
  for (double x = 0.5; x < 2.0; x += 1.0 / 4096) {
    const double error = std::fabs(exact::log(x) - std::log(x));
    CHECK(error <= 4e-15 * std::fabs(std::log(x)) + 1e-16, x);
  }
  for (float f = -0.5f; f <= 0.5f; f += 0x1p-16f) {
    const double want = std::exp2(static_cast<double>(f));
    CHECK(std::fabs(exact::exp2_fraction(f) / want - 1.0) <= 1.3 * 0x1p-23, f);
  }
  for (int e = 0; e >= -2000; --e) {
    CHECK(exact::pow2(static_cast<float>(e)) == (e >= -1022 ? std::ldexp(1.0, e) : 0.0), e);
    for (float p : {0.75f, 1.f, 1.5f})
      CHECK(exact::scale_exp2(p, static_cast<float>(e)) == (e >= -125 ? std::ldexp(p, e) : 0.f), e);
  }
  for (float e : {-INFINITY, NAN}) {
    CHECK(exact::pow2(e) == 0.0, e);
    CHECK(exact::scale_exp2(1.f, e) == 0.f, e);
  }
  CHECK(exact::kMinTemperature == 1e-3f && exact::kMaxExponent == 0x1p23f, 0);
  const float scale = exact::weight_scale(1.f), bound = 0x1p23f / scale;
  CHECK(scale == static_cast<float>(1 / std::log(2.0)), scale);
  for (float x = -60.f; x <= 60.f; x += 0.37f) {
    const float top = exact::weight_top(x, scale);
    CHECK(exact::cap_logit(x, scale) == x && !exact::needs_cap(x, scale), x);
    CHECK(top == std::ceil(x * scale), x);
    const double want = std::exp2(static_cast<double>(x) * static_cast<double>(scale) - top);
    CHECK(std::fabs(exact::weight(x, scale, top) / want - 1.0) <= 0x1p-22, x);
    CHECK(exact::weight(x, scale, top) == exact::weight(x, scale, top + 9.f) * 512.f, x);
  }
  for (float sign : {1.f, -1.f})
    for (float x : {1.001f * bound, 2.f * bound, 1e30f, 3.4028235e38f}) {
      CHECK(exact::cap_logit(sign * x, scale) == sign * bound && exact::needs_cap(x, scale), x);
      CHECK(exact::weight_top(sign * x, scale) == sign * 0x1p23f, x);
      CHECK(exact::cap_logit(sign * x, scale * 1e-37f) == sign * x, x);  // infinite x * temperature
    }
  CHECK(exact::cap_logit(INFINITY, scale) == bound && exact::needs_cap(INFINITY, scale), bound);
  CHECK(exact::cap_logit(INFINITY, 1e-38f) == 3.4028235e38f, bound);
  CHECK(exact::cap_logit(-INFINITY, scale) == -INFINITY, bound);
  CHECK(exact::weight_top(-INFINITY, scale) == -INFINITY, bound);
  CHECK(exact::weight_top(NAN, scale) != exact::weight_top(NAN, scale), bound);
  CHECK(exact::needs_cap(bound, scale) && !exact::needs_cap(bound * 0.499f, scale), bound);
  CHECK(exact::needs_cap(NAN, scale), bound);

  const double values[] = {0.0, 1.0, -1.0, 2.0, 0.0};
  const auto value = [&](int i) { return values[i]; };
  const struct { double target; int index; double before; } draws[] = {
      {0.0, 1, 0.0}, {0.99, 1, 0.0}, {1.0, 3, 1.0}, {2.99, 3, 1.0}, {3.0, 3, 1.0}, {99.0, 3, 1.0}};
  for (const auto& d : draws)
    for (double base : {0.0, 5.0}) {
      const Pick p = pick(5, base, base + d.target, value);
      CHECK(p.index == d.index && p.before == base + d.before, d.target);
    }
  CHECK(pick(1, 5.0, 5.0, value).index == -1 && pick(1, 5.0, 5.0, value).before == 5.0, 0);
  CHECK(kDrawBlock == 256 && kDrawChunk == 32, 0);
}
"""


def test_exact(tmp_path):
    compiler = shlex.split(os.environ.get("CXX", "c++"))
    if not shutil.which(compiler[0]):
        pytest.skip("no C++ compiler")
    source, program = tmp_path / "exact.cpp", tmp_path / "exact"
    source.write_text(PROGRAM)
    flags = ["-std=c++20", "-O1", "-ffp-contract=off", "-march=x86-64-v3", "-I", str(ROOT / "csrc")]
    subprocess.run([*compiler, *flags, str(source), "-o", str(program)], check=True)
    done = subprocess.run([program], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
