#include "kd/train/progress.hpp"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <stdexcept>
#include <string>

#include "kd/core/utf8.hpp"
#include "kd/train/display_width.hpp"
#include "support/catch.hpp"

using kd::train::progress;
using kd::train::progress_options;

namespace {

double now = 0;
int clock_reads = 0;
double fake_seconds() {
  ++clock_reads;
  return now;
}

/// A file that is read back as text.
struct recorder {
  std::FILE* file = std::tmpfile();

  recorder() {
    REQUIRE(file != nullptr);
    now = 1000;
    clock_reads = 0;
  }
  recorder(const recorder&) = delete;
  ~recorder() { std::fclose(file); }

  std::string content() const {
    std::string out(static_cast<std::size_t>(std::ftell(file)), '\0');
    std::rewind(file);
    REQUIRE(std::fread(out.data(), 1, out.size(), file) == out.size());
    return out;
  }
  progress_options terminal(std::size_t width, bool colour = false) const {
    return {.out = file, .terminal = true, .colour = colour, .width = width, .seconds = fake_seconds};
  }
};

}  // namespace

TEST_CASE("progress: a pipe gets one plain line per epoch", "[train][progress]") {
  recorder out;
  {
    progress p({.out = out.file, .seconds = fake_seconds}, "LightNN", 2);
    for (std::size_t epoch = 1; epoch <= 2; ++epoch) {
      p.begin_epoch(epoch, 4, 512);
      for (std::size_t b = 1; b <= 4; ++b) {
        now += 1;
        p.batch(b, b * 128, 2.5);
      }
      p.end_epoch("loss 2.5000");
    }
  }
  CHECK(out.content() ==
        "LightNN epoch 1/2 loss 2.5000, 128 images/s, 4.0 s\nLightNN epoch 2/2 loss 2.5000, 128 images/s, 4.0 s\n");
}

TEST_CASE("progress: a terminal gets one line, redrawn in place and replaced at the epoch's end", "[train][progress]") {
  recorder out;
  {
    progress p(out.terminal(80), "LightNN", 2);
    p.begin_epoch(1, 4, 512);
    now += 2;
    p.batch(2, 256, 1.23456);
    p.end_epoch("loss 1.2");
  }
  CHECK(out.content() ==
        "\rLightNN 1/2 [############.............] 2/4 loss 1.2346 128 images/s, 0:06 left\x1b[K"
        "\r\x1b[KLightNN epoch 1/2 loss 1.2, 256 images/s, 2.0 s\n");
}

TEST_CASE("progress: at most ten redraws and one clock read per batch", "[train][progress]") {
  recorder out;
  progress p(out.terminal(80), "LightNN", 1);
  p.begin_epoch(1, 1000, 1000);
  clock_reads = 0;
  for (std::size_t b = 1; b <= 1000; ++b) {
    now += 0.001;
    p.batch(b, b, 1);
  }
  CHECK(clock_reads == 1000);
  const std::string content = out.content();
  const auto redraws = std::count(content.begin(), content.end(), '\r');
  CHECK(redraws >= 9);
  CHECK(redraws <= 10);
}

TEST_CASE("progress: every width fits, narrow ones without a bar", "[train][progress]") {
  for (std::size_t width = 1; width <= 200; ++width) {
    recorder out;
    {
      progress p(out.terminal(width), "SimpleNN", 10);
      p.begin_epoch(3, 391, 50000);
      now += 3;
      p.batch(390, 49920, 12345.678);
    }
    const std::string content = out.content();
    const std::size_t columns = content.find("\x1b[K") - 1;
    CHECK(columns <= (width > 1 ? width - 1 : 1));
    CHECK((content.find('#') != std::string::npos) == (width >= 71));
  }
}

TEST_CASE("progress: the time left counts from the epoch that a resumed run began with", "[train][progress]") {
  recorder out;
  {
    progress p(out.terminal(80), "A", 10);
    p.begin_epoch(9, 2, 20);
    now += 10;
    p.batch(1, 10, 1);
  }
  CHECK(out.content().find("0:30 left") != std::string::npos);
}

TEST_CASE("progress: an exception leaves no bar behind", "[train][progress]") {
  recorder out;
  try {
    progress p(out.terminal(80), "A", 1);
    p.begin_epoch(1, 2, 20);
    now += 1;
    p.batch(1, 10, 1);
    throw std::runtime_error("loss is NaN");
  } catch (const std::runtime_error&) {
  }
  const std::string content = out.content();
  CHECK(content.substr(content.size() - 4) == "\r\x1b[K");
}

TEST_CASE("progress: colours are drawn where asked for, and no file is no output", "[train][progress]") {
  recorder out;
  progress p(out.terminal(80, true), "A", 1);
  p.begin_epoch(1, 2, 20);
  now += 1;
  p.batch(1, 10, 1);
  CHECK(out.content().find("[\x1b[32m####") != std::string::npos);

  progress none({.out = nullptr, .terminal = true, .seconds = fake_seconds}, "A", 1);
  none.begin_epoch(1, 2, 20);
  now += 1;
  none.batch(1, 10, 1);
  none.end_epoch("");
}

TEST_CASE("progress: pipes are plain, terminals respect NO_COLOR and TERM", "[train][progress]") {
  recorder out;
  CHECK_FALSE(progress_options::detect(out.file).terminal);
  CHECK_FALSE(progress_options::detect(nullptr).terminal);

  const int master = ::posix_openpt(O_RDWR | O_NOCTTY);
  if (master < 0 || ::grantpt(master) != 0 || ::unlockpt(master) != 0) {
    WARN("no pseudo terminal here: detection on one is not checked");
    return;
  }
  const int slave = ::open(::ptsname(master), O_RDWR | O_NOCTTY);
  REQUIRE(slave >= 0);
  const winsize size{24, 57, 0, 0};
  REQUIRE(::ioctl(slave, TIOCSWINSZ, &size) == 0);
  std::FILE* const terminal = ::fdopen(slave, "w");
  REQUIRE(terminal != nullptr);
  const auto detect = [&](const char* term, const char* no_color) {
    ::setenv("TERM", term, 1);
    ::setenv("NO_COLOR", no_color, 1);
    return progress_options::detect(terminal);
  };
  CHECK(detect("xterm", "").terminal);
  CHECK(detect("xterm", "").colour);
  CHECK(detect("xterm", "").columns() == 57);
  CHECK(detect("xterm", "1").terminal);
  CHECK_FALSE(detect("xterm", "1").colour);
  CHECK_FALSE(detect("dumb", "").terminal);

  // The bar follows a terminal that changes its width.
  {
    auto options = detect("xterm", "1");
    options.seconds = fake_seconds;
    progress p(options, "SimpleNN", 10);
    p.begin_epoch(1, 10, 100);
    std::size_t done = 0;
    for (const unsigned short columns : {200, 30, 90}) {
      const winsize changed{24, columns, 0, 0};
      REQUIRE(::ioctl(slave, TIOCSWINSZ, &changed) == 0);
      now += 1;
      ++done;
      p.batch(done, 10 * done, 1);
      char drawn[1024];
      const auto length = ::read(master, drawn, sizeof drawn);
      REQUIRE(length > 0);
      const std::string line(drawn, static_cast<std::size_t>(length));
      const std::size_t width = line.find("\x1b[K") - 1;
      CHECK(width <= columns - 1u);
      CHECK(width >= std::min<std::size_t>(columns - 1u, 70));
    }
  }
  CHECK(progress_options{.out = out.file}.columns() == 80);
  std::fclose(terminal);
  ::close(master);
}

TEST_CASE("progress: a name of wide letters is cut between letters and fits", "[train][progress]") {
  for (std::size_t width = 1; width <= 120; ++width) {
    recorder out;
    {
      progress p(out.terminal(width), "\u77e5\u8b58\u84b8\u7559e\u0301", 10);
      p.begin_epoch(3, 391, 50000);
      now += 3;
      p.batch(390, 49920, 2.5);
    }
    const std::string content = out.content();
    const std::string line = content.substr(1, content.find("\x1b[K") - 1);
    CHECK(kd::detail::is_utf8(line));
    CHECK(kd::train::display_width(line) <= (width > 1 ? width - 1 : 1));
    if (width > 2) CHECK(kd::train::display_width(line) + 2 >= std::min<std::size_t>(width, 62));
  }
}

TEST_CASE("progress: times are written as clocks", "[train][progress]") {
  using kd::train::detail::clock_text;
  CHECK(clock_text(0) == "0:00");
  CHECK(clock_text(59.6) == "1:00");
  CHECK(clock_text(247) == "4:07");
  CHECK(clock_text(3909) == "1:05:09");
  CHECK(clock_text(-1) == "-");
  CHECK(clock_text(1e300) == "-");
}
