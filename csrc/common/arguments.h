// A tensor among an op's arguments, as checks see it, and the checks of its device, type and shape. Without
// torch, so that a call and its checks are the same for every device.
#pragma once
#include <algorithm>
#include <initializer_list>
#include <string>
#include <vector>

#include "common/checks.h"
#include "common/half.h"
#include "common/rows.h"

namespace cdkd {

// A list of sizes that lies elsewhere.
class Sizes {
 public:
  Sizes(const int64_t* data, int64_t count) : data_(data), count_(count) {}
  Sizes(std::initializer_list<int64_t> sizes) : Sizes(sizes.begin(), static_cast<int64_t>(sizes.size())) {}

  const int64_t* begin() const { return data_; }
  const int64_t* end() const { return data_ + count_; }
  const int64_t* data() const { return data_; }
  int64_t count() const { return count_; }
  int64_t operator[](int64_t i) const { return data_[i]; }
  int64_t last() const { return data_[count_ - 1]; }
  Sizes leading() const { return {data_, count_ - 1}; }
  bool operator==(const Sizes& other) const { return std::equal(begin(), end(), other.begin(), other.end()); }

  int64_t product() const {
    int64_t result = 1;
    for (int64_t size : *this) result *= size;
    return result;
  }

 private:
  const int64_t* data_;
  int64_t count_;
};

constexpr int64_t kNone = 0;  // the size of a tensor that is not wanted

struct Place {
  enum Kind : int32_t { kCpu = 0, kCuda = 1, kOther };
  Kind kind;
  int32_t index;

  bool operator==(const Place& other) const { return kind == other.kind && index == other.index; }
  bool operator!=(const Place& other) const { return !(*this == other); }
};

inline std::string text_of(const Place& place) {
  if (place.kind == Place::kCpu) return "cpu";
  return place.kind == Place::kCuda ? text("cuda:", place.index) : std::string("another device");
}

struct Argument {
  const char* name;
  int32_t element;    // which tensor of a list of that name; -1: it is no list
  const char* dtype;  // as torch prints it
  bool floating;      // of one of the formats
  Format format;      // if floating
  Place place;
  Sizes sizes;
  const void* data;  // contiguous elements, unless `repeated`
  bool repeated;     // one element stands for all

  std::string label() const { return element < 0 ? std::string(name) : text(name, '[', element, ']'); }
  int64_t count() const { return sizes.product(); }
  bool wide() const { return floating && format == Format::kFloat64; }
};

// Shapes are printed like Python's tuples.
template <class AnySizes>
std::string shape_text(const AnySizes& sizes) {
  std::string result = "(";
  int64_t count = 0;
  for (const auto& size : sizes) result += text(count++ ? ", " : "", size);
  return result + (count == 1 ? ",)" : ")");
}

// A size of an expected shape: a number, or a name where any number will do.
struct Size {
  int64_t number;
  const char* name;

  Size(int64_t number) : number(number), name(nullptr) {}
  Size(const char* name) : number(0), name(name) {}
  bool fits(int64_t size) const { return name != nullptr || size == number; }
};

inline std::ostream& operator<<(std::ostream& stream, const Size& size) {
  return size.name ? stream << size.name : stream << size.number;
}

[[noreturn]] inline void fail_shape(const Argument& argument, const std::string& expected) {
  fail(argument.label(), "shape " + expected, shape_text(argument.sizes));
}

inline void check_shape(const Argument& argument, std::initializer_list<Size> expected) {
  const bool matches = argument.sizes.count() == static_cast<int64_t>(expected.size()) &&
                       std::equal(expected.begin(), expected.end(), argument.sizes.begin(),
                                  [](const Size& wanted, int64_t size) { return wanted.fits(size); });
  if (!matches) fail_shape(argument, shape_text(expected));
}

inline void check_same_shape(const Argument& argument, const Argument& like) {
  if (!(argument.sizes == like.sizes)) fail_shape(argument, shape_text(like.sizes));
}

// Check for the shape of `like` without its last size.
inline void check_one_per_row(const Argument& argument, const Argument& like) {
  if (!(argument.sizes == like.sizes.leading())) fail_shape(argument, shape_text(like.sizes.leading()));
}

// Check for the shape of `like` but for the last size, which is called `last`.
inline void check_same_rows(const Argument& argument, const Argument& like, const char* last) {
  if (argument.sizes.count() > 0 && argument.sizes.leading() == like.sizes.leading()) return;
  std::vector<Size> expected(like.sizes.begin(), like.sizes.end() - 1);
  expected.push_back(last);
  fail_shape(argument, shape_text(expected));
}

// Check that the argument lies where the first one does.
inline void check_place(const Argument& argument, const Argument& first) {
  if (argument.place != first.place)
    fail(argument.label(), "a tensor on " + text_of(first.place), "one on " + text_of(argument.place));
}

inline void check_dtype(const Argument& argument, const char* dtype) {
  if (std::string(argument.dtype) != dtype)
    fail(argument.label(), std::string("dtype ") + dtype, argument.dtype);
}

inline void check_format(const Argument& argument, Format format) {
  if (!argument.floating || argument.format != format) check_dtype(argument, name_of(format));
}

inline void check_floating(const Argument& argument) {
  if (!argument.floating)
    fail(argument.label(), "dtype float32, float64, bfloat16 or float16", argument.dtype);
}

// Check for a floating tensor whose last axis has at least one bin.
inline void check_bins(const Argument& argument) {
  check_floating(argument);
  if (argument.sizes.count() == 0 || argument.sizes.last() == 0)
    fail_shape(argument, "(..., bins) with at least one bin");
}

// Check for a floating tensor of one element; what it holds is looked at where that needs no waiting.
inline void check_positive(const Argument& argument) {
  check_floating(argument);
  if (argument.count() != 1) fail(argument.label(), "one element", argument.count());
  if (argument.place.kind != Place::kCpu) return;
  double value = 0;
  switch (argument.format) {
    case Format::kFloat64:
      value = *static_cast<const double*>(argument.data);
      break;
    case Format::kFloat32:
      value = *static_cast<const float*>(argument.data);
      break;
    case Format::kBFloat16:
      value = from_bfloat16(*static_cast<const uint16_t*>(argument.data));
      break;
    case Format::kFloat16:
      value = from_float16(*static_cast<const uint16_t*>(argument.data));
      break;
  }
  check_positive(argument.name, value);
}

// View the argument as rows along its last axis. Within a row, kernels count in 32 bits.
inline Rows rows_of(const Argument& argument) {
  const int64_t length = argument.sizes.last();
  if (length > int64_t{1} << 30) fail(argument.label(), "at most 2^30 bins", length);
  return {argument.data, static_cast<int32_t>(length), argument.format};
}

// View the argument as a list of scalars.
inline Rows scalars_of(const Argument& argument) { return {argument.data, 1, argument.format}; }

// Rows for a result in the format of `like`.
inline MutableRows rows_like(const Rows& like, void* data) { return {data, like.length, like.format}; }

}  // namespace cdkd
