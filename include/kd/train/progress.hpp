/// The progress of a training: a bar redrawn in place on a terminal, one plain line per epoch in a pipe.
#pragma once

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>

#include "kd/core/abi.hpp"
#include "kd/core/error.hpp"
#include "kd/train/display_width.hpp"

namespace kd::inline KD_ABI::train {

/// Seconds since some fixed point, from a clock that never goes back.
using clock_source = double (*)();
inline double steady_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// Where and how progress is shown.
struct progress_options {
  std::FILE* out = stderr;  ///< null shows nothing
  bool terminal = false;    ///< redraw one line in place; otherwise one line per epoch
  bool colour = false;      ///< ANSI colours, on a terminal
  std::size_t width = 0;    ///< columns; 0: those that the terminal has at each redraw, 80 where it does not say
  clock_source seconds = steady_seconds;

  /// The columns to draw in now.
  std::size_t columns() const;

  /// What suits the file: a bar where it is a terminal (and TERM is not "dumb"), coloured unless NO_COLOR is set and
  /// not empty (no-color.org).
  static progress_options detect(std::FILE* out);
};

/// Shows the progress of one training; begin_epoch, then batch after every batch, then end_epoch.
class progress {
 public:
  /// `name` starts every line. Epochs count from 1.
  progress(progress_options options, std::string name, std::size_t epochs)
      : options_(options), name_(std::move(name)), epochs_(epochs) {}
  progress(const progress&) = delete;
  /// Clears a bar that an exception left on the terminal.
  ~progress() { clear(); }

  void begin_epoch(std::size_t epoch, std::size_t batches, std::size_t images);
  /// `images` done in this epoch so far, and the loss to show. Reads the clock once; draws at most 10 times a second.
  void batch(std::size_t batches_done, std::size_t images_done, double loss);
  /// Replaces the bar by the epoch's line: "NAME epoch 3/10 SUMMARY, 5120 images/s, 9.8 s".
  void end_epoch(std::string_view summary);

 private:
  static constexpr double redraw_seconds = 0.1;

  std::string bar(std::size_t batches_done, std::size_t images_done, double loss, double now) const;
  void clear();

  progress_options options_;
  std::string name_;
  std::size_t epochs_, epoch_ = 0, first_epoch_ = 0, batches_ = 0, images_ = 0;
  double begin_ = 0, epoch_begin_ = 0, drawn_ = 0;
  bool shown_ = false;
};

namespace detail {

/// The number with a fixed count of decimals.
inline std::string decimals(double value, int digits) {
  char out[64];
  const int length = std::snprintf(out, sizeof out, "%.*f", digits, value);
  return std::string(out, static_cast<std::size_t>(std::clamp(length, 0, 63)));
}

/// "1:05:09", "4:07"; "-" where unknown.
inline std::string clock_text(double seconds) {
  if (!(seconds >= 0 && seconds < 1e9)) return "-";
  const auto whole = static_cast<unsigned long>(seconds + 0.5);
  const auto two = [](unsigned long n) { return text(n / 10, n % 10); };
  const unsigned long hours = whole / 3600, minutes = whole / 60 % 60;
  return hours > 0 ? text(hours, ":", two(minutes), ":", two(whole % 60)) : text(minutes, ":", two(whole % 60));
}

}  // namespace detail

inline progress_options progress_options::detect(std::FILE* out) {
  progress_options result;
  result.out = out;
  if (out == nullptr) return result;
  const auto value_of = [](const char* name) {
    const char* const value = std::getenv(name);
    return std::string_view(value == nullptr ? "" : value);
  };
  result.terminal = ::isatty(::fileno(out)) == 1 && value_of("TERM") != "dumb";
  result.colour = result.terminal && value_of("NO_COLOR").empty();
  return result;
}

inline std::size_t progress_options::columns() const {
  winsize size{};
  if (width > 0) return width;
  return ::ioctl(::fileno(out), TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

inline void progress::begin_epoch(std::size_t epoch, std::size_t batches, std::size_t images) {
  epoch_begin_ = options_.seconds();
  if (first_epoch_ == 0) {
    first_epoch_ = epoch;
    begin_ = epoch_begin_;
  }
  epoch_ = epoch;
  batches_ = batches;
  images_ = images;
  drawn_ = epoch_begin_;
}

inline void progress::batch(std::size_t batches_done, std::size_t images_done, double loss) {
  if (!options_.terminal || options_.out == nullptr) return;
  const double now = options_.seconds();
  if (now - drawn_ < redraw_seconds) return;
  drawn_ = now;
  const std::string line = bar(batches_done, images_done, loss, now);
  // \r and \x1b[K: from the line's start, and clear what a longer line before left.
  std::fprintf(options_.out, "\r%s\x1b[K", line.c_str());
  std::fflush(options_.out);
  shown_ = true;
}

inline std::string progress::bar(std::size_t batches_done, std::size_t images_done, double loss, double now) const {
  const double share =
      batches_ == 0 ? 1.0 : static_cast<double>(std::min(batches_done, batches_)) / static_cast<double>(batches_);
  const double epochs_done = static_cast<double>(epoch_ - first_epoch_) + share;
  const double epochs_left = static_cast<double>(epochs_ - std::min(epoch_, epochs_)) + 1 - share;
  const double left = epochs_done > 0 ? (now - begin_) * epochs_left / epochs_done : -1;
  const std::string head = text(name_, " ", epoch_, "/", epochs_, " ");
  const std::string tail = text(" ", batches_done, "/", batches_, " loss ", detail::decimals(loss, 4), " ",
                                detail::decimals(static_cast<double>(images_done) / (now - epoch_begin_), 0),
                                " images/s, ", detail::clock_text(left), " left");
  // One column stays free: a full line would wrap on some terminals.
  const std::size_t columns = std::max<std::size_t>(options_.columns(), 2) - 1;
  const std::size_t taken = display_width(head) + display_width(tail) + 2;
  if (columns < taken + 4) return std::string(cut_to_width(head + tail.substr(1), columns));
  const std::size_t room = std::min<std::size_t>(columns - taken, 40);
  const auto full = static_cast<std::size_t>(share * static_cast<double>(room));
  const std::string_view on = options_.colour ? "\x1b[32m" : "", off = options_.colour ? "\x1b[0m" : "";
  return text(head, "[", on, std::string(full, '#'), off, std::string(room - full, '.'), "]", tail);
}

inline void progress::end_epoch(std::string_view summary) {
  if (options_.out == nullptr) return;
  const double taken = options_.seconds() - epoch_begin_;
  clear();
  const std::string speed =
      taken > 0 ? text(", ", detail::decimals(static_cast<double>(images_) / taken, 0), " images/s") : "";
  const std::string line =
      text(name_, " epoch ", epoch_, "/", epochs_, " ", summary, speed, ", ", detail::decimals(taken, 1), " s\n");
  std::fwrite(line.data(), 1, line.size(), options_.out);
  std::fflush(options_.out);
}

inline void progress::clear() {
  if (!shown_) return;
  std::fputs("\r\x1b[K", options_.out);
  std::fflush(options_.out);
  shown_ = false;
}

}  // namespace kd::inline KD_ABI::train
