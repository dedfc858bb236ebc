"""Guessed tokens: with and without them the same answers, on one stage and on two."""

TEXT = ("The lighthouse keeper wrote down the weather three times a day. On Monday the wind came from the north-west at 21 "
        "knots. On Tuesday he rang the bell 118 times.")
PROMPTS = [f"{TEXT}\n\n{TEXT}\n\n{TEXT}\n\nThe lighthouse", "1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4,", "Once upon a time"]
ON = ["--speculation", "on"]  # also on several stages with GPUs, which auto leaves alone
TWO = ON + ["--nodes", "{worker-1: {use: always}, worker-2: {use: always}}"]


def answers(cluster):
    found = []
    for prompt in PROMPTS:
        for options in (dict(temperature=0, logprobs=2), dict(temperature=0.4, seed=3, n=2),
                        dict(temperature=0, frequency_penalty=0.2), dict(temperature=0, stop=["bell", ", 3"])):
            answer = cluster.client().completions.create(
                model=cluster.model_id, prompt=prompt, max_tokens=48, extra_body={"return_token_ids": True}, **options)
            found.append(([(choice.text, choice.finish_reason, choice.model_extra["token_ids"],
                            choice.logprobs and choice.logprobs.token_logprobs) for choice in answer.choices],
                          answer.usage.completion_tokens))
    return found


def counted(cluster, what):
    lines = cluster.get("/metrics")[1].splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"neurogrid_spec_decode_num_{what}_tokens_total "))


def test_guesses_change_no_answer_on_one_stage_or_two(start):
    plain = start(flags=["--speculation", "off"]).wait_ready()
    expected = answers(plain)
    assert counted(plain, "draft") == 0
    plain.stop()
    for options in (dict(flags=ON), dict(workers=2, flags=TWO)):
        cluster = start(**options).wait_ready()
        assert answers(cluster) == expected, options
        assert counted(cluster, "draft") >= counted(cluster, "accepted") > 0
        streamed = cluster.client().completions.create(
            model=cluster.model_id, prompt=PROMPTS[0], temperature=0, max_tokens=48, stream=True)
        assert "".join(choice.text for chunk in streamed for choice in chunk.choices) == expected[0][0][0][0]
        cluster.stop()
