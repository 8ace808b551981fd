import pytest

from segslim.errors import UserError
from segslim.pipeline.plan import plan
from segslim.pipeline.stage import stage
from tests.pipeline import toy

CHAIN = ["make", "scale", "measure", "compare"]


def test_baseline_is_measured_by_the_same_stages_from_the_first_checkpoint(tmp_path):
    steps = plan(toy.strategy(CHAIN, toy.config(tmp_path)), toy.STAGES).steps
    assert [step.label for step in steps] == ["make", "scale", "measure", "baseline measure", "compare"]
    baseline = steps[3]
    assert baseline.inputs["checkpoint"] is steps[0]


def test_without_compression_baseline_and_result_are_the_same_step(tmp_path):
    steps = plan(toy.strategy(["make", "measure", "compare"], toy.config(tmp_path)), toy.STAGES).steps
    assert [step.label for step in steps] == ["make", "measure", "compare"]
    assert steps[2].inputs["metrics"] is steps[2].inputs["baseline_metrics"]


def test_a_stage_may_stand_twice_and_takes_the_latest_checkpoint(tmp_path):
    steps = plan(toy.strategy(["make", "scale", "scale", "measure"], toy.config(tmp_path)), toy.STAGES).steps
    assert [step.label for step in steps] == ["make", "scale", "scale 2", "measure"]
    assert steps[2].inputs["checkpoint"] is steps[1]
    assert steps[3].inputs["checkpoint"] is steps[2]


def test_every_step_keeps_the_config_that_its_stage_sees(tmp_path):
    two, five = (toy.config(tmp_path, factor=factor) for factor in (2, 5))
    steps = plan([("make", two), ("scale", two), ("scale", five)], toy.STAGES).steps
    assert [step.config["factor"] for step in steps] == [2, 2, 5]
    assert steps[1].recipe["config"] != steps[2].recipe["config"]


def test_wanted_artifacts_that_no_stage_gives_are_left_out(tmp_path):
    results = plan(
        toy.strategy(["make", "scale"], toy.config(tmp_path)),
        toy.STAGES,
        wanted=("metrics", "baseline_metrics", "ratio"),
    ).results
    assert set(results) == {"checkpoint"}


def test_wanted_baseline_is_added_even_where_no_stage_takes_it(tmp_path):
    found = plan(
        toy.strategy(["make", "scale", "measure"], toy.config(tmp_path)), toy.STAGES, wanted=("baseline_metrics",)
    )
    assert found.results["baseline_metrics"].inputs["checkpoint"].label == "make"


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["make", "shrink"], "no stage 'shrink'; the stages are make, scale, measure, compare"),
        (["measure", "make"], "stage 'measure' needs a checkpoint"),
    ],
)
def test_a_strategy_that_cannot_work_is_one_line_that_names_the_stage(tmp_path, names, words):
    with pytest.raises(UserError, match=words):
        plan(toy.strategy(names, toy.config(tmp_path)), toy.STAGES)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["make", "measure", "scale", "compare"], "'measure' stands before 'scale'"),
        (["make", "scale", "make", "measure", "compare"], "nothing uses the checkpoint of 'scale'"),
    ],
)
def test_a_strategy_that_would_report_something_else_than_it_lists_is_refused(tmp_path, names, words):
    with pytest.raises(UserError, match=words):
        plan(toy.strategy(names, toy.config(tmp_path)), toy.STAGES, wanted=("metrics", "ratio"))


def test_inputs_of_different_origin_are_refused(tmp_path):
    @stage(gives="blend")
    def blend(checkpoint, metrics): ...

    stages = {**toy.STAGES, "blend": blend}
    plan(toy.strategy(["make", "scale", "measure", "blend"], toy.config(tmp_path)), stages)
    with pytest.raises(UserError, match="put 'measure' between them"):
        plan(toy.strategy(["make", "measure", "scale", "blend"], toy.config(tmp_path)), stages)


def test_what_is_accepted_of_the_baseline_is_other_work_and_never_its_own(tmp_path):
    @stage(gives="metrics", ignores=["journal"])
    def judge(checkpoint, config, baseline_metrics=None): ...

    stages = {**toy.STAGES, "judge": judge}
    config = toy.config(tmp_path)
    scaled = plan(toy.strategy(["make", "scale", "judge"], config), stages)
    assert [step.label for step in scaled.steps] == ["make", "scale", "baseline judge", "judge"]
    assert set(scaled.results["metrics"].inputs) == {"checkpoint", "baseline_metrics"}
    alone = plan(toy.strategy(["make", "judge"], config), stages, wanted=["metrics", "baseline_metrics"])
    assert [step.label for step in alone.steps] == ["make", "judge"]
