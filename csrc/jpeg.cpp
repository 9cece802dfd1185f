#include "jpeg.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

namespace cdkd {
namespace {

// Every block has at least one bit, in the scan of its first coefficient.
constexpr int64_t kMostPixelsPerByte = 512;
constexpr int kUnread = 255;

enum Marker : int {
  kTemporary = 0x01,
  kFrame = 0xc0,
  kProgressiveFrame = 0xc2,
  kHuffmanTables = 0xc4,
  kExtension = 0xc8,
  kArithmeticTables = 0xcc,
  kLastFrame = 0xcf,
  kFirstRestart = 0xd0,
  kLastRestart = 0xd7,
  kStart = 0xd8,
  kEnd = 0xd9,
  kScan = 0xda,
  kRestartInterval = 0xdd,
};

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

bool is_restart(int marker) { return marker >= kFirstRestart && marker <= kLastRestart; }

class HuffmanTable {
 public:
  struct Symbol {
    uint8_t length;  // of its code
    uint8_t value;
  };

  // From the number of codes of each length from 1 to 16; false if no code has such lengths.
  bool read(const uint8_t* counts, const uint8_t* symbols) {
    int code = 0, index = 0;
    short_.fill({0, 0});
    for (int length = 1; length <= 16; ++length) {
      index_of_code_[length] = index - code;
      const int end = code + counts[length - 1];
      if (end > 1 << length) return false;
      for (; code < end; ++code, ++index) {
        symbols_[index] = symbols[index];
        if (length > kShort) continue;
        const int step = 1 << (kShort - length);
        std::fill_n(short_.begin() + code * step, step, Symbol{static_cast<uint8_t>(length), symbols[index]});
      }
      end_code_[length] = code;
      code <<= 1;
    }
    return true;
  }

  // The symbol whose code 16 bits begin with; 0 where they begin with none.
  Symbol decode(int bits) const {
    const Symbol found = short_[bits >> (16 - kShort)];
    return found.length ? found : decode_long(bits);
  }

 private:
  static constexpr int kShort = 9;

  Symbol decode_long(int bits) const {
    for (int length = kShort + 1; length <= 16; ++length) {
      const int code = bits >> (16 - length);
      if (code < end_code_[length])
        return {static_cast<uint8_t>(length), symbols_[index_of_code_[length] + code]};
    }
    return {16, 0};
  }

  std::array<int, 17> index_of_code_{}, end_code_{};
  std::array<uint8_t, 256> symbols_{};
  std::array<Symbol, 1 << kShort> short_{};  // what begins with a short code
};

// The bits of a scan, from one restart marker to the next.
class Bits {
 public:
  Bits(const uint8_t* begin, const uint8_t* end) : next_(begin), end_(end) {}

  int take(int count) {
    fill();
    const int value = count ? static_cast<int>(held_ >> (64 - count)) : 0;
    drop(count);
    return value;
  }
  void skip(int count) {
    fill();
    drop(count);
  }
  // Take a symbol, and the value that follows: as many bits as the symbol's lower half says.
  int take_symbol(const HuffmanTable& table) {
    fill();
    const HuffmanTable::Symbol symbol = table.decode(static_cast<int>(held_ >> 48));
    drop(symbol.length + (symbol.value & 15));
    return symbol.value;
  }
  // Whether more bits were taken than there are.
  bool exhausted() const { return left_ < 0; }

  // Move behind the next restart marker; false if there is none.
  bool restart() {
    while (end_ - next_ >= 2 && !(next_[0] == 0xff && is_restart(next_[1]))) ++next_;
    if (end_ - next_ < 2) return false;
    next_ += 2;
    held_ = 0;
    left_ = 0;
    return true;
  }

 private:
  void fill() {
    if (left_ > 32) return;
    if (left_ >= 0 && end_ - next_ >= 8) {
      uint64_t bytes = 0;
      for (int i = 0; i < 8; ++i) bytes = bytes << 8 | next_[i];
      const uint64_t inverted = ~bytes, ones = 0x0101010101010101u;
      if (!((inverted - ones) & bytes & (ones << 7))) {  // no byte is 0xff
        held_ |= bytes >> left_;  // the bits of a byte that does not fit are added once more, the same ones
        next_ += (64 - left_) / 8;
        left_ += (64 - left_) / 8 * 8;
        return;
      }
    }
    while (left_ >= 0 && left_ <= 56 && next_ < end_) {
      uint64_t byte = *next_;
      if (byte == 0xff) {
        const uint8_t* after = next_ + 1;
        while (after < end_ && *after == 0xff) ++after;
        if (after == end_ || *after != 0) return;
        next_ = after;  // a zero follows those that are no marker
      }
      ++next_;
      held_ |= byte << (56 - left_);
      left_ += 8;
    }
  }
  // At most 32 bits, after filling.
  void drop(int count) {
    held_ <<= count;
    left_ -= count;
  }

  const uint8_t* next_;
  const uint8_t* end_;
  uint64_t held_ = 0;  // the next bits, from the highest down
  int left_ = 0;
};

struct Component {
  int id = 0, across = 1, down = 1;     // sampling factors
  int64_t blocks_x = 0, blocks_y = 0;   // those that the image reaches into
  int64_t stored_x = 0;                 // in a row of whole units
  std::array<uint8_t, 64> precision{};  // the lowest bit read of each coefficient
  std::vector<uint64_t> nonzero;        // per block of a progressive image: coefficients to refine
};

struct Part {
  Component* component;
  const HuffmanTable* first;  // for the first coefficient
  const HuffmanTable* others;
};

struct Scan {
  std::vector<Part> parts;
  int first, last, high, low;  // coefficients, and the bits before and after
};

class Image {
 public:
  int64_t height = 0, width = 0;

  bool read_tables(const uint8_t* at, const uint8_t* end) {
    while (end - at >= 17) {
      const int kind = at[0] >> 4, slot = at[0] & 15;
      int64_t symbols = 0;
      for (int i = 1; i <= 16; ++i) symbols += at[i];
      if (kind > 1 || slot > 3 || symbols > 256 || symbols > end - at - 17) return false;
      if (!tables_[kind][slot].read(at + 1, at + 17)) return false;
      at += 17 + symbols;
    }
    return true;
  }

  void read_interval(const uint8_t* at, const uint8_t* end) {
    if (end - at >= 2) interval_ = at[0] << 8 | at[1];
  }

  bool read_frame(int marker, const uint8_t* at, const uint8_t* end, int64_t bytes) {
    if (end - at < 6 || !components_.empty()) return false;
    height = at[1] << 8 | at[2];
    width = at[3] << 8 | at[4];
    const int count = at[5];
    if (count < 1 || count > 4 || end - at < 6 + 3 * count || height == 0 || width == 0) return false;
    components_.resize(count);
    for (int i = 0; i < count; ++i) {
      Component& c = components_[i];
      const uint8_t* entry = at + 6 + 3 * i;
      c.id = entry[0];
      c.across = entry[1] >> 4;
      c.down = entry[1] & 15;
      if (c.across < 1 || c.across > 4 || c.down < 1 || c.down > 4) return false;
      most_across_ = std::max(most_across_, c.across);
      most_down_ = std::max(most_down_, c.down);
    }
    counts_fit_ = height * width <= kMostPixelsPerByte * bytes;
    progressive_ = marker == kProgressiveFrame;
    // other processes than Huffman-coded blocks are taken at their word
    counted_ = counts_fit_ && marker <= kProgressiveFrame;
    if (counted_) lay_out();
    return true;
  }

  bool read_scan(const uint8_t* at, const uint8_t* end, const uint8_t* codes, const uint8_t* codes_end) {
    any_scan_ = true;
    if (!counted_) return true;
    Scan scan;
    if (!read_scan_header(at, end, &scan)) return false;
    counts_fit_ = counts_fit_ && count_blocks(scan, Bits(codes, codes_end));
    return true;
  }

  bool any_scan() const { return height > 0 && any_scan_; }

  // Whether all bits of all coefficients of all blocks are there.
  bool is_whole() const {
    if (!counted_) return counts_fit_;
    return counts_fit_ && std::all_of(components_.begin(), components_.end(), [](const Component& c) {
             return std::all_of(c.precision.begin(), c.precision.end(), [](int bit) { return bit == 0; });
           });
  }

 private:
  int64_t units_x() const { return divide_up(width, 8 * most_across_); }
  int64_t units_y() const { return divide_up(height, 8 * most_down_); }

  void lay_out() {
    for (Component& c : components_) {
      c.blocks_x = divide_up(divide_up(width * c.across, most_across_), 8);
      c.blocks_y = divide_up(divide_up(height * c.down, most_down_), 8);
      c.stored_x = units_x() * c.across;
      c.precision.fill(kUnread);
      if (progressive_) c.nonzero.resize(static_cast<size_t>(c.stored_x * units_y() * c.down));
    }
  }

  bool read_scan_header(const uint8_t* at, const uint8_t* end, Scan* scan) {
    if (components_.empty() || end - at < 1) return false;
    const int count = at[0];
    if (count < 1 || count > 4 || end - at < 4 + 2 * count) return false;
    const uint8_t* range = at + 1 + 2 * count;
    scan->first = progressive_ ? range[0] : 0;
    scan->last = progressive_ ? range[1] : 63;
    scan->high = progressive_ ? range[2] >> 4 : 0;
    scan->low = progressive_ ? range[2] & 15 : 0;
    if (scan->first > scan->last || scan->last > 63 || (scan->first > 0 && count > 1)) return false;
    for (int i = 0; i < count; ++i) {
      const int id = at[1 + 2 * i], tables = at[2 + 2 * i];
      const auto found = std::find_if(components_.begin(), components_.end(),
                                      [id](const Component& component) { return component.id == id; });
      if (found == components_.end() || tables >> 4 > 3 || (tables & 15) > 3) return false;
      scan->parts.push_back({&*found, &tables_[0][tables >> 4], &tables_[1][tables & 15]});
      std::fill(found->precision.begin() + scan->first, found->precision.begin() + scan->last + 1, scan->low);
    }
    return true;
  }

  // Whether the codes reach the scan's last block.
  bool count_blocks(const Scan& scan, Bits bits) {
    const bool alone = scan.parts.size() == 1;
    const Component& only = *scan.parts[0].component;
    const int64_t columns = alone ? only.blocks_x : units_x(), rows = alone ? only.blocks_y : units_y();
    run_ = 0;
    for (int64_t unit = 0; unit < rows * columns; ++unit) {
      if (interval_ && unit && unit % interval_ == 0) {
        if (!bits.restart()) return false;
        run_ = 0;
      }
      const int64_t x = unit % columns, y = unit / columns;
      for (const Part& part : scan.parts) {
        const int across = alone ? 1 : part.component->across, down = alone ? 1 : part.component->down;
        for (int i = 0; i < across * down; ++i)
          read_block(scan, part, x * across + i % across, y * down + i / across, &bits);
      }
      if (bits.exhausted()) return false;
    }
    return true;
  }

  void read_block(const Scan& scan, const Part& part, int64_t x, int64_t y, Bits* bits) {
    int k = scan.first;
    if (k == 0) {
      if (scan.high) {
        bits->skip(1);
      } else {
        bits->take_symbol(*part.first);
      }
      if (progressive_) return;
      k = 1;
    }
    uint64_t unused = 0;
    Component& c = *part.component;
    uint64_t& nonzero = progressive_ ? c.nonzero[static_cast<size_t>(y * c.stored_x + x)] : unused;
    if (scan.high) {
      refine(*part.others, k, scan.last, &nonzero, bits);
    } else {
      read_coefficients(*part.others, k, scan.last, &nonzero, bits);
    }
  }

  // Whether a symbol without a value begins a run of blocks that have no more coefficients.
  bool begins_run(int zeros, Bits* bits) {
    if (zeros == 15) return false;
    run_ = (int64_t{1} << zeros) + bits->take(zeros);
    return true;
  }

  void read_coefficients(const HuffmanTable& table, int k, int last, uint64_t* nonzero, Bits* bits) {
    if (run_ > 0) {
      --run_;
      return;
    }
    for (; k <= last; ++k) {
      const int symbol = bits->take_symbol(table), zeros = symbol >> 4, size = symbol & 15;
      if (size == 0 && begins_run(progressive_ ? zeros : zeros == 15 ? 15 : 0, bits)) {
        --run_;
        return;
      }
      k += zeros;
      if (size > 0 && k <= last) *nonzero |= uint64_t{1} << k;
    }
  }

  // One more bit of each coefficient that is not zero, and those that are new.
  void refine(const HuffmanTable& table, int k, int last, uint64_t* nonzero, Bits* bits) {
    for (; run_ == 0 && k <= last; ++k) {
      const int symbol = bits->take_symbol(table), size = symbol & 15;  // of one bit, the sign
      int zeros = symbol >> 4;
      if (size == 0 && begins_run(zeros, bits)) break;
      for (; k <= last; ++k) {
        if (*nonzero >> k & 1) {
          bits->skip(1);
        } else if (zeros-- == 0) {
          break;
        }
      }
      if (size > 0 && k <= last) *nonzero |= uint64_t{1} << k;
    }
    if (run_ == 0) return;
    for (; k <= last; ++k)
      if (*nonzero >> k & 1) bits->skip(1);
    --run_;
  }

  std::array<std::array<HuffmanTable, 4>, 2> tables_;
  std::vector<Component> components_;
  int most_across_ = 1, most_down_ = 1, interval_ = 0;
  bool progressive_ = false, counted_ = false, any_scan_ = false, counts_fit_ = true;
  int64_t run_ = 0;  // blocks without further coefficients
};

// Behind the next marker; null without one.
const uint8_t* behind_marker(const uint8_t* at, const uint8_t* end) {
  for (; end - at >= 2; ++at)
    if (at[0] == 0xff && at[1] != 0 && at[1] != 0xff) return at + 2;
  return nullptr;
}

const uint8_t* end_of_codes(const uint8_t* at, const uint8_t* end) {
  while (end - at >= 2) {
    at = static_cast<const uint8_t*>(std::memchr(at, 0xff, static_cast<size_t>(end - at - 1)));
    if (!at) return end;
    if (at[1] != 0 && at[1] != 0xff && !is_restart(at[1])) return at;
    ++at;
  }
  return end;
}

bool is_frame(int marker) {
  return marker >= kFrame && marker <= kLastFrame && marker != kHuffmanTables && marker != kExtension &&
         marker != kArithmeticTables;
}

}  // namespace

std::optional<JpegExtent> jpeg_extent(std::string_view content) {
  const uint8_t* const begin = reinterpret_cast<const uint8_t*>(content.data());
  const uint8_t* const end = begin + content.size();
  if (content.size() < 2 || begin[0] != 0xff || begin[1] != kStart) return {};
  Image image;
  bool closed = false;
  const uint8_t* reached = begin + 2;
  while (const uint8_t* at = behind_marker(reached, end)) {
    const int marker = at[-1];
    reached = at;
    closed = marker == kEnd;
    if (closed) break;
    if (marker == kTemporary || marker == kStart || is_restart(marker)) continue;
    const int64_t length = end - at >= 2 ? at[0] << 8 | at[1] : 0;
    if (length < 2 || length > end - at) {
      reached = end;
      break;
    }
    reached = at + length;
    bool fits = true;
    if (marker == kHuffmanTables) fits = image.read_tables(at + 2, reached);
    if (marker == kRestartInterval) image.read_interval(at + 2, reached);
    if (is_frame(marker)) fits = image.read_frame(marker, at + 2, reached, end - begin);
    if (marker == kScan) {
      const uint8_t* codes = reached;
      reached = end_of_codes(codes, end);
      fits = image.read_scan(at + 2, codes, codes, reached);
    }
    if (!fits) return {};
  }
  if (!image.any_scan()) return {};
  if (!closed) reached = end;
  return JpegExtent{image.height, image.width, reached - begin, closed, image.is_whole()};
}

}  // namespace cdkd
