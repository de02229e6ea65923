// common/isa.cpp: the chooser.
#include "isa.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <stdexcept>
#include <string>

namespace lmx {
namespace {
Isa machine_level() {
  __builtin_cpu_init();
  // Spelled out: GCC 11 does not know "x86-64-v3".
  const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                  __builtin_cpu_supports("f16c") && __builtin_cpu_supports("bmi") &&
                  __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("lzcnt") &&
                  __builtin_cpu_supports("movbe");
  if (!v3) return Isa::none;
  const bool v4 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                  __builtin_cpu_supports("avx512vl");
  if (!v4) return Isa::v3;
  const bool amx = __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("amx-bf16");
  return amx ? Isa::amx : Isa::v4;
}

// Linux grants the tile registers on request.
bool amx_granted() {
  constexpr long kArchReqXcompPerm = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kArchReqXcompPerm, kTileData) == 0;
}

Isa wanted_level() {
  const char* wanted = std::getenv("LMX_CPU_ISA");
  if (!wanted) return Isa::amx;
  for (const Isa level : {Isa::v3, Isa::v4, Isa::amx})
    if (std::string(wanted) == isa_name(level)) return level;
  throw std::invalid_argument(std::string("lmx: LMX_CPU_ISA must be v3, v4 or amx, got ") + wanted);
}

Isa choose() {
  const Isa level = std::min(machine_level(), wanted_level());
  return level == Isa::amx && !amx_granted() ? Isa::v4 : level;
}
}  // namespace

const char* isa_name(Isa level) {
  constexpr const char* kNames[] = {"none", "v3", "v4", "amx"};
  return kNames[static_cast<int>(level) + 1];
}

Isa isa_level() {
  static const Isa level = choose();
  return level;
}
}  // namespace lmx
