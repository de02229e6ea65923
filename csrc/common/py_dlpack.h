// common/py_dlpack.h: host classes only. What a torch.Tensor is, without asking it attribute by
// attribute.
//
// Torch hands out a table of C functions (DLPack's exchange interface, version 1, since 2.10); the
// one used here fills a struct in some tens of nanoseconds, where the attributes cost some hundred.
// Where there is no such table py_tensor.h does the same more slowly.
#pragma once
#include <pybind11/pybind11.h>

#include <cstdint>

namespace lmx {
// DLTensor of dlpack.h, version 1.
struct DlTensor {
  void* data;
  int32_t device_type, device_id;
  int32_t ndim;
  uint8_t code, bits;
  uint16_t lanes;
  int64_t *shape, *strides;  // the tensor's own; strides in elements, or null
  uint64_t byte_offset;
};
constexpr int32_t kDlCpu = 1;
constexpr uint8_t kDlInt = 0;

namespace detail {
struct DlExchange {  // DLPackExchangeAPI of dlpack.h, version 1
  uint32_t major, minor;
  void* previous;
  void* functions_of_no_use_here[3];
  int (*view)(void* py_object, DlTensor* out);
  void* current_stream;
};

struct DlDoor {
  PyTypeObject* tensor_type = nullptr;
  int (*view)(void*, DlTensor*) = nullptr;

  DlDoor() {
    const pybind11::object type = pybind11::module_::import("torch").attr("Tensor");
    tensor_type = reinterpret_cast<PyTypeObject*>(type.ptr());
    if (!pybind11::hasattr(type, "__dlpack_c_exchange_api__")) return;
    const pybind11::object capsule = type.attr("__dlpack_c_exchange_api__");
    const auto* api =
        static_cast<const DlExchange*>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
    if (!api) PyErr_Clear();
    if (api && api->major == 1) view = api->view;
  }
};
}  // namespace detail

// The data of a contiguous int32 tensor [rows, columns] on the CPU; null, without an error, where
// it is none or cannot be told: ask tensor_data of py_tensor.h, which says why.
inline void* int32_rows(pybind11::handle tensor, int64_t columns, int64_t* rows) {
  static const detail::DlDoor* door = new detail::DlDoor;  // lives as long as torch.Tensor
  if (!door->view || !PyObject_TypeCheck(tensor.ptr(), door->tensor_type)) return nullptr;
  DlTensor t;
  if (door->view(tensor.ptr(), &t) != 0) return PyErr_Clear(), nullptr;
  const bool is_int32 = t.code == kDlInt && t.bits == 32 && t.lanes == 1;
  if (t.device_type != kDlCpu || !is_int32 || t.ndim != 2 || t.shape[1] != columns) return nullptr;
  const bool is_dense = !t.strides || ((t.strides[1] == 1 || columns == 1) &&
                                       (t.strides[0] == columns || t.shape[0] == 1));
  if (!is_dense) return nullptr;
  *rows = t.shape[0];
  return static_cast<char*>(t.data) + t.byte_offset;
}
}  // namespace lmx
