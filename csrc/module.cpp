// What needs no tensors, so no torch: the build, the processor, how far a JPEG reaches, and crops.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include "area.h"
#include "cpu/isa.h"
#include "jpeg.h"

namespace py = pybind11;

namespace {

py::dict build_info() {
  py::dict info;
  info["version"] = CDKD_VERSION;
  info["torch"] = CDKD_TORCH;
  info["compiler"] = __VERSION__;
  if (*CDKD_CUDA) {
    info["cuda"] = CDKD_CUDA;
  } else {
    info["cuda"] = py::none();
  }
  return info;
}

py::dict cpu_features() {
  py::dict features;
#if defined(__x86_64__) && defined(__GNUC__)
  __builtin_cpu_init();
  features["avx2"] = static_cast<bool>(__builtin_cpu_supports("avx2"));
  features["fma"] = static_cast<bool>(__builtin_cpu_supports("fma"));
  features["avx512f"] = static_cast<bool>(__builtin_cpu_supports("avx512f"));
  features["avx512bw"] = static_cast<bool>(__builtin_cpu_supports("avx512bw"));
  features["avx512vl"] = static_cast<bool>(__builtin_cpu_supports("avx512vl"));
  features["avx512_bf16"] = static_cast<bool>(__builtin_cpu_supports("avx512bf16"));
#endif
  return features;
}

const char* instruction_set() {
  switch (cdkd::cpu::isa()) {
    case cdkd::cpu::Isa::avx512:
      return "avx512";
    case cdkd::cpu::Isa::avx2:
      return "avx2";
    default:
      return "baseline";
  }
}

py::object jpeg_extent(const py::bytes& content) {
  const std::string_view view = content;
  std::optional<cdkd::JpegExtent> found;
  {
    const py::gil_scoped_release release;
    found = cdkd::jpeg_extent(view);
  }
  if (!found) return py::none();
  return py::make_tuple(found->height, found->width, found->end, found->closed, found->whole);
}

py::array_t<uint8_t> area_crop(const py::array_t<uint8_t>& image, double scale_x, double offset_x,
                               ptrdiff_t width, double scale_y, double offset_y, ptrdiff_t height) {
  if (image.ndim() != 3 || image.shape(2) != 3 || image.strides(2) != 1 || image.strides(1) != 3) {
    throw py::value_error("image: expected (H, W, 3) without gaps between pixels");
  }
  py::array_t<uint8_t> crop({height, width, ptrdiff_t{3}});
  const cdkd::Image pixels{image.data(), image.shape(0), image.shape(1), image.strides(0)};
  uint8_t* const to = crop.mutable_data();
  {
    const py::gil_scoped_release release;
    cdkd::area_crop(pixels, {scale_x, offset_x, width}, {scale_y, offset_y, height}, to);
  }
  return crop;
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Build and processor information, and what Python is too slow for without torch.";
  m.def("build_info", &build_info,
        "Version, the torch it was built against, compiler and CUDA toolkit (None without).");
  m.def("cpu_features", &cpu_features, "Vector instruction sets of this processor; empty off x86-64.");
  m.def("instruction_set", &instruction_set,
        "The vector instructions that the CPU kernels use: baseline, avx2 or avx512; CDKD_ISA lowers it.");
  m.def(
      "jpeg_extent", &jpeg_extent,
      "Height, width, the end of a JPEG's image, whether an end marker closes it and whether every block has "
      "its codes; None for what is no JPEG's beginning.");
  m.def("area_crop", &area_crop, py::arg("image").noconvert(), py::arg("scale_x"), py::arg("offset_x"),
        py::arg("width"), py::arg("scale_y"), py::arg("offset_y"), py::arg("height"),
        "A crop (height, width, 3) of an image (H, W, 3) uint8: means over the areas that its pixels cover.");
}
