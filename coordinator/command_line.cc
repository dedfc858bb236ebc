#include "coordinator/command_line.h"

#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <optional>
#include <vector>

#include "common/unknown_argument.h"

namespace neurogrid {
namespace {

/// The configuration's flags of one verb. Values are kept as text until the file has been read.
struct ConfigFlags {
  std::string file;
  std::vector<std::string> values;
  std::vector<CLI::Option*> options;

  void AddTo(CLI::App& verb) {
    verb.add_option("--config", file, "YAML file; see deploy/cluster.yaml")->option_text("FILE");
    const absl::Span<const ConfigKey> keys = ConfigKeys();
    values.resize(keys.size());
    for (size_t i = 0; i < keys.size(); ++i) {
      const std::string flag = "--" + keys[i].flag();
      if (keys[i].is_switch) {
        options.push_back(verb.add_flag(flag, values[i], keys[i].help));
      } else {
        options.push_back(verb.add_option(flag, values[i], keys[i].help)->option_text("VALUE"));
      }
    }
  }

  absl::Status Read(Config& config) const {
    if (!file.empty()) NG_RETURN_IF_ERROR(ReadConfigFile(file, config));
    const absl::Span<const ConfigKey> keys = ConfigKeys();
    for (size_t i = 0; i < keys.size(); ++i) {
      if (options[i]->count() == 0) continue;
      if (keys[i].name == "api_keys") {
        return absl::InvalidArgumentError(
            "--api-keys would show the keys to every user of this machine; use --api-keys-file");
      }
      NG_RETURN_IF_ERROR(SetConfigKey(config, keys[i].name, values[i], "--" + keys[i].flag()));
    }
    return FinishConfig(config);
  }
};

struct Verbs {
  CLI::App app{
      "NeuroGrid coordinator: serves one model from many machines behind one OpenAI-compatible "
      "endpoint",
      "neurogrid-coordinator"};
  ConfigFlags serve_flags, plan_flags, token_flags, bench_flags;
  CLI::App* serve = app.add_subcommand("serve", "serve the model (the default)");
  CLI::App* plan =
      app.add_subcommand("plan", "print who would run which layers, and why; starts nothing");
  CLI::App* token =
      app.add_subcommand("token", "print a join token for one worker as the last line");
  CLI::App* bench = app.add_subcommand(
      "bench", "measure prompt processing, decoding and batches on this machine");

  CLI::App* download = app.add_subcommand(
      "download", "bring a model from the hub into the cache and print its path");

  explicit Verbs(CommandLine& line) {
    app.set_version_flag("--version", "neurogrid-coordinator " NG_VERSION);
    app.require_subcommand(1);
    app.failure_message(CLI::FailureMessage::simple);
    serve_flags.AddTo(*serve);
    plan_flags.AddTo(*plan);
    token_flags.AddTo(*token);
    bench_flags.AddTo(*bench);
    token->add_option("--hours", line.token_hours, "how long the token is good")
        ->check(CLI::Range(1, 24 * 30))
        ->capture_default_str();
    AddBenchOptions(line.bench);
    AddDownloadOptions(line.download);
  }

  void AddBenchOptions(BenchOptions& b) {
    bench->add_option(
        "--synthetic", b.synthetic,
        "shape instead of a model: lfm2.5-1.2b, llama-3.2-1b, llama-3.1-8b, llama-1b, "
        "smollm2-135m or a config.json; --quantization auto then means bf16 and int8");
    bench->add_option("--prompt", b.prompts,
                      "tokens of a prompt, a list (512; on a GPU 512,2048,8192)");
    bench->add_option("--prompt-depths", b.prompt_depths,
                      "tokens before those of a prompt, a list (0)");
    bench->add_option("--depths", b.depths,
                      "tokens before those that one sequence decodes, a list (0; on a GPU "
                      "0,4096,32768)");
    bench->add_option("--batches", b.batches,
                      "concurrent sequences, a list (1,8,32; on a GPU 1,8,64,256)");
    bench
        ->add_option("--batch-depth", b.batch_depth,
                     "tokens before those that batches decode (0; on a GPU 1024)")
        ->check(CLI::Range(0, 1 << 20));
    const auto add = [this](const char* flag, int& value, int most, const char* help) {
      bench->add_option(flag, value, help)->check(CLI::Range(1, most))->capture_default_str();
    };
    add("--decode", b.decode_tokens, 8192, "tokens that a sequence decodes in a round");
    add("--chunk", b.chunk_tokens, 1 << 16, "tokens of a prompt in one step, at most");
    add("--rounds", b.rounds, 100, "repetitions of all cases in turn; the median counts");
    bench
        ->add_option("--busy-threads", b.busy_threads,
                     "threads that keep processors busy while every case runs once more (0)")
        ->check(CLI::Range(0, 1024));
    bench->add_flag("--json", b.json, "one JSON object a line instead of the table");
  }

  void AddDownloadOptions(DownloadOptions& d) {
    download->add_option("name", d.name, "ORG/NAME, ORG/NAME@REVISION or ORG/NAME:FILE.gguf")
        ->option_text("NAME")
        ->required();
    download->add_option("--revision", d.revision, "branch, tag or commit (main)")
        ->option_text("REVISION");
    download
        ->add_option("--file", d.file,
                     "which of several GGUF files: a name, a glob, or a part such as Q4_K_M")
        ->option_text("FILE");
    download->add_flag("--quiet", d.quiet, "print the path alone");
    download->footer(
        "Environment: HF_TOKEN (or the file of the hub's login), HF_ENDPOINT, HF_HOME or "
        "HF_HUB_CACHE, HF_HUB_OFFLINE, HF_HUB_DOWNLOAD_TIMEOUT (seconds of silence, 30), "
        "NEUROGRID_HUB_RETRY_MS (before the second try, 500; doubles), SSL_CERT_FILE.");
  }
};

bool IsVerb(const std::string& word) {
  return word == "serve" || word == "plan" || word == "token" || word == "bench" ||
         word == "download";
}

}  // namespace

absl::StatusOr<CommandLine> ParseCommandLine(int argc, const char* const* argv) {
  CommandLine line;
  Verbs verbs(line);
  std::vector<std::string> words(argv + 1, argv + argc);
  const bool about =
      !words.empty() && (words[0] == "--help" || words[0] == "-h" || words[0] == "--version");
  if (!about && (words.empty() || !IsVerb(words[0]))) words.insert(words.begin(), "serve");
  std::reverse(words.begin(), words.end());  // CLI11 takes them from the back
  try {
    verbs.app.parse(std::move(words));
  } catch (const CLI::Success& success) {
    verbs.app.exit(success, std::cout, std::cerr);
    line.verb = CommandLine::Verb::kDone;
    return line;
  } catch (const CLI::ExtrasError&) {
    return absl::InvalidArgumentError(UnknownArgument(verbs.app.remaining(/*recurse=*/true)));
  } catch (const CLI::ParseError& error) {
    return absl::InvalidArgumentError(std::string(error.what()) + "; see --help");
  }
  const struct {
    CLI::App* app;
    const ConfigFlags& flags;
    CommandLine::Verb verb;
  } table[] = {{verbs.serve, verbs.serve_flags, CommandLine::Verb::kServe},
               {verbs.plan, verbs.plan_flags, CommandLine::Verb::kPlan},
               {verbs.token, verbs.token_flags, CommandLine::Verb::kToken},
               {verbs.bench, verbs.bench_flags, CommandLine::Verb::kBench}};
  if (verbs.download->parsed()) line.verb = CommandLine::Verb::kDownload;
  for (const auto& row : table) {
    if (!row.app->parsed()) continue;
    line.verb = row.verb;
    NG_RETURN_IF_ERROR(row.flags.Read(line.config));
  }
  return line;
}

}  // namespace neurogrid
