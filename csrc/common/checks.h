// Input checks with one message form: the argument, what was expected, what came. What they throw arrives in
// Python as a RuntimeError.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <initializer_list>
#include <sstream>
#include <stdexcept>
#include <string>

namespace cdkd {

template <class... Parts>
std::string text(const Parts&... parts) {
  std::ostringstream stream;
  (stream << ... << parts);
  return stream.str();
}

// A number as Python prints it.
inline std::string number_text(double value) {
  char digits[32];
  for (int precision = 1; precision <= 17; ++precision) {
    std::snprintf(digits, sizeof(digits), "%.*g", precision, value);
    if (std::strtod(digits, nullptr) == value) break;
  }
  const std::string number = digits;
  return number.find_first_not_of("-0123456789") == std::string::npos ? number + ".0" : number;
}

template <class Came>
[[noreturn]] void fail(const std::string& argument, const std::string& expected, const Came& came) {
  throw std::runtime_error(text(argument, ": expected ", expected, ", got ", came));
}

inline void check_number(bool condition, const char* argument, const char* expected, double came) {
  if (!condition) fail(argument, expected, number_text(came));
}

inline void check_positive(const char* argument, double value) {
  check_number(value > 0 && std::isfinite(value), argument, "a positive finite number", value);
}

// The place of `value` among `options`.
inline int check_option(const char* argument, const std::string& value,
                        std::initializer_list<const char*> options) {
  int index = 0;
  std::string names;
  for (const char* option : options) {
    if (value == option) return index;
    names += text(index++ ? ", '" : "'", option, "'");
  }
  fail(argument, "one of " + names, "'" + value + "'");
}

}  // namespace cdkd
