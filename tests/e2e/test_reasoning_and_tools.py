"""Reasoning and tools with real processes: a tiny model whose answers mean nothing, so only their form is checked."""

import subprocess

import openai
import pytest
from conftest import ROOT

# The prompt ends inside reasoning, as R1's does.
TEMPLATE = """{% if tools %}<|im_start|>system
{{ tools | tojson }}<|im_end|>
{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}{% for c in m.tool_calls %}<tool_call>
{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}
</tool_call>{% endfor %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
<think>
{% endif %}"""
TOOL = {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}}
ASK = [{"role": "user", "content": "Hi"}]


@pytest.fixture(scope="module")
def thinker(tmp_path_factory):
    from conftest import Cluster

    folder = tmp_path_factory.mktemp("thinker")
    subprocess.run(["tar", "-xJf", ROOT / "tests/data/golden/tiny-qwen3.tar.xz", "-C", folder, "tiny/qwen3"], check=True)
    (folder / "tiny/qwen3/chat_template.jinja").write_text(TEMPLATE)
    cluster = Cluster(folder, workers=2, model=str(folder / "tiny/qwen3"), flags=["--max-seq-len", 256]).wait_ready()
    yield cluster
    cluster.stop()


def token(cluster, text):
    return cluster.post("/tokenize", {"content": text})[2]["tokens"][0]


def ask(cluster, extra, **options):
    return cluster.client().chat.completions.create(
        model=cluster.model_id, messages=ASK, max_tokens=24, seed=7, extra_body={"ignore_eos": True, **extra}, **options)


def test_a_budget_forces_the_closing_tag_through_the_chain(thinker):
    close = token(thinker, "</think>")
    for budget in (0, 1, 5):
        # Banned, the tag can only be a forced one.
        answer = ask(thinker, {"reasoning_budget": budget}, logit_bias={str(close): -100}, logprobs=True)
        tokens = [entry.token for entry in answer.choices[0].logprobs.content]
        assert tokens.index("</think>") == budget
        assert all(entry.logprob <= 0 for entry in answer.choices[0].logprobs.content)
        assert answer.usage.completion_tokens_details.reasoning_tokens == budget + 1
        message = answer.choices[0].message
        thought = getattr(message, "reasoning_content", None) or ""
        assert "</think>" not in thought + message.content
        assert (thought == "") == (budget == 0)


def test_an_answer_cut_inside_reasoning_has_no_content(thinker):
    close = token(thinker, "</think>")
    answer = ask(thinker, {}, logit_bias={str(close): -100})
    assert answer.choices[0].finish_reason == "length"
    assert answer.choices[0].message.content == ""
    assert len(answer.choices[0].message.reasoning_content) > 0
    assert answer.usage.completion_tokens_details.reasoning_tokens == 24


def test_the_merged_stream_is_the_whole_answer(thinker):
    whole = ask(thinker, {"reasoning_budget": 6}, tools=[TOOL]).choices[0].message
    thought = content = ""
    for chunk in ask(thinker, {"reasoning_budget": 6}, tools=[TOOL], stream=True):
        delta = chunk.choices[0].delta
        more = getattr(delta, "reasoning_content", None) or ""
        assert not (more and delta.content)
        thought += more
        content += delta.content or ""
    assert (thought, content) == (whole.reasoning_content, whole.content or "")


def test_a_forced_call_is_refused_by_name(thinker):
    assert ask(thinker, {}, tools=[TOOL], tool_choice="none").choices[0].message.tool_calls is None
    with pytest.raises(openai.BadRequestError) as refused:
        ask(thinker, {}, tools=[TOOL], tool_choice="required")
    assert (refused.value.code, refused.value.param) == ("unsupported_parameter", "tool_choice")
