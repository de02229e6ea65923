// common/isa.h: one CPU kernel, compiled once per instruction-set level, chosen at load.
// A kernel file opens `namespace lmx::<room>::LMX_ISA {`; CMake compiles it with LMX_ISA=v3, v4
// and, if it has an AMX path, amx.
#pragma once
namespace lmx {
enum class Isa : int {
  none = -1,  // older than the floor: `import lmx` refuses
  v3 = 0,     // AVX2, FMA, F16C
  v4 = 1,     // AVX-512 F, BW, CD, DQ, VL
  amx = 2,    // v4, AVX512-BF16, AMX-BF16
};
// This machine's level, or a lower one that LMX_CPU_ISA asks for. Throws std::invalid_argument on a
// value of LMX_CPU_ISA that is no level.
Isa isa_level();
const char* isa_name(Isa level);
}  // namespace lmx

// Declares a level's copy.
#define LMX_CPU_KERNEL_AT(level, name, Params) \
  namespace level {                            \
  void name(const Params& p);                  \
  }
// Declares the copies and the function that forwards to the one for this machine.
#define LMX_CPU_KERNEL(name, Params)                                                           \
  LMX_CPU_KERNEL_AT(v3, name, Params)                                                          \
  LMX_CPU_KERNEL_AT(v4, name, Params)                                                          \
  inline void name(const Params& p) {                                                          \
    static void (*const kernel)(const Params&) = isa_level() >= Isa::v4 ? v4::name : v3::name; \
    kernel(p);                                                                                 \
  }
// The same for the kernels in CMake's LMX_AMX_KERNELS, which have a third copy.
#define LMX_CPU_KERNEL_AMX(name, Params)                                              \
  LMX_CPU_KERNEL_AT(v3, name, Params)                                                 \
  LMX_CPU_KERNEL_AT(v4, name, Params)                                                 \
  LMX_CPU_KERNEL_AT(amx, name, Params)                                                \
  inline void name(const Params& p) {                                                 \
    static void (*const kernel)(const Params&) = isa_level() == Isa::amx  ? amx::name \
                                                 : isa_level() == Isa::v4 ? v4::name  \
                                                                          : v3::name; \
    kernel(p);                                                                        \
  }
