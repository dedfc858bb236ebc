// Runs tests on the emulator as on a GPU of the compute capability that --architecture names.
#include <catch2/catch_session.hpp>
#include <catch2/internal/catch_clara.hpp>
#include <cstdio>

#include "tests/simt/emulator/simt.h"

int main(int argc, char** argv) {
  Catch::Session session;
  int architecture = simt::architecture;
  session.cli(session.cli() |
              Catch::Clara::Opt(architecture, "number")["--architecture"](
                  "the emulated GPU's: 80, or 75 for one without tensor cores for "
                  "bf16, without asynchronous copies, with 64 KiB of shared memory") |
              Catch::Clara::Opt(simt::multiprocessors, "number")["--multiprocessors"](
                  "of the emulated GPU; what blocks share out depends on it, results do not"));
  const int error = session.applyCommandLine(argc, argv);
  if (error != 0) return error;
  if (architecture != 75 && architecture != 80) {
    std::fprintf(stderr, "--architecture %d: the emulator is 75 or 80\n", architecture);
    return 2;
  }
  if (simt::multiprocessors < 1) {
    std::fprintf(stderr, "--multiprocessors %d: at least 1\n", simt::multiprocessors);
    return 2;
  }
  simt::architecture = architecture;
  return session.run();
}
