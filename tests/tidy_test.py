"""Rules of the tree that no compiler checks: who includes whom, lengths, targets, names in READMEs.

Prints one line for each breach; exits 1 when there is any.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70

# folder -> prefixes of our own headers that its files may include (design: "who may include whom").
MAY_INCLUDE = {
    "common": ["common/"],
    "kernels": ["kernels/"],
    "engine/model": ["common/", "engine/model/"],
    "engine/text": ["common/", "engine/model/", "engine/text/"],
    "engine": ["common/", "engine/"],
    "engine/cpu": ["common/", "engine/"],
    "engine/bench": ["common/", "engine/"],
    "engine/cuda": ["common/", "engine/", "kernels/"],
    "proto": ["common/", "proto/", "engine/batch", "engine/model/precision.h", "engine/model/layer_range.h"],
    "worker": ["common/", "engine/", "worker/", "proto/"],
    "coordinator": ["common/", "engine/model/", "engine/text/", "engine/batch", "engine/workspace_bytes.h", "engine/bench/bench_options.h", "coordinator/", "proto/"],
    "tests": [""],
}
# The files that hold a stage inside the coordinator's process: to serve with, and to measure.
EXCEPTIONS = {"coordinator/local_stage.cc": ["worker/", "engine/"], "coordinator/own_device.cc": ["engine/"]}

# Third-party headers, and the files that may see them.
THIRD_PARTY = {
    "nlohmann/": {"common/json.cc"},
    "glog/": {"common/log.cc"},
    "yaml-cpp/": {"common/yaml.cc"},
    "openssl/": {"common/digest.cc", "common/identity.cc", "common/tls_stream.cc", "coordinator/api_keys.cc"},
    "httplib.h": {"coordinator/http_server.cc", "coordinator/hub_client.cc"},
    "pcre2.h": {"engine/text/split_pattern.cc"},
    "prometheus/": {"coordinator/serving_metrics.cc"},
    "CLI/": {"coordinator/command_line.cc", "worker/command_line.cc"},
}
FORBIDDEN = {
    r"\bstd::regex\b": "std::regex overflows the stack on long input",
    r"\balloca\s*\(": "alloca is unbounded",
    r"\bassert\s*\(": "assert vanishes in release builds: NG_CHECK or Status",
    r"\bTODO\b|\bFIXME\b|\bXXX\b": "a plan belongs into an issue",
}

breaches = []


def breach(path, line, what):
    breaches.append(f"{path}:{line}: {what}" if line else f"{path}: {what}")


def tracked():
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode == 0:
        names = listed.stdout.splitlines()
    else:  # an unpacked archive
        names = [str(p.relative_to(ROOT)) for p in ROOT.rglob("*") if p.is_file() and "build" not in p.parts[0:1]]
    return [Path(name) for name in names if (ROOT / name).is_file()]


def without_comments_and_strings(text):
    """The same text, comment and literal contents blanked, so that braces and words count."""
    pattern = re.compile(r'R"(\w*)\(.*?\)\1"|//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'', re.S)

    def blank(match):
        found = match.group(0)
        if found.startswith("'") and re.match(r"[0-9a-fA-F]", text[match.start() - 1 : match.start()] or " "):
            return found  # a digit separator, not a character
        return re.sub(r"[^\n]", " ", found)

    return pattern.sub(blank, text)


def check_functions(path, code):
    """Every outermost block that is no namespace, class or initialiser."""
    depth = []
    head_start = 0
    for at, c in enumerate(code):
        if c in ";" and all(kind == "scope" for kind, _ in depth):
            head_start = at + 1
        if c == "{":
            head = code[head_start:at].strip()
            scope = re.search(r"\b(namespace|class|struct|union|enum|extern)\b[^()=;]*$", head) is not None
            inside = any(kind != "scope" for kind, _ in depth)
            if inside:
                depth.append(("inner", at))
            elif scope:
                depth.append(("scope", at))
                head_start = at + 1
            else:
                depth.append(("block", head_start + len(code[head_start:at]) - len(code[head_start:at].lstrip())))
        elif c == "}" and depth:
            kind, start = depth.pop()
            if kind == "block":
                lines = code.count("\n", start, at) + 1
                head = code[start : code.index("{", start)]
                if lines > FUNCTION_LINES_MAX and "(" in head and "=" not in head.split("(")[0]:
                    breach(path, code.count("\n", 0, start) + 1, f"a function of {lines} lines (at most {FUNCTION_LINES_MAX})")
            if all(k == "scope" for k, _ in depth):
                head_start = at + 1


def check_includes(path, text):
    folder = str(path.parent)
    if folder.startswith("tests"):
        folder = "tests"
    allowed = MAY_INCLUDE.get(folder)
    if allowed is None:
        breach(path, 0, "this folder stands in no row of the include table")
        return
    allowed = allowed + EXCEPTIONS.get(str(path), [])
    for number, line in enumerate(text.splitlines(), 1):
        own = re.match(r'#include "([^"]+)"', line)
        if own and not own.group(1).startswith("absl/") and not any(own.group(1).startswith(prefix) for prefix in allowed):
            breach(path, number, f"{folder}/ may not include {own.group(1)}")
        system = re.match(r"#include <([^>]+)>", line)
        if system and folder != "tests":
            for prefix, files in THIRD_PARTY.items():
                if system.group(1).startswith(prefix) and str(path) not in files:
                    breach(path, number, f"{system.group(1)} is seen by {', '.join(sorted(files))} alone")


def check_readmes(path, text):
    for number, line in enumerate(text.splitlines(), 1):
        for name in re.findall(r"`([A-Za-z0-9_.\-/]+)`", line):
            if "/" not in name and not re.search(r"\.(cc|h|md|proto|yaml|py|cmake)$", name):
                continue
            if name.startswith((".cc", ".h", "build/", "/", "-", "~")) or "*" in name or name.count("/") > 6:
                continue
            folder = (ROOT / path).parent
            top = name.split("/")[0]
            looks_ours = (ROOT / top).exists() or "." in name.split("/")[-1]
            candidates = [folder / name, ROOT / name]
            if looks_ours and re.search(r"\.(cc|h|md|proto|yaml|py|cmake)$|/$", name):
                if not any(c.exists() for c in candidates):
                    breach(path, number, f"names {name}, which does not exist")


def main():
    files = tracked()
    tests_listed = (ROOT / "tests/CMakeLists.txt").read_text()
    for path in files:
        name = str(path)
        if path.suffix in {".cc", ".h", ".cu", ".cuh", ".py", ".proto"}:
            text = (ROOT / path).read_text()
            lines = text.count("\n")
            if lines > FILE_LINES_MAX:
                breach(path, 0, f"{lines} lines (at most {FILE_LINES_MAX})")
            if path.suffix in {".cc", ".h", ".cu", ".cuh"}:
                code = without_comments_and_strings(text)
                check_functions(path, code)
                check_includes(path, text)
                for pattern, why in FORBIDDEN.items():
                    for match in re.finditer(pattern, text if "TODO" in pattern else code):
                        breach(path, text.count("\n", 0, match.start()) + 1, why)
                if "#pragma once" not in text and path.suffix == ".h":
                    breach(path, 0, "no #pragma once")
        if path.suffix == ".md":
            check_readmes(path, (ROOT / path).read_text())
        if name.startswith("tests/") and name.endswith("_test.cc"):
            folder = path.parent.relative_to("tests")
            if not re.search(rf"ng_test\({folder}[ )]|/{folder}/\*\.cc", tests_listed):
                breach(path, 0, "is in no target of tests/CMakeLists.txt")
    for folder in ["proto", "common", "kernels", "engine", "worker", "coordinator", "deploy", "tests"]:
        if (ROOT / folder).exists() and not (ROOT / folder / "README.md").exists():
            breach(folder, 0, "has no README.md stating its contract")
    print("\n".join(breaches) if breaches else "tidy: every rule holds")
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main())
